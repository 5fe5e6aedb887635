"""Profiles and tables: every cell is a record's, and says so where there is none."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from isce import paper, profiles, publish, record, tables
from isce.evaluate import load_or_evaluate, pack
from isce.methods import METHODS
from isce.profiles import Profile

NAMES = ["cpu", "digits", "full"]


@pytest.fixture
def digits() -> Profile:
    return dataclasses.replace(profiles.load("digits"), n=20)


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_covers_its_tables(name: str) -> None:
    profile = profiles.load(name)
    assert set(METHODS) <= set(profile.methods)
    from isce import methods

    for jobs in (profile.train_jobs, profile.attack_jobs):
        assert sorted(m for job in jobs for m in methods.parse(job)) == sorted(profile.methods)
    for number in profile.tables:
        for column in paper.TABLES[number].columns:
            evaluation = profile.evaluation(column.block, column.backbone, "isce", column.attack)
            assert len(evaluation.levels) > (column.eps_index or 0)
            assert column.attack in profile.attacks(column.block, column.backbone) or column.attack == "clean"


def test_the_paper_profile_uses_the_stated_budgets() -> None:
    full = profiles.load("full")
    assert full.simba_queries == paper.SETTINGS["simba_queries"].value
    assert full.eps == {k: list(v) for k, v in paper.OUR_EPS.items()}
    assert full.simba_steps == {k: list(v) for k, v in paper.OUR_SIMBA_STEPS.items()}
    assert not full.is_stand_in
    assert profiles.load("digits").is_stand_in


def test_bad_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown profile 'digit'.*digits"):
        profiles.load("digit")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text("title: mine\nseed: 1\n")
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"mine\.yaml must hold just the keys .*seed"):
        profiles.load("mine")


def test_a_cell_is_its_record_s(digits: Profile) -> None:
    wanted = digits.evaluation("mnist", "lenet5", "isce", "deepfool_10")
    made = load_or_evaluate(wanted, "cpu", progress=False)
    long = tables.cells(7, digits, ["isce", "mmc"])
    cell = long.query("method == 'isce' and attack == 'deepfool_10' and level == 1.0").iloc[0]
    assert cell["accuracy"] == made["results"][1]["accuracy"]
    assert (cell["low"], cell["high"]) == tuple(made["results"][1]["interval"])
    assert cell["n"] == 20
    assert cell["paper"] == 92.62  # the paper's, at its own unknown level
    wide = tables.layout(digits, long)
    assert wide.shape == (2, 10)
    assert (wide.loc["MMC"] == tables.NO_RECORD).all()
    assert (wide.loc["I-SCE"].xs("DF 10", level=2) != tables.NO_RECORD).tolist() == [True, True, False, False]
    assert "digits for MNIST" in wide.columns[0][0]
    caption = tables.caption(7, digits, long)
    assert "n = 20" in caption
    assert "not the paper's data sets" in caption
    tables.styled(wide).to_html()


@pytest.mark.parametrize("number", paper.TABLES)
def test_every_table_can_be_laid_out_without_a_record(number: int) -> None:
    full = profiles.load("full")
    wide = tables.layout(full, tables.cells(number, full))
    assert wide.shape == (len(full.methods), len(paper.TABLES[number].columns))
    assert (wide == tables.NO_RECORD).all(axis=None) or number in (5, 7)
    assert tables.stated(number).shape == (9, len(paper.TABLES[number].columns))
    with pytest.raises(ValueError, match="unknown table"):
        tables.cells(8, full)


def test_several_seeds_give_mean_and_deviation(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    two = dataclasses.replace(digits, seeds=[0, 1])
    fake(two, "isce", {0: [True] * 15 + [False] * 5, 1: [True] * 11 + [False] * 9})
    cell = tables.cells(7, two, ["isce"]).query("column == 'mnist:deepfool_50:0'").iloc[0]
    assert cell["accuracy"] == pytest.approx(65.0)
    assert cell["std"] == pytest.approx(np.std([75, 55], ddof=1))
    assert tables.text(cell) == "65.0 ± 14.1"


def fake(profile: Profile, method: str, outcomes: dict[int, list[bool]], attack: str = "deepfool_50") -> None:
    """A record as `load_or_evaluate` writes it, with outcomes of our choosing, for arithmetic on records."""
    for seed, bits in outcomes.items():
        right = np.array(bits)
        entry = {
            "accuracy": 100 * right.mean(),
            "interval": record.wilson(int(right.sum()), len(right)),
            "correct": pack(right),
        }
        for backbone in ("lenet5", "resnet32"):
            evaluation = profile.evaluation("mnist", backbone, method, attack, seed)
            results = [entry | {"level": level} for level in evaluation.levels]
            content = {"schema": record.SCHEMA, "n": len(bits), "results": results, "provenance": {"commit": "test"}}
            record.write_json(evaluation.path, json.loads(json.dumps(content)))


def test_worst_case_is_the_intersection(digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    fake(digits, "isce", {0: [True] * 10 + [False] * 10}, "deepfool_50")
    fake(digits, "isce", {0: [False] * 5 + [True] * 15}, "pgd_un_50")
    long = tables.attacked(digits, "mnist", "lenet5", ["isce"])
    assert long.query("attack == 'worst'")["accuracy"].tolist() == [25.0, 25.0]
    assert tables.worst_outcomes(digits, "mnist", "lenet5", "isce", 1.0) == {}  # attacks of the profile have no record
    steps = {"simba_steps": digits.eps, "strongest": "simba"}
    two = dataclasses.replace(digits, tables=[7], beyond="pgd_un_50", adaptive={}, **steps)
    fake(two, "isce", {0: [True] * 10 + [False] * 10}, "deepfool_10")
    worst = tables.worst_outcomes(two, "mnist", "lenet5", "isce", 1.0)
    assert worst[0].tolist() == [False] * 5 + [True] * 5 + [False] * 10  # SimBA's level is a step: it does not count


def test_publish_copies_small_records_alone(digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = digits.evaluation("mnist", "lenet5", "isce", "deepfool_10")
    load_or_evaluate(wanted, "cpu", progress=False)
    monkeypatch.setattr(publish, "load", lambda _: digits)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path)
    copied = publish.publish("digits")
    assert any("deepfool_10" in path for path in copied)
    assert all(path.endswith(".json") for path in copied)
    assert sorted(copied) == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    assert "Table 7" in (tmp_path / "digits.md").read_text()


def test_committed_results_are_found_and_small() -> None:
    root = Path(__file__).resolve().parents[1] / "results"
    files = [p for p in root.rglob("*.json") if "benchmarks" not in p.parts]
    assert files, "results/ holds the records that README shows"
    for path in files:
        content = record.read_json(path)
        assert content is not None, path
        assert content["provenance"]["commit"] != "unknown"
        assert path.stat().st_size < 50_000


def test_the_readme_shows_the_committed_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))  # results/ alone
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    table = publish.headline(profiles.load("cpu"))
    assert "I-SCE" in table
    assert table in readme
    document = (record.results_dir() / "cpu.md").read_text()
    assert document == publish.document(profiles.load("cpu"))
