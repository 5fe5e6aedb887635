"""Pages: what they say is what the committed records say."""

import dataclasses
import re
import statistics
from pathlib import Path

import pytest

from isce import methods, pages, profiles, record
from isce.evaluations import load_or_evaluate
from isce.profiles import Profile


def test_standing_counts_records_and_names_what_has_none(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "none")
    parts, everything = digits.parts(), "everything, the training too"
    counts, gaps = pages.standing(digits)
    assert [*counts["what"]] == [*parts]
    assert {cell.split(" of ")[0] for cell in counts["attacks with a record"]} == {"0"}
    assert {*gaps["without a record"]} == {everything}
    assert {(e.spec.dataset, e.spec.backbone) for e in parts["cifar10/cnn8"]} == {("digits", "cnn8")}

    asked = digits.evaluation("mnist", "lenet5", "sce", "pgd_un_50")
    load_or_evaluate(dataclasses.replace(asked, n=15), "cpu", progress=False)
    counts, gaps = pages.standing(digits)
    row = counts.set_index("what").loc["mnist/lenet5"]
    networks = {e.spec.trained().folder for e in parts["mnist/lenet5"]}
    assert row["networks trained"] == f"1 of {len(networks)}"
    assert row["attacks with a record"] == f"1 of {len(parts['mnist/lenet5'])}"
    assert row["of them on all images asked for"] == 0
    lenet = gaps[gaps["what"] == "mnist/lenet5"].set_index("methods")["without a record"]
    assert "DF 50" in lenet["SCE"]
    assert "PGD un 50," not in lenet["SCE"]
    assert lenet["Random"] == "every attack"  # on the weights of SCE
    load_or_evaluate(dataclasses.replace(asked, n=asked.n + 5), "cpu", progress=False)  # more than asked for
    again = pages.standing(digits)[0].set_index("what").loc["mnist/lenet5"]
    assert again["of them on all images asked for"] == 1


def test_the_document_lists_the_checks_that_failed(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "none")
    assert pages.masking(digits, "mnist", "lenet5").empty
    found = [
        {"name": name, "passed": passed, "numbers": {}, "source": "C", "says": "so"}
        for name, passed in (("transfer", False), ("restarts", True), ("black box", None))
    ]
    path = digits.spec("mnist", "lenet5", "mmc").folder / "checks" / "0.json"
    record.write_json(path, {"schema": record.SCHEMA, "parameters": {"n": 9, "eps": 0.5}, "checks": found})
    (row,) = pages.masking(digits, "mnist", "lenet5").to_dict("records")
    assert row == {"method": "MMC", "n": 9, "ε": 0.5, "failed": "transfer (of 2)"}


@pytest.mark.parametrize("where", ["README.md", "results/README.md"])
def test_the_readmes_show_the_committed_records(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))  # results/ alone
    words = (Path(__file__).resolve().parents[1] / where).read_text()
    (again := tmp_path / "README.md").write_text(re.sub(r"\| I-SCE  .*", "| damaged", words))
    assert again.read_text() != words
    for name in ("cpu", "digits", "full"):
        pages.update_readme(name, again)
    assert again.read_text() == words


@pytest.mark.parametrize("name", ["cpu", "full"])
def test_the_document_shows_the_committed_records(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    profile = profiles.load(name)
    assert (record.results_dir() / f"{name}.md").read_text() == pages.document(profile, pages.with_records(profile))


def test_a_glance_takes_each_cell_from_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    lines = pages.glance([("full", "cifar10", "resnet32"), ("full", "mnist", "resnet32")]).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [(attack, method) for attack, method, *_ in rows] == [
        (words if at == 0 else "", methods.get(method).label)
        for words, _, of in pages.GLANCE
        for at, method in enumerate(of)
    ]
    known: dict[tuple[str, str, str], dict[int, tuple[float, float, float]]] = {}  # by seed
    for path in record.results_dir().glob("*-resnet32-*-seed?-*/attacks/*.json"):
        done = record.read_json(path) or {}
        asked, spec = done["evaluation"], done["evaluation"]["spec"]
        top = done["results"][-1]
        full = (spec["dataset"], spec["epochs"]) in {("cifar10", 60), ("mnist", 20)}
        full = full and done["n"] == (10_000 if asked["attack"] == "clean" else 1000)  # Figure 4's take 10,000
        if full and top["level"] in {0.0, 0.5, 2.0}:
            seeds = known.setdefault((spec["dataset"], asked["attack"], spec["method"]), {})
            seeds[spec["seed"]] = (top["accuracy"], *top["interval"])
    keys = [(attack, method) for _, attack, of in pages.GLANCE for method in of]
    for (attack, method), row in zip(keys, rows, strict=True):
        for dataset, cell in zip(("cifar10", "mnist"), row[2:], strict=True):
            match [*known.get((dataset, attack, method), {}).values()]:
                case []:
                    assert cell == "not run"
                case [alone]:
                    fewer = " (1 of 3 seeds)" if dataset == "mnist" else ""  # as many as its column's others have
                    assert cell == "{:.1f} [{:.1f}, {:.1f}]".format(*alone) + fewer
                case several:
                    accuracies = [accuracy for accuracy, _, _ in several]
                    assert cell.startswith(f"{statistics.mean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f} [")
