"""Evaluation: rows that say what happened to each image, judged by the model's own decisions; records that can be trusted."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch

from isce import as_coded, attacks, data, evaluate, profiles, record, train
from isce.evaluate import Evaluation, load_or_evaluate
from isce.models import Classifier, build_model
from isce.train import Spec, load_or_train

SPEC = Spec("digits", "lenet5", "isce")
N = 40


@pytest.fixture(scope="module")
def split() -> data.Split:
    return data.subset(data.load("digits").test, N)


@pytest.fixture(scope="module")
def frame(digits_isce: Classifier, split: data.Split) -> pd.DataFrame:
    requests = {"clean": [0.0], "pgd_un_10": [0.5, 1.0], "pgd_tar_10": [1.0], "deepfool_50": [0.3, 1.0], "simba": [0.1]}
    return evaluate.evaluate(digits_isce, split, requests | {"deepfool_50@raw": [1.0]}, queries=60)


def test_a_row_per_image_attack_and_level(frame: pd.DataFrame, split: data.Split) -> None:
    sizes = frame.groupby(["attack", "level"]).size()
    assert len(sizes) == 8
    assert set(sizes) == {N}
    assert (frame["label"].to_numpy().reshape(-1, N) == split.labels.numpy()).all()
    assert (frame["correct"] == (frame["adversarial"] == frame["label"])).all()


def test_rows_agree_with_the_attack_itself(frame: pd.DataFrame, digits_isce: Classifier, split: data.Split) -> None:
    x = data.to_float(split.images)
    adversarial = attacks.pgd(
        digits_isce, x, split.labels, eps=1.0, steps=10, generator=torch.Generator().manual_seed(0), batch_size=256
    )
    rows = frame.query("attack == 'pgd_un_10' and level == 1.0")
    assert (rows["adversarial"].to_numpy() == digits_isce(adversarial).argmax(1).numpy()).all()
    np.testing.assert_allclose(rows["norm"], (adversarial - x).flatten(1).norm(dim=1), atol=1e-6)


def test_perturbations_stay_within_their_level(frame: pd.DataFrame) -> None:
    bounded = frame[~frame["attack"].isin(["simba"])]
    assert (bounded["norm"] <= bounded["level"] + 1e-5).all()
    assert (frame.loc[frame["attack"] == "clean", "norm"] == 0).all()
    wrong = frame[frame["clean"] != frame["label"]]
    assert (wrong["norm"] < 1e-6).all()  # images already misclassified are left alone


def test_deepfool_is_scaled_back_and_keeps_its_smallest_norms(frame: pd.DataFrame) -> None:
    small, large = (frame.query(f"attack == 'deepfool_50' and level == {level}") for level in (0.3, 1.0))
    assert (small["minimal"].to_numpy() == large["minimal"].to_numpy()).all()
    for rows, level in ((small, 0.3), (large, 1.0)):
        reached = rows[rows["minimal"].to_numpy() <= level]
        assert not reached["correct"].any()
        np.testing.assert_allclose(rows["norm"], np.minimum(rows["minimal"], level), atol=1e-5)
    norms = evaluate.minimal_norms(large)
    assert (norms[(large["clean"] != large["label"]).to_numpy()] == 0).all()


def test_simba_counts_queries(frame: pd.DataFrame) -> None:
    rows = frame.query("attack == 'simba'")
    assert rows["queries"].between(1, 60).all()
    assert (rows.loc[rows["correct"], "queries"] == 60).all()
    assert frame.loc[frame["attack"] != "simba", "queries"].isna().all()


def test_the_artefact_of_normalised_logits(frame: pd.DataFrame) -> None:
    """DeepFool's linearisation of normalised logits finds larger perturbations than that of the raw ones: same decisions."""
    median = {
        name: frame.query(f"attack == '{name}' and level == 1.0")["minimal"].median()
        for name in ("deepfool_50", "deepfool_50@raw")
    }
    assert median["deepfool_50"] > 1.1 * median["deepfool_50@raw"]


