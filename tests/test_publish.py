"""What is committed: records and weights that belong together, and documents that show just these."""

import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isce import pages, profiles, publish, record, train
from isce.evaluations import load_or_evaluate, pack
from isce.profiles import Profile


@pytest.fixture
def published(digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty results/, to which the digits alone are published from an empty runs/."""
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "results")
    monkeypatch.setattr(publish, "load", lambda _: digits)
    return tmp_path / "results"


def test_publish_takes_away_what_more_images_supersede(digits: Profile, published: Path) -> None:
    whole = digits.evaluation("mnist", "lenet5", "isce", "deepfool_10")
    for wanted in (dataclasses.replace(whole, n=15), whole):
        load_or_evaluate(wanted, "cpu", False)
        publish.publish("digits")
        assert [p.stem for p in published.rglob("deepfool_10-*.json")] == [wanted.path.stem]


def test_publish_copies_no_damaged_record_over_a_good_one(digits: Profile, published: Path) -> None:
    wanted = digits.evaluation("mnist", "lenet5", "isce", "deepfool_10")
    done = load_or_evaluate(wanted, "cpu", False)
    publish.publish("digits")
    record.write_json(wanted.path, done | {"results": [*done["results"][:1], done["results"][1] | {"correct": "00"}]})
    assert not any("deepfool_10" in path for path in publish.publish("digits"))
    (there,) = published.rglob("deepfool_10-*.json")
    assert json.loads(there.read_text()) == done


def test_publish_takes_nothing_away_whose_successor_is_not_there(
    digits: Profile, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record may go while it is being copied: somebody cleans up runs/."""
    whole = digits.evaluation("mnist", "lenet5", "isce", "deepfool_10")
    load_or_evaluate(dataclasses.replace(whole, n=15), "cpu", False)
    publish.publish("digits")
    done = load_or_evaluate(whole, "cpu", False)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "would_be_torn", lambda *_: whole.path.unlink() or set())
        publish.publish("digits")
    (there,) = published.rglob("deepfool_10-*.json")
    assert json.loads(there.read_text())["n"] == 15
    record.write_json(whole.path, done)
    publish.publish("digits")
    (there,) = published.rglob("deepfool_10-*.json")
    assert json.loads(there.read_text()) == done


