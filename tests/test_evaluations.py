"""Records of attacks: made once, found again, gone on with, and not mixed up."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isce import data, evaluate, evaluations, profiles, record, train
from isce.evaluations import Evaluation, load_or_evaluate
from isce.models import Classifier
from isce.train import Spec, load_or_train

SPEC = Spec("digits", "lenet5", "isce")
N = 40


@pytest.fixture(scope="module")
def split() -> data.Split:
    return data.subset(data.load("digits").test, N)


def test_record(digits_isce: Classifier) -> None:
    wanted = Evaluation(SPEC, "deepfool_50", (0.5, 1.0), N)
    done = load_or_evaluate(wanted, "cpu", progress=False)
    rows = evaluations.load_rows(wanted)
    assert done == json.loads(wanted.path.read_text())
    assert done["n"] == N
    for entry in done["results"]:
        right = rows.loc[rows["level"] == entry["level"], "correct"].to_numpy()
        assert entry["accuracy"] == pytest.approx(100 * right.mean())
        assert entry["interval"][0] <= entry["accuracy"] <= entry["interval"][1]
        assert (evaluations.unpack(entry["correct"], N) == right).all()
    norms = evaluations.minimal_norms(rows[rows["level"] == 0.5])
    assert done["minimal"]["median"] == pytest.approx(np.median(norms[norms > 0]))
    before = wanted.path.stat().st_mtime_ns
    load_or_evaluate(wanted, "cpu", progress=False)
    assert wanted.path.stat().st_mtime_ns == before  # read, not made again


@pytest.mark.parametrize(
    ("attack", "levels"), [("deepfool_50@raw", (0.5, 1.0)), ("pgd_tar_10", (0.5,)), ("simba", (0.2,))]
)
def test_more_images_go_on_where_fewer_ended(
    attack: str, levels: tuple[float, ...], digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = evaluate.evaluate, []
    monkeypatch.setattr(evaluations, "FIRST", 47)
    monkeypatch.setattr(evaluate, "evaluate", lambda *a, **k: (asked.append(len(a[1])), made(*a, **k))[1])  # type: ignore[func-returns-value]
    for n in (20, 33, 47):
        done = load_or_evaluate(Evaluation(SPEC, attack, levels, n, queries=60), "cpu", progress=False)
    assert asked == [20, 13, 14]
    assert [part["n"] for part in done["earlier"]] == [20, 33]
    wanted = Evaluation(SPEC, attack, levels, 47, queries=60)
    rows = evaluations.load_rows(wanted)
    wanted.path.unlink()
    for part in done["earlier"]:
        wanted.path.with_name(f"{part['run_id']}.json").unlink()
    whole = load_or_evaluate(wanted, "cpu", progress=False)
    assert asked[-1] == 47
    assert whole["earlier"] == []
    assert whole["results"] == done["results"]
    order = ["level", "image"]
    pd.testing.assert_frame_equal(
        rows.sort_values(order, ignore_index=True),
        evaluations.load_rows(wanted).sort_values(order, ignore_index=True),
        atol=1e-4,
    )


def test_fewer_images_of_another_model_or_budget_are_not_gone_on_with(digits_isce: Classifier) -> None:
    few = load_or_evaluate(Evaluation(SPEC, "simba", (0.3,), 12, queries=30), "cpu", progress=False)
    wanted = Evaluation(SPEC, "simba", (0.3,), 20, queries=30)
    assert evaluations.find(wanted) == few  # to be shown, with its own n
    for other in ({"queries": 40}, {"levels": (0.4,)}, {"seed": 1}, {"split": "validation"}):
        assert evaluations.find(dataclasses.replace(wanted, **other)) is None  # type: ignore[arg-type]
    path = wanted.path.with_name(f"{few['run_id']}.json")
    path.write_text(json.dumps(few | {"weights_sha256": "of another training"}))
    assert load_or_evaluate(wanted, "cpu", progress=False)["earlier"] == []
    assert (evaluations.find(wanted) or {})["n"] == 20


def test_of_more_images_the_first_are_taken(digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    more = load_or_evaluate(Evaluation(SPEC, "pgd_un_10", (0.45, 0.9), 20), "cpu", progress=False)
    few = Evaluation(SPEC, "pgd_un_10", (0.45, 0.9), 12)
    assert evaluations.find(few) == more  # to be shown, with its own n
    assert evaluations.find_whole(few) is None
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate", lambda *a, **k: pytest.fail("nothing is to be attacked"))
        done = load_or_evaluate(few, "cpu", progress=False)
    assert [(part["n"], part["run_id"]) for part in done["earlier"]] == [(12, more["run_id"])]
    rows = evaluations.load_rows(few)
    assert sorted(rows["image"].unique()) == [*range(12)]
    for path in few.path.parent.glob("pgd_un_10-*"):
        path.unlink()
    alone = load_or_evaluate(few, "cpu", progress=False)
    assert (alone["n"], alone["results"]) == (done["n"], done["results"])
    pd.testing.assert_frame_equal(rows.reset_index(drop=True), evaluations.load_rows(few), atol=1e-4)


def killed_in_the_third_part(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Attacks take 10 images at a time, and the third time is a kill; how many each part had, as they come."""
    made, asked = evaluate.evaluate, list[int]()

    def until_killed(model: Classifier, split: data.Split, *args: object, **options: object) -> pd.DataFrame:
        asked.append(len(split))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return made(model, split, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluations, "CHUNK", 10)
    monkeypatch.setattr(evaluate, "evaluate", until_killed)
    return asked