@pytest.mark.parametrize("method", ["isce", "sce", "mmc", "lgm", "arcface", "random"])
@pytest.mark.parametrize("surface", ["raw", "x20", "inference", "eot20", "transfer"])
def test_surfaces(method: str, surface: str, digits_sce: Classifier, split: data.Split) -> None:
    model = build_model("digits", "lenet5", method, **({"s": 1.5, "m": 0.2} if method == "isce" else {})).eval()
    if surface == "inference" and method != "isce":
        with pytest.raises(ValueError, match="surface 'inference' is I-SCE's"):
            evaluate.surface_of(model, surface)
        return
    x = data.to_float(split.images)
    seen = evaluate.surface_of(model, surface, digits_sce)
    if surface != "transfer" and method != "random":
        assert torch.equal(seen(x).argmax(1), model(x).argmax(1))
        if surface == "raw":
            assert torch.equal(seen(x), model.raw_logits(x))
        if surface == "x20":
            torch.testing.assert_close(seen(x), 20 * model(x))
    if surface == "eot20":
        assert isinstance(seen, attacks.Expectation)
        assert (seen.model, seen.samples) == (model, 20)
    if surface == "inference":
        torch.testing.assert_close(seen(x).amax(1), 1.5 * model(x).amax(1) + 0.2)
    frame = evaluate.evaluate(model, split, {f"pgd_un_10@{surface}": [0.5]}, surrogate=digits_sce)
    assert len(frame) == N


def test_transferred_points_go_to_the_edge(digits_isce: Classifier, digits_sce: Classifier, split: data.Split) -> None:
    """What just misleads the surrogate mostly falls short of another model's boundary: all steps are taken, by images that the
    surrogate has wrong as well."""
    rows = evaluate.evaluate(digits_isce, split, {"pgd_un_10@transfer": [0.7]}, surrogate=digits_sce)
    assert rows["norm"].max() <= 0.7 + 1e-5
    assert rows["norm"].min() > 0.5, "clipping to [0, 1] alone makes one shorter"
    x, y = data.to_float(split.images), split.labels
    assert (digits_sce(x).argmax(1) != y).any()
    walked, stopped = (
        digits_isce(evaluate.to_the_edge(attacks.pgd(digits_sce, x, y, eps=0.7, steps=10, early_stop=stop), x, 0.7))
        for stop in (False, True)
    )
    assert rows["correct"].sum() == (walked.argmax(1) == y).sum()
    assert rows["correct"].sum() < (stopped.argmax(1) == y).sum()


def test_a_minimal_attack_by_transfer_is_judged_by_the_model(
    digits_isce: Classifier, digits_sce: Classifier, split: data.Split
) -> None:
    """Its points are moved on to each radius too; the surrogate's smallest norms say nothing of the model."""
    rows = evaluate.evaluate(digits_isce, split, {"deepfool_50@transfer": [0.7, 4.0]}, surrogate=digits_sce)
    assert rows["minimal"].isna().all()
    for level, part in rows.groupby("level"):
        assert (part.loc[part["norm"] > 0, "norm"] > 0.6 * level).mean() > 0.9  # type: ignore[operator]
    assert rows.query("level == 4.0")["correct"].mean() < 0.3
    assert "minimal" not in evaluate.summarize(rows)


def test_a_surrogate_in_training_mode_is_judged_in_eval_mode_and_left_as_it_was(
    digits_isce: Classifier, split: data.Split
) -> None:
    surrogate = build_model("digits", "resnet32", "sce").train()
    before = copy.deepcopy(surrogate.state_dict())
    rows = [
        evaluate.evaluate(digits_isce, split, {"deepfool_10@transfer": [0.5]}, surrogate=surrogate.train(mode))
        for mode in (True, False)
    ]
    pd.testing.assert_frame_equal(*rows)
    assert all(torch.equal(value, before[key]) for key, value in surrogate.state_dict().items())


