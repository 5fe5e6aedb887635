"""Tables: every cell is a record's, and says so where there is none."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isce import evaluate, methods, paper, profiles, record, statistics, tables
from isce.evaluations import Evaluation, load_or_evaluate, pack
from isce.methods import METHODS
from isce.profiles import Profile


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
    assert (wide.loc["MMC"] == "not run (n.r.)").all()
    made = [not text.startswith(tables.NO_RECORD) for text in wide.loc["I-SCE"].xs("DF 10", level=2)]
    assert made == [True, True, False, False]
    assert "digits for MNIST" in wide.columns[0][0]
    caption = tables.caption(7, digits, long)
    assert "n = 20" in caption
    assert "Trained: LeNet-5 on digits for 15 epochs." in caption  # what has records
    assert "not the paper's data sets" in caption
    tables.styled(wide).to_html()


def test_a_table_without_what_has_no_record_says_so(ranked: Profile) -> None:
    for seed in (0, 1):
        ranked.evaluation("mnist", "lenet5", "random", "deepfool_50", seed).path.unlink()
    long = tables.recorded(tables.cells(7, ranked))
    assert set(long["method"]) == set(ranked.methods) - {"random"}
    assert set(long["block"]) == {"mnist"}
    text = tables.render(7, ranked, long)
    assert "Not in this table: Random, CIFAR-10." in text
    assert "| Random" not in text
    assert "Not in this table" not in tables.caption(7, ranked, tables.cells(7, ranked))


@pytest.mark.parametrize("number", paper.TABLES)
def test_every_table_can_be_laid_out_without_a_record(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "none")
    full = profiles.load("full")
    wide = tables.layout(full, tables.cells(number, full))
    assert wide.shape == (len(full.methods), len(paper.TABLES[number].columns))
    assert wide.map(lambda text: text.startswith(tables.NO_RECORD)).all(axis=None)
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
    low, high = record.wilson(13, 20)  # 20 images, not 40
    assert tables.text(cell) == f"65.0 ± 14.1 [{low:.1f}, {high:.1f}] (paper: 28.26)"


def test_a_cell_of_a_costly_attack_states_its_images(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    fewer = dataclasses.replace(digits, fewer={"deepfool_50": 8})
    fake(fewer, "isce", {0: [True] * 4 + [False] * 4})
    for long in (tables.cells(7, fewer, ["isce"]), tables.attacked(fewer, "mnist", "lenet5", ["isce"])):
        cell = long[(long["attack"] == "deepfool_50") & (long["level"] == 0.5)].iloc[0]
        assert "50.0 [21.5, 78.5] (n = 8)" in tables.text(cell)


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


@pytest.fixture
def ranked(digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """All nine and a control under DeepFool-50: AT 19 and 18 of 20, MMC 17 and 16, the others 2; the control 20."""
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    two = dataclasses.replace(digits, seeds=[0, 1], controls="norm_only")
    for method in [*METHODS, "norm_only"]:
        first = {"at": 19, "mmc": 17, "norm_only": 20}.get(method, 2)
        fake(two, method, {s: [True] * (first - s) + [False] * (20 - first + s) for s in (0, 1)})
    return two


def test_marks_in_a_table(ranked: Profile) -> None:
    column = "column == 'mnist:deepfool_50:1'"
    marks = tables.cells(7, ranked).query(column).set_index("method")["mark"]
    assert dict(marks[marks != ""]) == {"at": "tied", "mmc": "tied"}  # the control is above both
    alone = tables.cells(7, ranked, ["sce", "mmc"]).query(column).set_index("method")["mark"]
    assert dict(alone) == {"sce": "", "mmc": "tied"}  # ranked among all nine, whatever is shown
    assert (tables.cells(7, ranked).query("attack == 'clean'")["mark"] == "").all()
    for seed in (0, 1):
        fake(ranked, "mmc", {seed: [True] * 2 + [False] * 18})
    marks = tables.cells(7, ranked).query(column).set_index("method")["mark"]
    assert dict(marks[marks != ""]) == {"at": "best"}
    assert "Bold: significantly above" in tables.caption(7, ranked, tables.cells(7, ranked))
    ranked.evaluation("mnist", "lenet5", "random", "deepfool_50", 0).path.unlink()
    ranked.evaluation("mnist", "lenet5", "random", "deepfool_50", 1).path.unlink()
    bare = tables.cells(7, ranked).query("block == 'mnist'")
    assert (bare["mark"] == "").all()
    assert "No best is marked" in tables.caption(7, ranked, bare)


def printed(number: int, profile: Profile, format: str = "markdown") -> str:
    return tables.render(number, profile, tables.cells(number, profile), format)


def rows_of_html(text: str) -> list[list[str]]:
    """The texts of each row's cells, with their tags."""
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)]