def test_an_attack_saves_as_it_goes(digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its third part, it goes on there, says so, and leaves the record of the whole alone."""
    made, asked = evaluate.evaluate, killed_in_the_third_part(monkeypatch)
    wanted = Evaluation(SPEC, "pgd_un_10", (0.4, 0.8), 34)
    with pytest.raises(KeyboardInterrupt):
        load_or_evaluate(wanted, "cpu", progress=False)
    assert evaluations.find(wanted) is None
    done = load_or_evaluate(wanted, "cpu", progress=False)
    assert asked == [10, 10, 10, 10, 4]
    assert [part["n"] for part in done["earlier"]] == [20]
    assert {path.suffix for path in wanted.path.parent.glob(f"{wanted.path.stem}*")} == {".json", ".parquet"}
    assert len([*wanted.path.parent.glob(f"{wanted.path.stem}*")]) == 2
    monkeypatch.setattr(evaluate, "evaluate", made)
    monkeypatch.setattr(evaluations, "CHUNK", 500)
    rows = evaluations.load_rows(wanted).sort_values(["level", "image"], ignore_index=True)
    for path in wanted.path.parent.glob("pgd_un_10-*"):
        path.unlink()
    whole = load_or_evaluate(wanted, "cpu", progress=False)
    assert whole["results"] == done["results"]
    again = evaluations.load_rows(wanted).sort_values(["level", "image"], ignore_index=True)
    pd.testing.assert_frame_equal(rows, again, atol=1e-4)


def test_a_slow_attack_saves_more_often(
    digits_isce: Classifier, digits_sce: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = evaluate.evaluate, list[int]()

    def counted(model: Classifier, split: data.Split, *args: object, **options: object) -> pd.DataFrame:
        asked.append(len(split))
        return made(model, split, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "evaluate", counted)
    for method, every, parts in (
        ("isce", 1e9, [20, 280]),
        ("isce", 1e-9, [20] + 28 * [10]),
        ("random", 1e-9, [300]),  # its draws are by place in what is attacked together
    ):
        wanted = Evaluation(Spec("digits", "lenet5", method), "fgsm", (0.37,), 300)
        monkeypatch.setattr(evaluations, "SAVE_EVERY", every)
        load_or_evaluate(wanted, "cpu", progress=False)
        assert asked == parts
        asked.clear()
        wanted.path.unlink()


def test_what_a_kill_left_serves_fewer_and_more_images(
    digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, wanted = killed_in_the_third_part(monkeypatch), Evaluation(SPEC, "pgd_un_10", (0.37,), 34)
    with pytest.raises(KeyboardInterrupt):
        load_or_evaluate(wanted, "cpu", progress=False)
    for n, done_before, made in ((15, 15, []), (25, 20, [5]), (34, 25, [9])):
        del asked[3:]
        done = load_or_evaluate(dataclasses.replace(wanted, n=n), "cpu", progress=False)
        assert (done["n"], done["earlier"][-1]["n"], asked[3:]) == (n, done_before, made)
    assert not list(wanted.path.parent.glob("*.part.parquet"))


def test_progress_is_saved_over_records_of_former_weights(
    digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Evaluation(SPEC, "pgd_un_10", (0.33,), 34)
    for n in (10, 20):
        stale = dataclasses.replace(wanted, n=n)
        done = load_or_evaluate(stale, "cpu", progress=False)
        record.write_json(stale.path, done | {"weights_sha256": "of another training"})
    asked = killed_in_the_third_part(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        load_or_evaluate(wanted, "cpu", progress=False)
    assert load_or_evaluate(wanted, "cpu", progress=False)["n"] == 34
    assert asked == [10, 10, 10, 10, 4]


def test_a_record_states_the_weights_that_were_attacked(
    digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those that lie there when the attack ends."""
    made, path = evaluate.evaluate, SPEC.folder / "result.json"
    before = path.read_text()

    def meanwhile(*args: object, **options: object) -> pd.DataFrame:
        record.write_json(path, json.loads(before) | {"weights_sha256": "of another training"})
        return made(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "evaluate", meanwhile)
    wanted = Evaluation(SPEC, "fgsm", (0.77,), 10)
    try:
        done = load_or_evaluate(wanted, "cpu", progress=False)
        assert evaluations.find(wanted) is None
    finally:
        path.write_text(before)
    assert done["weights_sha256"] == json.loads(before)["weights_sha256"]
    assert evaluations.find(wanted) == done


def test_what_a_kill_left_of_other_weights_or_damaged_is_not_gone_on_with(
    digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Evaluation(SPEC, "pgd_un_10", (0.36,), 34)
    with monkeypatch.context() as patch:
        killed_in_the_third_part(patch)
        with pytest.raises(KeyboardInterrupt):
            load_or_evaluate(wanted, "cpu", progress=False)
    (part,) = wanted.path.parent.glob("*.part.parquet")
    rows = pd.read_parquet(part)
    rows.attrs["weights_sha256"] = "of another training"
    damaged = part.read_bytes()[:-100]
    for spoil in (lambda: rows.to_parquet(part), lambda: part.write_bytes(damaged)):
        spoil()
        done = load_or_evaluate(wanted, "cpu", progress=False)
        assert (done["n"], done["earlier"]) == (34, [])
        assert not part.exists()
        wanted.path.unlink()


def test_a_transfer_from_other_weights_is_made_again(digits_isce: Classifier, digits_sce: Classifier) -> None:
    wanted = Evaluation(SPEC, "fgsm@transfer", (0.5,), 10)
    first = load_or_evaluate(wanted, "cpu", progress=False)
    record.write_json(wanted.path, first | {"surrogate_sha256": "of another training", "n": 10})
    again = load_or_evaluate(wanted, "cpu", progress=False)
    assert again["surrogate_sha256"] == first["surrogate_sha256"] == digits_sce_sha256()


def digits_sce_sha256() -> str:
    return str(json.loads((SPEC.surrogate().folder / "result.json").read_text())["weights_sha256"])


def test_committed_records_of_other_weights_are_not_shown(
    digits_isce: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Evaluation(SPEC, "fgsm", (0.9,), 12)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path)
    committed = {"schema": record.SCHEMA, "n": 12, "weights_sha256": "of another training"}
    record.write_json(tmp_path / wanted.path.relative_to(record.runs_dir()), committed)
    assert evaluations.find(wanted) is None
    done = load_or_evaluate(wanted, "cpu", progress=False)
    assert evaluations.find(wanted) == done


def test_a_record_of_former_weights_hides_none_of_the_present_ones(
    digits_isce: Classifier, digits_sce: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a committed one those of other numbers of images, nor one here a committed one; weights are the surrogate's too."""
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path)
    wanted = Evaluation(SPEC, "fgsm@transfer", (0.8,), 12)
    committed = tmp_path / wanted.path.relative_to(record.runs_dir())
    few = load_or_evaluate(dataclasses.replace(wanted, n=7), "cpu", progress=False)
    for key in ("weights_sha256", "surrogate_sha256"):
        record.write_json(committed, few | {key: "of another training"})
        assert evaluations.find(wanted) == few
    done = load_or_evaluate(wanted, "cpu", progress=False)
    for key in ("weights_sha256", "surrogate_sha256"):
        record.write_json(wanted.path, done | {key: "of another training"})
        record.write_json(committed, done)
        assert evaluations.find(wanted) == done


def test_a_committed_record_will_do_where_no_rows_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_trained = dataclasses.replace(SPEC, seed=77)
    wanted = Evaluation(never_trained, "fgsm", (0.9,), 12)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path)
    monkeypatch.setattr(evaluations, "load_or_train", lambda *a: pytest.fail("nothing is to be trained"))
    committed = {
        "schema": record.SCHEMA,
        "n": 12,
        "evaluation": wanted.payload(),
        "weights_sha256": "of a committed training",
        "results": [{"level": 0.9, "accuracy": 50.0, "correct": evaluations.pack(np.arange(12) < 6)}],
    }
    path = tmp_path / wanted.path.relative_to(record.runs_dir())
    record.write_json(path, committed)
    committed = json.loads(path.read_text())
    assert evaluations.find_or_evaluate(wanted, "cpu") == evaluations.find_whole(wanted) == committed
    more = dataclasses.replace(wanted, n=20)
    assert evaluations.find(more) == committed
    assert evaluations.find_whole(more) is None  # `find` has fewer images
    with pytest.raises(pytest.fail.Exception, match="nothing is to be trained"):
        evaluations.find_or_evaluate(more, "cpu")


def test_what_is_no_spec_is_told_so() -> None:
    with pytest.raises(TypeError, match="spec must be a train.Spec, got 'isce'"):
        Evaluation("isce", "fgsm", (0.5,), N)  # type: ignore[arg-type]


def test_rows_that_cannot_be_read_now_are_not_taken_for_damaged(
    digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the attack would be run again, over a sound record."""
    wanted = Evaluation(SPEC, "fgsm", (0.25,), N)
    load_or_evaluate(wanted, "cpu", progress=False)

    def too_many_files(*_: object, **__: object) -> pd.DataFrame:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(pd, "read_parquet", too_many_files)
    with pytest.raises(OSError, match="Too many open files"):
        load_or_evaluate(wanted, "cpu", progress=False)


def test_a_damaged_record_is_made_again(digits_isce: Classifier) -> None:
    wanted = Evaluation(SPEC, "fgsm", (0.5,), N)
    first = load_or_evaluate(wanted, "cpu", progress=False)
    for damage in (wanted.path, wanted.path.with_suffix(".parquet")):
        damage.unlink() if damage.suffix == ".parquet" else damage.write_text(damage.read_text()[:50])
        assert load_or_evaluate(wanted, "cpu", progress=False)["results"] == first["results"]
    rows = wanted.path.with_suffix(".parquet")
    inside = bytearray(rows.read_bytes())
    inside[20:200] = bytes(180)  # the footer, which tells the number of rows, is whole
    for damaged in (rows.read_bytes()[:-20], b"", bytes(inside)):
        rows.write_bytes(damaged)
        more = load_or_evaluate(dataclasses.replace(wanted, n=N + 1), "cpu", progress=False)
        assert more["earlier"] == []  # rows that cannot be read are not gone on with
        more_path = wanted.path.with_name(f"{more['run_id']}.json")
        more_path.unlink()
        assert load_or_evaluate(wanted, "cpu", progress=False)["results"] == first["results"]
        assert len(evaluations.load_rows(wanted)) == N
    evaluations.load_rows(wanted).drop(columns="correct").to_parquet(rows)
    assert load_or_evaluate(wanted, "cpu", progress=False)["results"] == first["results"]
    assert "correct" in evaluations.load_rows(wanted)
    whole = json.loads(wanted.path.read_text())
    (result,) = whole["results"]
    cut, flipped = (
        {"results": [result | {"correct": bits}]} for bits in (result["correct"][:2], "ff" + result["correct"][2:])
    )
    lost = {"results": [{key: result[key] for key in result if key != "correct"}]}
    for damaged in (
        {"schema": record.SCHEMA},
        {key: whole[key] for key in whole if key != "results"},
        *(whole | part for part in (cut, flipped, lost, {"results": []}, {"results": None}, {"n": str(N)})),
        whole | {"evaluation": None},
    ):
        record.write_json(wanted.path, damaged)
        assert load_or_evaluate(wanted, "cpu", progress=False)["results"] == first["results"]
    changed = whole | {"weights_sha256": "of another training"}
    wanted.path.write_text(json.dumps(changed))
    assert load_or_evaluate(wanted, "cpu", progress=False)["weights_sha256"] == first["weights_sha256"]


def test_simba_curve_and_clean_outputs(digits_isce: Classifier) -> None:
    simba = load_or_evaluate(Evaluation(SPEC, "simba", (0.2,), N, queries=60), "cpu", progress=False)
    curve = simba["results"][0]["curve"]
    assert curve["queries"][0] == 0
    assert curve["queries"][-1] == 60
    assert curve["correct"][0] == round(simba["clean_accuracy"] * N / 100)
    assert sorted(curve["correct"], reverse=True) == curve["correct"]
    assert curve["correct"][-1] == round(simba["results"][0]["accuracy"] * N / 100)
    clean = load_or_evaluate(Evaluation(SPEC, "clean", (0.0,)), "cpu", progress=False)
    split = data.load("digits").test
    f = digits_isce(data.to_float(split.images)).detach().double()
    others = [float(row.exp().sum() - row[y].exp()) for row, y in zip(f, split.labels, strict=True)]
    assert clean["outputs"]["others_exp_sum"] == pytest.approx(np.mean(others), rel=1e-6)
    assert clean["n"] == 500


@pytest.mark.parametrize(
    ("block", "backbone", "method"),
    [("mnist", "lenet5", m) for m in ("sce", "isce", "arcface_unit", "norm_only", "mmc")]
    + [("mnist", "resnet32", "isce"), ("cifar10", "cnn8", "sce")],
)
def test_a_committed_network_gives_its_committed_record(
    block: str, backbone: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the first images again; rounding may turn one of them on another processor."""
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    monkeypatch.setattr(train, "_train", lambda *_: pytest.fail("its weights are not here"))
    deep = backbone != "lenet5"
    profile = profiles.load("full" if deep else "cpu")
    wanted = profile.evaluation(block, backbone, method, "clean" if deep else "pgd_un_50")
    try:
        images = data.load(block, download=False).test
    except FileNotFoundError:
        pytest.skip(f"{block} is not here")
    n, found = 200 if deep else 20, evaluations.find(wanted)
    assert found is not None
    model = load_or_train(wanted.spec, "cpu", progress=False)
    rows = evaluate.evaluate(model, data.subset(images, n), {wanted.attack: wanted.levels})
    for result in found["results"]:
        correct = rows.loc[rows["level"] == result["level"], "correct"].to_numpy()
        assert (correct != evaluations.unpack(result["correct"], found["n"])[:n]).sum() <= 1
    assert record.read_json(wanted.spec.folder / "result.json")["weights_sha256"] == found["weights_sha256"]  # type: ignore[index]


def test_pack() -> None:
    bits = np.random.default_rng(0).random(1001) < 0.5
    assert (evaluations.unpack(evaluations.pack(bits), 1001) == bits).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attack": "pgd"}, "one attack at a time"),
        ({"attack": "nothing"}, "unknown attack"),
        ({"levels": ()}, "no levels"),
        ({"levels": (0.5, -1.0)}, "every level must be finite and > 0"),
        ({"levels": (float("nan"),)}, "every level must be finite and > 0"),
        ({"n": 501}, "n must be a whole number from 1 to 500 test images, got 501"),
        ({"n": 0}, "whole number"),
        ({"n": 2.5}, "whole number"),
        ({"attack": "pgd_un_10@inference", "spec": Spec("digits", "lenet5", "sce")}, "is I-SCE's, sce has no s and m"),
        (
            {"attack": "pgd_un_10@inference", "spec": Spec("digits", "resnet32", "isce", arm="A")},
            "arm A applies s and m",
        ),
        ({"attack": "simba", "queries": 0}, "queries must be at least 1, got 0"),
        ({"split": "tests"}, "did you mean 'test'"),
    ],
)
def test_bad_evaluations(change: dict[str, object], words: str) -> None:
    good = Evaluation(SPEC, "pgd_un_10", (0.5,), N)
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(good, **change)  # type: ignore[arg-type]