def test_transfer_needs_a_surrogate(digits_isce: Classifier, split: data.Split) -> None:
    with pytest.raises(ValueError, match="needs a surrogate"):
        evaluate.evaluate(digits_isce, split, {"pgd_un_10@transfer": [0.5]})


def test_a_random_model_is_evaluated_reproducibly(split: data.Split, digits_sce: Classifier) -> None:
    model = build_model("digits", "lenet5", "random").eval()
    model.load_state_dict(digits_sce.state_dict())
    state = torch.get_rng_state()
    first, second = (evaluate.evaluate(model, split, {"pgd_un_10": [0.5]}) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_record(digits_isce: Classifier) -> None:
    wanted = Evaluation(SPEC, "deepfool_50", (0.5, 1.0), N)
    done = load_or_evaluate(wanted, "cpu", progress=False)
    rows = evaluate.load_rows(wanted)
    assert done == json.loads(wanted.path.read_text())
    assert done["n"] == N
    for entry in done["results"]:
        right = rows.loc[rows["level"] == entry["level"], "correct"].to_numpy()
        assert entry["accuracy"] == pytest.approx(100 * right.mean())
        assert entry["interval"][0] <= entry["accuracy"] <= entry["interval"][1]
        assert (evaluate.unpack(entry["correct"], N) == right).all()
    norms = evaluate.minimal_norms(rows[rows["level"] == 0.5])
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
    monkeypatch.setattr(evaluate, "evaluate", lambda *a, **k: (asked.append(len(a[1])), made(*a, **k))[1])  # type: ignore[func-returns-value]
    for n in (20, 33, 47):
        done = load_or_evaluate(Evaluation(SPEC, attack, levels, n, queries=60), "cpu", progress=False)
    assert asked == [20, 13, 14]
    assert [part["n"] for part in done["earlier"]] == [20, 33]
    wanted = Evaluation(SPEC, attack, levels, 47, queries=60)
    rows = evaluate.load_rows(wanted)
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
        evaluate.load_rows(wanted).sort_values(order, ignore_index=True),
        atol=1e-4,
    )


def test_fewer_images_of_another_model_or_budget_are_not_gone_on_with(digits_isce: Classifier) -> None:
    few = load_or_evaluate(Evaluation(SPEC, "simba", (0.3,), 12, queries=30), "cpu", progress=False)
    wanted = Evaluation(SPEC, "simba", (0.3,), 20, queries=30)
    assert evaluate.find(wanted) == few  # to be shown, with its own n
    for other in ({"queries": 40}, {"levels": (0.4,)}, {"seed": 1}, {"split": "validation"}):
        assert evaluate.find(dataclasses.replace(wanted, **other)) is None  # type: ignore[arg-type]
    path = wanted.path.with_name(f"{few['run_id']}.json")
    path.write_text(json.dumps(few | {"weights_sha256": "of another training"}))
    assert load_or_evaluate(wanted, "cpu", progress=False)["earlier"] == []
    assert (evaluate.find(wanted) or {})["n"] == 20