@pytest.mark.parametrize("attack", ["deepfool_10", "apgd_dlr"])
def test_publish_leaves_what_another_profile_asks_for_or_shows(
    attack: str, digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepFool is asked for; APGD-DLR at the smaller radius is shown where somebody made it."""
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "results")
    few = dataclasses.replace(digits, n=15)
    monkeypatch.setattr(publish, "load", lambda name: digits if name == "digits" else few)
    for name, profile in (("cpu", few), ("digits", digits)):
        asked = profile.at_smaller if attack in profile.optional else profile.evaluation
        load_or_evaluate(asked("mnist", "lenet5", "isce", attack), "cpu", False)
        publish.publish(name)
    made = (tmp_path / "results").rglob(f"{attack}-*.json")
    assert sorted(json.loads(path.read_text())["n"] for path in made) == [15, digits.n]


def test_publish_copies_small_records_alone(digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = digits.evaluation("mnist", "lenet5", "isce", "deepfool_10")
    load_or_evaluate(wanted, "cpu", progress=False)
    monkeypatch.setattr(publish, "load", lambda _: digits)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path)
    copied = publish.publish("digits")
    assert any("deepfool_10" in path for path in copied)
    assert all(path.endswith(".json") for path in copied)
    assert sorted(copied) == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    weights = tmp_path / wanted.spec.run_id / "model.safetensors"
    assert record.sha256(weights) == (train.result(wanted.spec) or {})["weights_sha256"]


def test_a_training_that_was_published_half_done_goes_on_elsewhere(
    digits: Profile, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = digits.spec("mnist", "lenet5", "isce")
    train.load_or_train(spec, "cpu", False)
    whole = (train.result(spec) or {})["metrics"]
    shutil.rmtree(tmp_path / "runs")
    kept, save = published / spec.run_id / "checkpoint.pt", train._save

    def die_in_the_third(path: Path, *state: Any) -> None:
        save(path, *state)
        if len(state[3]["loss"]) == 3:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(train, "_save", die_in_the_third)
        with pytest.raises(InterruptedError):
            train.load_or_train(spec, "cpu", False)
    assert publish.publish("digits") == []
    exact = tmp_path / "runs" / spec.run_id / "checkpoint.pt"
    assert kept.stat().st_size < 0.6 * exact.stat().st_size
    stored, first = (torch.load(path, weights_only=True) for path in (kept, exact))
    assert stored["history"] == first["history"]
    assert stored["schedule"] == first["schedule"]
    for name, tensor in first["model"].items():
        torch.testing.assert_close(stored["model"][name].to(tensor.dtype), tensor, rtol=2**-10, atol=1e-7)
    for number, moments in first["optimizer"]["state"].items():
        for key, tensor in moments.items():
            torch.testing.assert_close(stored["optimizer"]["state"][number][key].float(), tensor, rtol=2**-8, atol=0)
    shutil.rmtree(tmp_path / "runs")
    assert len(stored["history"]["loss"]) == 3
    epochs = []

    def count(path: Path, *state: Any) -> None:
        epochs.append(len(state[3]["loss"]))

    monkeypatch.setattr(train, "_save", count)
    train.load_or_train(spec, "cpu", False)
    assert epochs == list(range(4, spec.epochs or 0))
    done = (train.result(spec) or {})["metrics"]
    assert done["train_loss"][:3] == whole["train_loss"][:3]
    assert done["train_loss"] == pytest.approx(whole["train_loss"], abs=0.02)
    assert done["test_accuracy"] == pytest.approx(whole["test_accuracy"], abs=2)
    assert kept.is_file()
    further = kept.read_bytes()
    (tmp_path / "runs" / spec.run_id / "result.json").unlink()  # as if it had not ended, and begun again
    for other in (b"damaged", b""):
        (tmp_path / "runs" / spec.run_id / "checkpoint.pt").write_bytes(other)
        publish.publish("digits")
        assert kept.read_bytes() == further
    train.load_or_train(spec, "cpu", False)
    assert any(spec.run_id in path for path in publish.publish("digits"))
    assert not kept.exists()


def test_publish_copies_what_figures_3_and_4_show_and_what_nobody_asked_for(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "load", lambda _: digits)
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "results")
    drawn = [digits.embedding(block, "isce") for block in ("mnist", "cifar10")]
    paths = [path for e in drawn for path in (e.spec.folder / "separation.json", e.path)]
    sce = digits.ablation_spec("cifar10", "cnn8", "sce")
    for attack, split in itertools.product(("pgd_un_50", "deepfool_50@raw"), ("validation", "test")):
        grid, seeds = digits.ablation("cifar10", "cnn8", attack, split)
        assert (grid[0].split, grid[0].n) == (split, digits.figures["ablation_n" if split == "validation" else "n"])
        assert [digits.ablation("cifar10", "cnn8", attack, level=k)[1][0].levels for k in (0, 1)] == [
            (radius,) for radius in digits.eps["cifar10"]
        ]
        paths += [e.path for e in (grid[1], seeds[2])]
    paths.append(dataclasses.replace(grid[0], spec=sce, attack="deepfool_50").path)
    assert digits.optional == ["apgd_dlr", "apgd_dlr@raw"]
    paths += [digits.at_smaller("mnist", "lenet5", "isce", attack).path for attack in digits.optional]
    results = [{"level": 1.0, "accuracy": 100.0, "correct": pack(np.ones(1))}]
    for path in paths:
        record.write_json(path, {"n": 1, "run_id": path.stem, "results": results})
    assert sorted(publish.publish("digits")) == sorted(str(p.relative_to(record.runs_dir())) for p in paths)


@pytest.mark.parametrize("method", ["isce", "random"])  # Random has the weights of SCE
def test_publish_does_not_part_a_network_from_its_attacks(
    method: str, digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(publish, "load", lambda _: digits)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "results")
    first, second = (digits.evaluation("mnist", "lenet5", method, f"deepfool_{steps}") for steps in (10, 50))
    for evaluation in (dataclasses.replace(first, n=15), second):  # the new weights will meet more images
        load_or_evaluate(evaluation, "cpu", progress=False)
    measure = partial(train.write_measures, first.spec, "theory", {}, 10, torch.device("cpu"))
    measure()
    publish.publish("digits")
    committed = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")}

    shutil.rmtree(tmp_path / "runs")  # another machine trains it anew
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(record, "results_dir", lambda: tmp_path / "none")
        elsewhere.setattr(train, "fit", other_fit(train.fit))
        load_or_evaluate(first, "cpu", progress=False)
    assert publish.publish("digits") == []
    said = capsys.readouterr().err
    run = first.spec.trained().run_id
    assert f"{run} was trained anew, and 2 records of {run} are of its former weights" in said
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")} == committed
    load_or_evaluate(second, "cpu", progress=False)
    assert publish.publish("digits") == []
    measure()
    assert len(publish.publish("digits")) == 4


def test_publish_does_not_part_a_surrogate_from_what_went_through_it(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    digits = dataclasses.replace(digits, beyond="pgd_un_50@transfer")
    monkeypatch.setattr(publish, "load", lambda _: digits)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "results")
    spec = digits.evaluation("mnist", "lenet5", "isce", "clean").spec
    train.load_or_train(spec, "cpu", False)
    wanted = digits.evaluation("mnist", "lenet5", "isce", "pgd_un_50@transfer")
    load_or_evaluate(wanted, "cpu", progress=False)
    publish.publish("digits")
    there = record.committed(wanted.path)
    assert there.is_file()

    shutil.rmtree(spec.surrogate().folder)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(record, "results_dir", lambda: tmp_path / "none")
        elsewhere.setattr(train, "fit", other_fit(train.fit))
        train.load_or_train(spec.surrogate(), "cpu", False)
    published = there.read_bytes()
    assert not any(spec.run_id in path for path in publish.publish("digits"))
    assert (
        f"{spec.surrogate().run_id} was trained anew, and 1 records of {spec.run_id} are of its"
        in capsys.readouterr().err
    )
    assert there.read_bytes() == published
    load_or_evaluate(wanted, "cpu", progress=False)
    assert str(there.relative_to(tmp_path / "results")) in publish.publish("digits")
    assert there.read_bytes() != published


def other_fit(fit: Callable[..., Any]) -> Callable[..., Any]:
    """A training that ends a little elsewhere, as on another processor."""

    def fitted(model: torch.nn.Module, *given: Any, **more: Any) -> Any:
        history = fit(model, *given, **more)
        with torch.no_grad():
            next(model.parameters()).mul_(1.01)
        return history

    return fitted


def test_documents_show_what_was_copied(digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    for module in (publish, pages):
        monkeypatch.setattr(module, "load", lambda _: digits)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "results")
    load_or_evaluate(digits.evaluation("mnist", "lenet5", "isce", "deepfool_10"), "cpu", progress=False)
    publish.publish("digits")
    load_or_evaluate(digits.evaluation("mnist", "lenet5", "isce", "pgd_un_50"), "cpu", progress=False)
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "none"))  # as `make results` does
    pages.write("digits")
    words = (tmp_path / "results" / "digits.md").read_text()
    assert "Table 7" in words
    assert "Table 5" not in words
    printed = sorted(p.name for p in (tmp_path / "results" / "digits").iterdir())
    assert printed == ["table7.html", "table7.tex"]
    with pytest.raises(SystemExit, match="results/ holds real data alone"):
        publish.main("digits")


def test_make_results_copies_then_writes_of_what_was_copied(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    real = dataclasses.replace(digits, name="real")
    monkeypatch.setattr(Profile, "is_stand_in", False)
    for module in (publish, pages):
        monkeypatch.setattr(module, "load", lambda name: real if name == "real" else profiles.load(name))
    monkeypatch.setattr(record, "home", lambda: tmp_path)
    monkeypatch.setattr(record, "config_dir", lambda: tmp_path)
    page = "<!-- results: real mnist lenet5, written -->\nold\n<!-- end of results -->\n"
    for readme in (tmp_path / "README.md", tmp_path / "results" / "README.md"):
        readme.parent.mkdir(exist_ok=True)
        readme.write_text(page)
    done = load_or_evaluate(digits.evaluation("mnist", "lenet5", "isce", "deepfool_50"), "cpu", progress=False)
    publish.main("real")
    assert record.runs_dir() == tmp_path / "runs"
    assert "deepfool_50-" in capsys.readouterr().out
    shown = f"{done['results'][1]['accuracy']:.1f} ["
    assert shown in (tmp_path / "results" / "real.md").read_text()
    for readme in (tmp_path / "README.md", tmp_path / "results" / "README.md"):
        assert "old" not in readme.read_text()
        assert shown in readme.read_text()


def test_the_longest_training_keeps_its_weights_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path)
    (tmp_path / "made").write_bytes(bytes(100))

    def share(name: str, method: str, epochs: int) -> list[str]:
        target = tmp_path / name / "result.json"
        record.write_json(target, {"schema": record.SCHEMA, "spec": {"method": method, "epochs": epochs}})
        publish.share_weights(tmp_path / "made", target)
        return sorted(path.parent.name for path in tmp_path.glob("*/made"))

    assert share("short", "isce", 2) == ["short"]
    assert share("other", "sce", 2) == ["other", "short"]
    assert share("long", "isce", 20) == ["long", "other"]
    assert share("short", "isce", 2) == share("long", "isce", 20) == ["long", "other"]
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "made").write_bytes(b"")  # whose record was taken away
    assert share("long", "isce", 20) == ["long", "lost", "other"]
    (tmp_path / "lost" / "made").unlink()
    monkeypatch.setattr(publish, "WEIGHTS_AT_MOST", 250)
    assert "no room" not in capsys.readouterr().err
    assert share("third", "mmc", 2) == ["long", "other"]
    assert capsys.readouterr().err == "isce: third: no room for its weights, 0.00025 MB are full\n"
    monkeypatch.setattr(publish, "WEIGHTS_AT_MOST", 350)
    assert share("control", "norm_only", 2) == ["control", "long", "other"]
    assert share("third", "mmc", 2) == ["long", "other", "third"]  # a method of the tables takes a control's room
    assert "control: its weights make room for those of third" in capsys.readouterr().err
    assert share("control", "norm_only", 2) == ["long", "other", "third"]
    assert "control: no room" in capsys.readouterr().err
    assert share("third", "isce", 2) == ["long", "other"]  # shorter than that of its method
    (tmp_path / "made").unlink()
    publish.share_weights(tmp_path / "made", tmp_path / "long" / "result.json")  # not here: those there stay
    assert (tmp_path / "long" / "made").is_file()


def test_committed_weights_belong_to_their_records_and_are_small() -> None:
    root = Path(__file__).resolve().parents[1] / "results"
    weights = sorted(root.glob("*/model.safetensors"))
    for path in weights:
        assert record.sha256(path) == (record.read_json(path.with_name("result.json")) or {})["weights_sha256"], path
    assert 0 < sum(path.stat().st_size for path in weights) < 30e6


def test_committed_results_are_found_and_small() -> None:
    root = Path(__file__).resolve().parents[1] / "results"
    files = [p for p in root.rglob("*.json") if "benchmarks" not in p.parts]
    assert files, "results/ holds the records that README shows"
    for path in files:
        content = record.read_json(path)
        assert content is not None, path
        assert content["provenance"]["commit"] != "unknown"
        assert path.stat().st_size < 50_000