def test_markdown(ranked: Profile) -> None:
    low, high = record.wilson(18.5, 20)
    text = tables.render(7, ranked, tables.cells(7, ranked))
    assert text == printed(7, ranked, "markdown")
    assert f"| 92.5 ± 3.5† [{low:.1f}, {high:.1f}] (paper: 1.43) |" in text
    assert "(n.r.)" in text
    assert "known for I-SCE, Random, AT; n.r.: not recoverable" in text
    assert text.count("digits for MNIST:") == text.count("digits for CIFAR-10:") == 1
    lines = [line for line in text.splitlines() if line.startswith("| Normalisation only")]
    assert len(lines) == 2  # one for each data set
    assert "n.r." not in "".join(lines)  # the paper has no such row
    wide = tables.layout(ranked, tables.cells(7, ranked)[lambda long: long["block"] == "mnist"])
    rows, turned = (
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "---" not in line]
        for text in (tables.markdown(wide), tables.markdown(wide, turned=True))
    )
    assert [list(column)[1:] for column in zip(*turned, strict=True)] == [row[1:] for row in rows]
    assert turned[0] == ["attack", *(name for name, *_ in rows[1:])]
    other = printed(3, ranked)
    assert "The paper's numbers: not recoverable, in any cell." in other
    assert "n.r." not in other  # said once
    assert "(paper:" not in other


def test_latex(ranked: Profile) -> None:
    for seed in (0, 1):
        fake(ranked, "mmc", {seed: [True] * 2 + [False] * 18})
    text = printed(7, ranked, "latex")
    assert r"\textbf{92.5 $\pm$ 3.5}\\{\scriptsize [" in text
    assert r"\\{\scriptsize (paper: 1.43)}" in text
    assert text.isascii()  # no ε, ±, † that pdflatex would stumble over
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    depth = np.cumsum([{"{": 1, "}": -1}[c] for c in re.findall(r"(?<!\\)[{}]", text.replace(r"\\", ""))])
    assert depth.min() == depth[-1] == 0
    known = "begin end renewcommand thetable caption label centering resizebox ifdim width linewidth else fi toprule midrule"
    known += " smallskip bottomrule multicolumn scriptsize textbf varepsilon pm dagger usepackage"
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= set(known.split())
    for line in text.splitlines():
        assert not re.search(r"(?<!\\)[#_]", line), line
        assert re.search(r"(?<!\\)%", line) is None or re.match(r"%|[^%]*[{}]%", line), line  # comments of ours alone
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == len(ranked.methods)
    assert {line.count("&") for line in body} == {10}
    assert all(line.endswith(r" \\[3pt]") for line in body)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs and graphicx")
@pytest.mark.parametrize("number", [5, 7])
def test_latex_compiles_on_a_page(number: int, ranked: Profile, tmp_path: Path) -> None:
    page = [r"\documentclass{article}", r"\usepackage{booktabs, graphicx}", r"\begin{document}", r"\input{table}"]
    (tmp_path / "page.tex").write_text("\n".join([*page, r"\end{document}"]))
    (tmp_path / "table.tex").write_text(printed(number, ranked, "latex"))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "1 page" in done.stdout
    assert "Overfull" not in done.stdout