def test_of_more_images_the_first_are_taken(digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    more = load_or_evaluate(Evaluation(SPEC, "pgd_un_10", (0.45, 0.9), 20), "cpu", progress=False)
    few = Evaluation(SPEC, "pgd_un_10", (0.45, 0.9), 12)
    assert evaluate.find(few) == more  # to be shown, with its own n
    assert evaluate.find_whole(few) is None
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate", lambda *a, **k: pytest.fail("nothing is to be attacked"))
        done = load_or_evaluate(few, "cpu", progress=False)
    assert [(part["n"], part["run_id"]) for part in done["earlier"]] == [(12, more["run_id"])]
    rows = evaluate.load_rows(few)
    assert sorted(rows["image"].unique()) == [*range(12)]
    for path in few.path.parent.glob("pgd_un_10-*"):
        path.unlink()
    alone = load_or_evaluate(few, "cpu", progress=False)
    assert (alone["n"], alone["results"]) == (done["n"], done["results"])
    pd.testing.assert_frame_equal(rows.reset_index(drop=True), evaluate.load_rows(few), atol=1e-4)


def killed_in_the_third_part(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Attacks take 10 images at a time, and the third time is a kill; how many each part had, as they come."""
    made, asked = evaluate.evaluate, list[int]()

    def until_killed(model: Classifier, split: data.Split, *args: object, **options: object) -> pd.DataFrame:
        asked.append(len(split))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return made(model, split, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "CHUNK", 10)
    monkeypatch.setattr(evaluate, "evaluate", until_killed)
    return asked


def test_an_attack_saves_as_it_goes(digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in its third part, it goes on there, says so, and leaves the record of the whole alone."""
    made, asked = evaluate.evaluate, killed_in_the_third_part(monkeypatch)
    wanted = Evaluation(SPEC, "pgd_un_10", (0.4, 0.8), 34)
    with pytest.raises(KeyboardInterrupt):
        load_or_evaluate(wanted, "cpu", progress=False)
    assert evaluate.find(wanted) is None
    done = load_or_evaluate(wanted, "cpu", progress=False)
    assert asked == [10, 10, 10, 10, 4]
    assert [part["n"] for part in done["earlier"]] == [20]
    assert {path.suffix for path in wanted.path.parent.glob(f"{wanted.path.stem}*")} == {".json", ".parquet"}
    assert len([*wanted.path.parent.glob(f"{wanted.path.stem}*")]) == 2
    monkeypatch.setattr(evaluate, "evaluate", made)
    monkeypatch.setattr(evaluate, "CHUNK", 500)
    rows = evaluate.load_rows(wanted).sort_values(["level", "image"], ignore_index=True)
    for path in wanted.path.parent.glob("pgd_un_10-*"):
        path.unlink()
    whole = load_or_evaluate(wanted, "cpu", progress=False)
    assert whole["results"] == done["results"]
    again = evaluate.load_rows(wanted).sort_values(["level", "image"], ignore_index=True)
    pd.testing.assert_frame_equal(rows, again, atol=1e-4)


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
        assert evaluate.find(wanted) is None
    finally:
        path.write_text(before)
    assert done["weights_sha256"] == json.loads(before)["weights_sha256"]
    assert evaluate.find(wanted) == done


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


def test_images_levels_and_shapes_as_they_come(split: data.Split) -> None:
    x = data.to_float(split.images).flatten(1).requires_grad_()
    net = torch.nn.Linear(x.shape[1], 10)
    rows = evaluate.evaluate(net, data.Split(x, split.labels), {"deepfool_10": np.array([0.5, 1.0])})  # type: ignore[dict-item]
    assert rows.groupby("level").size().to_dict() == {0.5: N, 1.0: N}
    with pytest.raises(ValueError, match="every level once"):
        Evaluation(SPEC, "fgsm", (1.0, 1.0))


def test_committed_records_of_other_weights_are_not_shown(
    digits_isce: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Evaluation(SPEC, "fgsm", (0.9,), 12)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path)
    committed = {"schema": record.SCHEMA, "n": 12, "weights_sha256": "of another training"}
    record.write_json(tmp_path / wanted.path.relative_to(record.runs_dir()), committed)
    assert evaluate.find(wanted) is None
    done = load_or_evaluate(wanted, "cpu", progress=False)
    assert evaluate.find(wanted) == done


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
        assert evaluate.find(wanted) == few
    done = load_or_evaluate(wanted, "cpu", progress=False)
    for key in ("weights_sha256", "surrogate_sha256"):
        record.write_json(wanted.path, done | {key: "of another training"})
        record.write_json(committed, done)
        assert evaluate.find(wanted) == done


def test_labels_that_the_model_has_not(digits_isce: Classifier, split: data.Split) -> None:
    wrong = data.Split(split.images, split.labels + 100)
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\. 9, got 10\d \.\. 10\d"):
        evaluate.evaluate(digits_isce, wrong, {"clean": [0.0]})
    for attack in (as_coded.attack, as_coded.deepfool):
        with pytest.raises(ValueError, match=r"labels must be in 0 \.\. 9"):
            attack(digits_isce, data.to_float(split.images), wrong.labels, eps=0.1, steps=1)


def test_groups_and_attacks_of_ones_own(
    digits_isce: Classifier, split: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = evaluate.evaluate(digits_isce, split, {"deepfool@raw": [0.5], "clean": [0.0]})
    assert rows["attack"].unique().tolist() == ["deepfool_10@raw", "deepfool_50@raw", "clean"]
    with pytest.raises(ValueError, match="pgd_un_10 is asked for twice: give all its levels at once"):
        evaluate.evaluate(digits_isce, split, {"pgd_un_10": [2.0], "pgd": [1.0]})
    for name in ("", " ,"):
        with pytest.raises(ValueError, match="unknown attack"):
            evaluate.evaluate(digits_isce, split, {"fgsm": [0.5], name: [1.0]})

    def mine(model, images, labels, *, eps, norm, generator, batch_size):  # type: ignore[no-untyped-def]
        return attacks.fgsm(model, images, labels, eps=eps, norm=norm, generator=generator, batch_size=batch_size)

    monkeypatch.setitem(evaluate.ATTACKS, "pgd_mine", evaluate.Attack("mine", mine))  # whatever it is called
    own, known = (evaluate.evaluate(digits_isce, split, {name: [0.5]}) for name in ("pgd_mine", "fgsm"))
    assert own["correct"].equals(known["correct"])


def test_another_gpu_s_generator_is_left_alone(
    digits_isce: Classifier, split: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("every GPU is seeded"))
    evaluate.evaluate(digits_isce, split, {"fgsm": [0.5]})
    evaluate.output_means(digits_isce, split)


def test_a_committed_record_will_do_where_no_rows_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_trained = dataclasses.replace(SPEC, seed=77)
    wanted = Evaluation(never_trained, "fgsm", (0.9,), 12)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path)
    monkeypatch.setattr(evaluate, "load_or_train", lambda *a: pytest.fail("nothing is to be trained"))
    committed = {
        "schema": record.SCHEMA,
        "n": 12,
        "evaluation": wanted.payload(),
        "weights_sha256": "of a committed training",
        "results": [{"level": 0.9, "accuracy": 50.0, "correct": evaluate.pack(np.arange(12) < 6)}],
    }
    path = tmp_path / wanted.path.relative_to(record.runs_dir())
    record.write_json(path, committed)
    committed = json.loads(path.read_text())
    assert evaluate.find_or_evaluate(wanted, "cpu") == evaluate.find_whole(wanted) == committed
    more = dataclasses.replace(wanted, n=20)
    assert evaluate.find(more) == committed
    assert evaluate.find_whole(more) is None  # `find` has fewer images
    with pytest.raises(pytest.fail.Exception, match="nothing is to be trained"):
        evaluate.find_or_evaluate(more, "cpu")


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
        assert len(evaluate.load_rows(wanted)) == N
    evaluate.load_rows(wanted).drop(columns="correct").to_parquet(rows)
    assert load_or_evaluate(wanted, "cpu", progress=False)["results"] == first["results"]
    assert "correct" in evaluate.load_rows(wanted)
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


def test_another_seed_starts_elsewhere(digits_isce: Classifier, split: data.Split) -> None:
    a, b = (evaluate.evaluate(digits_isce, split, {"pgd_un_10": [0.3]}, seed=seed)["norm"] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_output_means(digits_isce: Classifier, split: data.Split) -> None:
    with torch.no_grad():
        f = digits_isce(data.to_float(split.images)).double()
    own = f[torch.arange(N), split.labels]
    means = evaluate.output_means(digits_isce, split)
    assert means["label_output"] == pytest.approx(float(own.mean()))
    assert means["others_exp_sum"] == pytest.approx(float((f.exp().sum(1) - own.exp()).mean()))


REGISTRY = {
    "fgsm": (attacks.fgsm, {}),
    "pgd_tar_10": (attacks.pgd, {"steps": 10, "targeted": True}),
    "pgd_un_10": (attacks.pgd, {"steps": 10}),
    "pgd_tar_50": (attacks.pgd, {"steps": 50, "targeted": True}),
    "pgd_un_50": (attacks.pgd, {"steps": 50}),
    "pgd_un_100": (attacks.pgd, {"steps": 100}),
    "pgd_un_50x5": (attacks.pgd, {"steps": 50, "restarts": 5}),
    "pgd_margin_50": (attacks.pgd, {"steps": 50, "objective": "margin"}),
    "pgd_dlr_50": (attacks.pgd, {"steps": 50, "objective": "dlr"}),
    "pgd_mmc_50": (attacks.pgd, {"steps": 50, "objective": "mmc"}),
    "simba": (attacks.simba, {"basis": "pixel", "return_queries": True}),
    "simba_dct": (attacks.simba, {"basis": "dct", "return_queries": True}),
    "apgd_ce": (attacks.apgd, {"objective": "ce"}),
    "apgd_dlr": (attacks.apgd, {"objective": "dlr"}),
    "apgd_t": (attacks.apgd_targeted, {}),
    "fab": (attacks.fab, {}),
    "square": (attacks.square, {}),
    "autoattack": (attacks.autoattack, {}),
}


def test_every_name_runs_the_attack_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hash holds what a name stands for."""
    wrapped = {"deepfool_10", "deepfool_50", "as_coded_5", "as_coded_50", "as_coded_df_10", "as_coded_df_50"}
    assert {"clean", *wrapped, *REGISTRY} == {*evaluate.ATTACKS}
    for name, wanted in REGISTRY.items():
        run = evaluate.ATTACKS[name].run
        assert (getattr(run, "func", run), getattr(run, "keywords", {})) == wanted, name
    monkeypatch.setattr(evaluate, "attacks", seen := MagicMock())
    for steps in (10, 50):  # those of arm A: tests/test_as_coded.py
        evaluate.ATTACKS[f"deepfool_{steps}"].run("model", "images", "labels", generator=None)
        seen.deepfool.assert_called_with("model", "images", "labels", steps=steps)


@pytest.mark.parametrize(
    ("block", "backbone", "method"),
    [("mnist", "lenet5", m) for m in ("sce", "isce", "arcface_unit", "isce_temperature", "mmc")]
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
    n, found = 200 if deep else 20, evaluate.find(wanted)
    assert found is not None
    model = load_or_train(wanted.spec, "cpu", progress=False)
    rows = evaluate.evaluate(model, data.subset(images, n), {wanted.attack: wanted.levels})
    for result in found["results"]:
        correct = rows.loc[rows["level"] == result["level"], "correct"].to_numpy()
        assert (correct != evaluate.unpack(result["correct"], found["n"])[:n]).sum() <= 1
    assert record.read_json(wanted.spec.folder / "result.json")["weights_sha256"] == found["weights_sha256"]  # type: ignore[index]


def test_pack() -> None:
    bits = np.random.default_rng(0).random(1001) < 0.5
    assert (evaluate.unpack(evaluate.pack(bits), 1001) == bits).all()


def test_parse_and_labels() -> None:
    assert evaluate.parse("pgd") == ["pgd_tar_10", "pgd_un_10", "pgd_tar_50", "pgd_un_50"]
    assert evaluate.parse("deepfool@raw, clean,clean") == ["deepfool_10@raw", "deepfool_50@raw", "clean"]
    assert evaluate.label("deepfool_50@raw") == "DF 50 on raw"
    with pytest.raises(ValueError, match="unknown attack 'deepfol_50' .*deepfool_50"):
        evaluate.parse("deepfol_50")
    with pytest.raises(ValueError, match="unknown surface 'rw'"):
        evaluate.parse("deepfool_50@rw")
    with pytest.raises(ValueError, match="unknown surface 'outputs'"):  # what every attack sees that names none
        evaluate.parse("deepfool_50@outputs")
    with pytest.raises(ValueError, match="clean@raw: clean images are judged by the model's decisions"):
        evaluate.parse("clean@raw")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attack": "pgd"}, "one attack at a time"),
        ({"attack": "nothing"}, "unknown attack"),
        ({"levels": ()}, "no levels"),
        ({"levels": (0.5, -1.0)}, "every level must be finite and > 0"),
        ({"levels": (float("nan"),)}, "every level must be finite and > 0"),
        ({"n": 501}, "n must be a whole number of the 500 test images, got 501"),
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


@pytest.mark.parametrize("level", [0.0, -1.0, float("nan")])
def test_bad_levels(digits_isce: Classifier, split: data.Split, level: float, tmp_path: Path) -> None:
    for attack in ("pgd_un_10", "deepfool_10", "simba"):
        with pytest.raises(ValueError, match="every level must be finite and > 0"):
            evaluate.evaluate(digits_isce, split, {attack: [level]})


def test_bad_requests(digits_isce: Classifier, split: data.Split) -> None:
    for requests in ({}, ["pgd_un_50"]):
        with pytest.raises(ValueError, match="want attacks with their levels, such as"):
            evaluate.evaluate(digits_isce, split, requests)  # type: ignore[arg-type]
    for level in ("0.5", torch.tensor(0.5), True):
        with pytest.raises(TypeError, match="every level must be a number"):
            evaluate.evaluate(digits_isce, split, {"pgd_un_10": [level]})  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"want isce.data.Split\(images, labels\), got tuple"):
        evaluate.evaluate(digits_isce, (split.images, split.labels), {"clean": [0.0]})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown norm 'l1'"):
        evaluate.evaluate(digits_isce, split, {"clean": [0.0]}, norm="l1")
    for dtype in (torch.int64, torch.bool):  # 255 is white in uint8 alone
        with pytest.raises(TypeError, match=f"images must be a float tensor in .*, got {dtype}"):
            evaluate.evaluate(digits_isce, data.Split(split.images.to(dtype), split.labels), {"clean": [0.0]})
    with pytest.raises(TypeError, match=r"want a list of levels, such as \[0.5\]"):
        evaluate.evaluate(digits_isce, split, {"pgd_un_10": 0.5})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        evaluate.evaluate(digits_isce, data.Split(split.images.float(), split.labels), {"clean": [0.0]})


def test_what_pgd_and_simba_see_of_the_inference_softmax(digits_isce: Classifier, split: data.Split) -> None:
    """At s = 1 a constant on the logit that is the argmax: the same steps, until the decision changes."""
    levels = {"pgd_un_10": [0.5], "pgd_un_10@inference": [0.5], "simba": [0.1], "simba@inference": [0.1]}
    rows = evaluate.evaluate(digits_isce, split, levels, queries=60)
    for attack in ("pgd_un_10", "simba"):
        outputs, inference = (rows[rows["attack"] == name] for name in (attack, f"{attack}@inference"))
        assert outputs["correct"].tolist() == inference["correct"].tolist()
        assert outputs["norm"].to_numpy() == pytest.approx(inference["norm"].to_numpy(), abs=1e-4)
    assert not rows["correct"].all()


def test_linf(digits_isce: Classifier, split: data.Split) -> None:
    levels = {"fgsm": [0.05], "pgd_un_10": [0.05, 0.1], "deepfool_50": [0.05], "apgd_ce": [0.1], "simba": [0.1]}
    rows = evaluate.evaluate(digits_isce, split, levels, queries=30, norm="linf")
    for (attack, level), cell in rows.groupby(["attack", "level"]):
        assert cell["norm"].max() <= level + 1e-6, attack
    own = attacks.pgd(
        digits_isce,
        data.to_float(split.images),
        split.labels,
        eps=0.1,
        steps=10,
        norm="linf",
        generator=torch.Generator().manual_seed(0),
    )
    right = evaluate.predict(digits_isce, own) == split.labels
    asked = rows[(rows["attack"] == "pgd_un_10") & (rows["level"] == 0.1)]
    assert asked["correct"].tolist() == right.tolist()
    assert 0 < right.sum() < N
    found = rows[rows["attack"] == "deepfool_50"]["minimal"].dropna()
    assert found.max() < 1 < evaluate.evaluate(digits_isce, split, {"deepfool_50": [0.5]})["minimal"].max()


def test_float_images_of_ones_own_are_taken_as_they_are(digits_isce: Classifier, split: data.Split) -> None:
    own = data.Split(data.to_float(split.images), split.labels)
    digits_isce.train()  # judged in eval mode all the same, and left as it was
    found = [evaluate.evaluate(digits_isce, given, {"clean": [0.0], "pgd_un_10": [0.5]}) for given in (own, split)]
    assert digits_isce.training
    digits_isce.eval()
    pd.testing.assert_frame_equal(*found)


def test_a_model_that_breaks_down_is_not_right() -> None:
    class Fragile(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x[:, :1] > 0.5, torch.nan, torch.tensor([1.0, 0.0]))

    assert evaluate.predict(Fragile(), torch.tensor([[0.0], [1.0]])).tolist() == [0, -1]  # an argmax would say 0


def test_nothing_found_by_a_minimal_attack_has_no_quantiles() -> None:
    given = {"image": [0, 1], "attack": "fab", "level": 1.0, "label": [0, 1], "clean": [0, 0], "correct": [True, False]}
    summary = evaluate.summarize(pd.DataFrame(given | {"minimal": [np.nan, 0.0], "queries": np.nan}))
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
    assert evaluate.summarize(frame.assign(attack="as_coded_df_10"))["results"][0]["norm"] == 2.0
    assert "norm" not in evaluate.summarize(frame.assign(attack="pgd_un_10"))["results"][0]


def test_pgd_on_a_random_model_takes_all_its_steps(digits_sce: Classifier) -> None:
    assert not Evaluation(SPEC, "pgd_un_10", (0.5,), N).unsteady
    unsteady = Evaluation(Spec("digits", "lenet5", "random"), "pgd_un_50", (0.8,), N)
    assert unsteady.unsteady
    assert (unsteady.payload()["version"], Evaluation(SPEC, "fgsm", (0.5,)).payload()["version"]) == (3, 1)
    assert all(Evaluation(unsteady.spec, name, (0.8,)).unsteady for name in ("apgd_ce", "autoattack"))
    assert Evaluation(SPEC, "pgd_un_10@transfer", (0.5,)).unsteady
    assert not Evaluation(SPEC, "deepfool_50@transfer", (0.5,)).unsteady
    wanted = load_or_evaluate(unsteady, "cpu", progress=False)["results"][0]["accuracy"]
    model, split = evaluate.load_or_train(unsteady.spec, "cpu", False), data.subset(data.load("digits").test, N)
    stopped = evaluate.evaluate(model, split, {"pgd_un_50": [0.8]})["correct"].mean() * 100
    assert wanted < stopped - 10  # a lucky draw is no adversarial image
    rows = evaluate.load_rows(unsteady)
    assert (rows["clean"] != rows["label"]).any()
    assert rows["norm"].min() > 0.4, "an image that one draw has wrong, too"
    shutil.rmtree(unsteady.spec.folder)  # it has no weights of its own


def test_a_failed_evaluation_leaves_no_record(digits_isce: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Evaluation(SPEC, "fgsm", (0.7,), N)
    monkeypatch.setattr(evaluate, "summarize", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_or_evaluate(wanted, "cpu", progress=False)
    assert not wanted.path.exists()