def test_nothing_found_by_a_minimal_attack_has_no_quantiles() -> None:
    given = {"image": [0, 1], "attack": "fab", "level": 1.0, "label": [0, 1], "clean": [0, 0], "correct": [True, False]}
    summary = evaluations.summarize(pd.DataFrame(given | {"minimal": [np.nan, 0.0], "queries": np.nan}))
    assert "minimal" not in summary


def test_an_attack_without_a_ball_says_how_far_it_went() -> None:
    given = {
        "image": [0, 1, 2],
        "level": 0.01,
        "label": 0,
        "clean": 0,
        "correct": False,
        "minimal": np.nan,
        "queries": np.nan,
    }
    frame = pd.DataFrame(given | {"norm": [1.0, 2.0, 7.0]})
    assert evaluations.summarize(frame.assign(attack="as_coded_df_10"))["results"][0]["norm"] == 2.0
    assert "norm" not in evaluations.summarize(frame.assign(attack="pgd_un_10"))["results"][0]


def test_pgd_on_a_random_model_takes_all_its_steps(digits_sce: Classifier) -> None:
    assert not Evaluation(SPEC, "pgd_un_10", (0.5,), N).unsteady
    unsteady = Evaluation(Spec("digits", "lenet5", "random"), "pgd_un_50", (0.8,), N)
    assert unsteady.unsteady
    assert (unsteady.payload()["version"], Evaluation(SPEC, "fgsm", (0.5,)).payload()["version"]) == (3, 1)
    assert all(Evaluation(unsteady.spec, name, (0.8,)).unsteady for name in ("apgd_ce", "autoattack"))
    assert Evaluation(SPEC, "pgd_un_10@transfer", (0.5,)).unsteady
    assert not Evaluation(SPEC, "deepfool_50@transfer", (0.5,)).unsteady
    wanted = load_or_evaluate(unsteady, "cpu", progress=False)["results"][0]["accuracy"]
    model, split = load_or_train(unsteady.spec, "cpu", False), data.subset(data.load("digits").test, N)
    stopped = evaluate.evaluate(model, split, {"pgd_un_50": [0.8]})["correct"].mean() * 100
    assert wanted < stopped - 10  # a lucky draw is no adversarial image
    rows = evaluations.load_rows(unsteady)
    assert (rows["clean"] != rows["label"]).any()
    assert rows["norm"].min() > 0.4, "an image that one draw has wrong, too"
    shutil.rmtree(unsteady.spec.folder)  # it has no weights of its own


def test_a_failed_evaluation_leaves_no_record(digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Evaluation(SPEC, "fgsm", (0.7,), N)
    monkeypatch.setattr(evaluations, "summarize", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_or_evaluate(wanted, "cpu", progress=False)
    assert not wanted.path.exists()