def test_what_latex_would_take_for_its_own() -> None:
    assert tables._to_tex("50 % & **a_b** #1 ε ± † {x} ~^\\") == (
        r"50 \% \& \textbf{a\_b} \#1 $\varepsilon$ $\pm$ $^\dagger$ \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_html(ranked: Profile) -> None:
    for seed in (0, 1):
        fake(ranked, "mmc", {seed: [True] * 2 + [False] * 18})
    text = printed(7, ranked, "html")
    assert text.startswith("<!DOCTYPE html>")
    assert text == printed(7, ranked, "html")  # committed files do not change without a reason
    assert "p &lt; 0.05" in text
    assert "<b>Table 7.</b>" in text
    rows = {row[0]: row[1:] for row in rows_of_html(text)}
    low, high = record.wilson(18.5, 20)
    interval = f"<br><small>[{low:.1f}, {high:.1f}]</small><br><small>(paper: 1.43)</small>"
    assert rows["AT"][4] == f"<b>92.5 ± 3.5</b>{interval}"
    assert all(len(rows[methods.get(name).label]) == 10 for name in ranked.methods)
    assert "**" not in text


def test_a_format_that_is_unknown_and_a_table(ranked: Profile) -> None:
    with pytest.raises(ValueError, match="unknown format 'pdf': use one of markdown, latex, html"):
        printed(7, ranked, "pdf")
    with pytest.raises(ValueError, match="unknown table 8"):
        tables.cells(8, ranked)


@pytest.mark.parametrize("number", paper.TABLES)
@pytest.mark.parametrize("format", tables.FORMATS)
def test_each_cell_shows_the_paper_s_number_or_that_it_is_lost(number: int, format: str, ranked: Profile) -> None:
    text = printed(number, ranked, format)
    known = [value for row in paper.TABLES[number].numbers.values() for value in row.values()]
    for value in known:
        assert f"(paper: {value:.2f})" in text
    assert text.count("(paper: ") == len(known)
    assert text.count("(n.r.)") == (len(tables.stated(number).stack([0, 1, 2])) - len(known) if known else 0)
    assert "not recoverable" in text


def test_save_writes_one_file_per_format(ranked: Profile, tmp_path: Path) -> None:
    paths = tables.save(7, ranked, tables.cells(7, ranked, ["at"]), tmp_path / "out", ["latex", "markdown"])
    assert [path.name for path in paths] == ["table7.tex", "table7.md"]
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
    assert paths[1].read_text() == tables.render(7, ranked, tables.cells(7, ranked, ["at"]))


def test_worst_case_is_the_intersection(digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    fake(digits, "isce", {0: [True] * 10 + [False] * 10}, "deepfool_50")
    fake(digits, "isce", {0: [False] * 5 + [True] * 15}, "pgd_un_50")
    long = tables.attacked(digits, "mnist", "lenet5", ["isce"])
    assert long.query("attack == 'worst'")["accuracy"].tolist() == [25.0, 25.0]
    (worst,) = tables.worst_outcomes(digits, "mnist", "lenet5", 1.0)(["isce"])
    assert worst == {}  # attacks of the profile have no record
    steps = {"simba_steps": digits.eps, "strongest": "simba"}
    two = dataclasses.replace(digits, tables=[7], beyond="pgd_un_50", adaptive={}, **steps)
    fake(two, "isce", {0: [True] * 10 + [False] * 10}, "deepfool_10")
    (worst,) = tables.worst_outcomes(two, "mnist", "lenet5", 1.0)(["isce"])
    assert worst[0].tolist() == [False] * 5 + [True] * 5 + [False] * 10  # SimBA's level is a step: it does not count


def test_worst_case_of_a_random_model_is_its_strongest_attack(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record holds another draw of the model: what survives all of them is rare even without an attack."""
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    for method in ("random", "sce"):
        fake(digits, method, {0: [True] * 12 + [False] * 8}, "deepfool_50")
        fake(digits, method, {0: [False] * 10 + [True] * 10}, "pgd_un_50")
    asked = {m: len(tables.within_radius(digits, "mnist", "lenet5", m, 1.0)) for m in ("random", "sce")}
    long = tables.attacked(digits, "mnist", "lenet5", ["random", "sce"]).query("attack == 'worst' and level == 1.0")
    assert long["accuracy"].tolist() == [50.0, 10.0]
    assert long["beside"].tolist() == [f"2 of {asked[m]} attacks" for m in ("random", "sce")]


def test_another_record_takes_no_seed_from_the_worst_case(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack counts once it has met the seeds that the strongest has met; who lacks that one says so beside those who do."""
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    profile = dataclasses.replace(digits, networks={}, seeds=[0, 1, 2])
    (strongest,) = digits.strongest.split(",")

    def cell(method: str) -> tuple[float, int, str]:
        long = tables.attacked(profile, "mnist", "lenet5", ["isce", "sce"]).set_index(["method", "column"])
        found = long.loc[(method, "worst:1")]
        return found["accuracy"], found["seeds"], found["beside"]

    asked = len(tables.within_radius(profile, "mnist", "lenet5", "isce", 1.0))
    seeds = {seed: [True] * 10 + [False] * 10 for seed in (0, 1, 2)}
    fake(profile, "isce", seeds, "pgd_un_50")
    assert cell("isce") == (50.0, 3, f"1 of {asked} attacks")
    fake(profile, "isce", {2: [False] * 20}, "deepfool_50")
    assert cell("isce") == (pytest.approx(100 / 3), 3, f"1 to 2 of {asked} attacks")  # of seed 2 as well
    fake(profile, "isce", {seed: [True] * 4 + [False] * 6 for seed in (0, 1)}, strongest)  # fewer seeds: yet it counts
    assert cell("isce") == (40.0, 2, f"2 of {asked} attacks")
    fake(profile, "sce", seeds, "pgd_un_50")
    assert cell("sce") == (50.0, 3, f"1 of {asked} attacks, without {evaluate.label(strongest)}")
    compared = tables.worst_outcomes(profile, "mnist", "lenet5", 1.0)
    assert compared(["isce", "sce"]) == [{}, {}]  # SCE has not met the strongest
    fake(profile, "isce", {seed: [False] * 10 for seed in (0, 1)}, strongest)
    (right,) = tables.worst_outcomes(profile, "mnist", "lenet5", 1.0)(["isce"])
    assert {seed: bits.tolist() for seed, bits in right.items() if seed < 2} == {0: [False] * 10, 1: [False] * 10}
    assert right[2].tolist() == [False] * 20  # DeepFool alone leaves none of this seed


def test_comparisons_under_the_strongest_attack_need_no_other_that_is_common(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two methods are compared under what both have met and what is made for one; the strongest, or all, must be among it, but
    for a seed of which nothing is left."""
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    (strongest,) = digits.strongest.split(",")
    profile = dataclasses.replace(digits, networks={}, seeds=[0, 1, 2], adaptive={"isce": "pgd_un_100"})

    def worst(*methods: str) -> list[dict[int, int]]:
        found = tables.worst_outcomes(profile, "mnist", "lenet5", 1.0)(methods)
        return [{seed: int(bits.sum()) for seed, bits in right.items()} for right in found]

    fake(profile, "isce", {seed: [True] * 10 + [False] * 10 for seed in (0, 1)}, strongest)
    assert worst("isce") == [{0: 10, 1: 10}]  # the attack made for it has no record, and is weaker
    fake(profile, "isce", {0: [True] * 8 + [False] * 12}, "pgd_un_100")
    assert worst("isce") == [{0: 8, 1: 10}]  # where it has one, it counts
    fake(profile, "isce", {seed: [True] * 15 + [False] * 5 for seed in (0, 1)}, "pgd_un_100")
    assert worst("isce") == [{0: 10, 1: 10}]
    fake(profile, "isce", {1: [False] * 10 + [True] * 10}, "pgd_un_50")  # none is left, with this seed
    assert worst("isce") == [{0: 10, 1: 0}]
    fake(profile, "sce", {seed: [True] * 8 + [False] * 12 for seed in (0, 1, 2)}, "pgd_un_10")
    assert worst("isce", "sce") == [{}, {}]  # what both have met says too little
    fake(profile, "sce", {seed: [True] * 9 + [False] * 11 for seed in (1, 2)}, strongest)
    assert worst("isce", "sce") == [{1: 10}, {1: 9}]  # neither's PGD counts: the other has not met it
    assert worst("sce") == [{1: 8, 2: 8}]
    fake(profile, "isce", {2: [False] * 20}, strongest)
    assert worst("isce", "sce") == [{1: 10, 2: 0}, {1: 9, 2: 9}]
    random = dataclasses.replace(profile, adaptive={"random": "pgd_un_10@eot20"})
    fake(random, "random", {0: [True] * 10 + [False] * 10, 1: [False] * 20}, strongest)
    (found,) = tables.worst_outcomes(random, "mnist", "lenet5", 1.0)(["random"])
    assert list(found) == [1]  # the strongest does not see through seed 0's draws; of seed 1 more could change nothing
    fake(random, "random", {0: [True] * 7 + [False] * 13}, "pgd_un_10@eot20")
    (found,) = tables.worst_outcomes(random, "mnist", "lenet5", 1.0)(["random"])
    assert {seed: int(right.sum()) for seed, right in found.items()} == {0: 7, 1: 0}


def test_records_of_fewer_images_are_shown_with_their_n(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    load_or_evaluate(
        dataclasses.replace(digits.evaluation("mnist", "lenet5", "isce", "deepfool_10"), n=15), "cpu", False
    )
    load_or_evaluate(digits.evaluation("mnist", "lenet5", "isce", "deepfool_50"), "cpu", False)
    long = tables.cells(7, digits, ["isce"])
    texts = [tables.text(cell) for _, cell in long.query("block == 'mnist' and attack != 'clean'").iterrows()]
    assert ["(n = 15)" in text for text in texts] == [True, False, True, False]
    assert "n = 15 or 20 test images" in tables.caption(7, digits, long)
    found = [tables.outcomes(digits, "mnist", "lenet5", "isce", f"deepfool_{k}", 1) for k in (10, 50)]
    assert [len(right[0]) for right in found] == [15, 20]
    assert [len(right[0]) for right in statistics.nested(found)] == [15, 15]
    met = tables.met(digits, "mnist", "lenet5", "isce", digits.eps["mnist"][1])
    assert len(tables.survivors(met, tables.met_by(digits, met))[0]) == 15


def test_of_attacks_as_strong_on_a_random_model_always_the_same_counts() -> None:
    """A set's order is another in every process."""
    right = {"pgd_un_10": {0: np.array([True, False])}, "apgd_ce": {0: np.array([False, True])}}
    for order in (["apgd_ce", "pgd_un_10"], ["pgd_un_10", "apgd_ce"]):
        assert tables.survivors(right, {0: order}, random=True)[0].tolist() == [False, True]


def test_a_printed_table_says_once_what_all_its_cells_share(digits: Profile) -> None:
    cells = pd.DataFrame(
        {"attack": ["clean", "pgd_un_50"], "accuracy": [9.0, 8.0], "n": [360, 15], "of": [360, 20]}
        | {"seeds": [1, 1], "of_seeds": [3, 3], "low": [8.0, 7.0], "high": [10.0, 9.0], "std": [0.1, 0.1]}
    )
    words = tables.caption(
        5, digits, cells.assign(block="mnist", backbone="lenet5", method="sce", mark="", commits="c")
    )
    assert "n = 15 test images of the 20 that the profile asks for, 1 seed of 3;" in words
    assert [tables.text(cell) for _, cell in tables.told(cells).iterrows()] == ["9.0 [8.0, 10.0]", "8.0 [7.0, 9.0]"]
    mixed = pd.concat([cells, cells.assign(n=20, seeds=2)])
    assert [tables.text(cell) for _, cell in tables.told(mixed).iterrows()][
        1
    ] == "8.0 [7.0, 9.0] (n = 15, 1 of 3 seeds)"


def test_a_strongest_attack_at_the_smaller_radius_has_a_column_where_one_has_a_record(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    (strongest,) = digits.strongest.split(",")
    rows = ["isce", "sce"]

    def shown(level: float) -> pd.DataFrame:
        long = tables.attacked(digits, "mnist", "lenet5", rows)
        return long[(long["attack"] == strongest) & (long["level"] == level)]

    small, large = digits.eps["mnist"]
    assert (len(shown(small)), len(shown(large))) == (0, 2)
    asked = digits.at_smaller("mnist", "lenet5", "isce", strongest)
    assert asked.levels == (small,)
    fake(dataclasses.replace(digits, eps={"mnist": [small]}), "isce", {0: [True] * 15 + [False] * 5}, strongest)
    found = shown(small).set_index("method")
    assert [tables.text(found.loc[m]) for m in rows] == ["75.0 [53.1, 88.8]", ""]
    assert shown(large)["accuracy"].isna().all()
    fake(digits, "isce", {0: [True] * 20}, "pgd_un_50")
    long = tables.attacked(digits, "mnist", "lenet5", rows).set_index(["method", "column"])
    assert long.loc[("isce", "worst:0"), "accuracy"] == 75  # the strongest counts where it has been run
    assert long.loc[("isce", "worst:1"), "accuracy"] == 100
    within = len(tables.within_radius(digits, "mnist", "lenet5", "isce", small))
    assert long.loc[("isce", "worst:0"), "beside"] == f"2 of {within + 1} attacks"
    assert tables.worst_outcomes(digits, "mnist", "lenet5", small)(["isce", "sce"]) == [{}, {}]
    (right,) = tables.worst_outcomes(digits, "mnist", "lenet5", small)(["isce"])
    assert right[0].tolist() == [True] * 15 + [False] * 5  # the strongest stands for what has no record

    on_raw = digits.at_smaller("mnist", "lenet5", "isce", f"{strongest}@raw")
    assert on_raw == dataclasses.replace(asked, attack=f"{strongest}@raw")
    fake(dataclasses.replace(digits, eps={"mnist": [small]}), "isce", {0: [True] * 10 + [False] * 10}, on_raw.attack)
    long = tables.attacked(digits, "mnist", "lenet5", rows).set_index(["method", "column"])
    assert long.loc[("isce", f"{on_raw.attack}:smaller"), "accuracy"] == 50
    assert not long.loc[("sce", f"{on_raw.attack}:smaller"), "asked"]
    assert long.loc[("isce", "worst:0"), "accuracy"] == 50
    assert long.loc[("isce", "worst:0"), "beside"] == f"3 of {within + 2} attacks"


def test_what_a_table_lacks_is_made_for_its_networks_and_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows beside the profile's too; not a network, nor a method on one, that the profile leaves out: that is said."""
    made: list[Evaluation] = []
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))  # where nothing is there
    monkeypatch.setattr(tables, "find_or_evaluate", lambda evaluation, device: made.append(evaluation))
    tables.compute(5, profiles.load("digits"), ["isce", "norm_only"])
    assert {e.spec.method for e in made} == {"isce", "norm_only"}
    assert {e.attack for e in made} == {column.attack for column in paper.TABLES[5].columns}
    (line,) = capsys.readouterr().err.splitlines()
    assert f"of Table 5's {len(made)} records {len(made)} are not there, and 2 networks" in line
    made.clear()
    cpu = profiles.load("cpu")
    tables.compute(1, cpu, ["isce", "center"])
    assert {e.spec.method for e in made} == {"isce"}
    assert "does not run center on mnist, resnet32" in capsys.readouterr().err
    made.clear()
    tables.compute(2, cpu, ["isce"])
    assert not made
    assert "does not run isce on cifar10, resnet32" in capsys.readouterr().err
    tables.compute(5, cpu, ["isce"])
    assert capsys.readouterr().err == ""  # all is committed
    assert {e.spec.seed for e in made} == set(cpu.seeds_of("mnist", "lenet5"))
