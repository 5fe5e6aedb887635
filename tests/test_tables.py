"""Profiles and tables: every cell is a record's, and says so where there is none."""

import dataclasses
import itertools
import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest

from isce import evaluate, methods, paper, profiles, publish, record, tables, train
from isce.evaluate import load_or_evaluate, pack
from isce.methods import METHODS
from isce.profiles import Profile

NAMES = ["cpu", "digits", "full"]


@pytest.fixture
def digits() -> Profile:
    return dataclasses.replace(profiles.load("digits"), n=20)


def test_networks_say_what_less_is_run() -> None:
    less = {"mnist-lenet5": {"n": 77}, "cifar10-cnn8": {"seeds": [1], "methods": "sce,norm_only", "beyond": "apgd_dlr"}}
    epochs = {"mnist": 20, "cifar10": 5, "cifar10-cnn8": 2}
    profile = dataclasses.replace(profiles.load("full"), networks=less, epochs=epochs, strongest="")
    assert profile.nets == [("mnist", "lenet5"), ("cifar10", "cnn8")]
    assert (profile.seeds_of("mnist", "lenet5"), profile.seeds_of("cifar10", "cnn8")) == ([0, 1, 2], [1])
    assert profile.only("sce,isce,controls", "cifar10", "cnn8") == "sce,norm_only"
    assert profile.only("sce,isce", "mnist", "lenet5") == "sce,isce"
    assert profile.only("isce", "cifar10", "cnn8") == ""
    assert profile.common_attacks("cifar10", "cnn8")[-1] == "apgd_dlr"
    assert "fab" in profile.common_attacks("mnist", "lenet5")
    assert profile.spec("cifar10", "cnn8", "sce").epochs == 2
    pairs = [profile.evaluation(*net, "sce", a).n for net in profile.nets for a in ("clean", "apgd_dlr")]
    assert pairs == [10_000, 77, 10_000, profile.n]
    assert (profile.epochs_of("cifar10", "resnet32"), profile.epochs_of("digits", "lenet5")) == (5, None)


def test_costly_attacks_take_fewer_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = dataclasses.replace(profiles.load("full"), fewer={"fab": 30, "simba": 20_000})
    assert [profile.evaluation("mnist", "lenet5", "sce", a).n for a in ("fab", "simba", "clean")] == [
        30,
        10_000,
        10_000,
    ]
    less = dataclasses.replace(profile, networks={"mnist-lenet5": {"n": 20}})
    assert less.evaluation("mnist", "lenet5", "sce", "fab").n == 20
    text = (record.config_dir() / "full.yaml").read_text()
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    (tmp_path / "config").mkdir()
    for wrong, says in (("fabb: 9", "fabb"), ("fab: 0", "fewer in x.yaml must give fab a whole number")):
        (tmp_path / "config" / "x.yaml").write_text(text.replace("fab: 1000", wrong))
        profiles.load.cache_clear()
        with pytest.raises(ValueError, match=says):
            profiles.load("x")


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_covers_its_tables(name: str) -> None:
    profile = profiles.load(name)
    assert set(METHODS) <= set(profile.methods)
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
    assert full.eps == {"mnist": [1.0, 2.0], "cifar10": [0.25, 0.5]}  # ours: the paper's are lost
    assert full.simba_steps == {"mnist": [0.2, 0.4], "cifar10": [0.1, 0.2]}
    assert not full.is_stand_in
    assert profiles.load("digits").is_stand_in


def test_the_ablation_may_have_its_own_epochs() -> None:
    profile = profiles.load("digits")
    plain = profile.ablation_spec("mnist", "lenet5", seed=1, s=1.5)
    assert plain == profile.spec("mnist", "lenet5", "isce", 1, options={"s": 1.5})
    assert profile.ablation_spec("mnist", "lenet5", "sce") == profile.spec("mnist", "lenet5", "sce")
    own = dataclasses.replace(profile, figures=profile.figures | {"ablation_epochs": {"digits": 3}})
    assert own.ablation_spec("cifar10", "cnn8", s=1.5).epochs == 3
    assert own.spec("cifar10", "cnn8", "isce").epochs == 15  # no other training
    other = dataclasses.replace(profile, figures=profile.figures | {"ablation_epochs": {"mnist": 3}})
    assert other.ablation_spec("mnist", "lenet5", seed=1, s=1.5) == plain


def test_figure_4_has_the_profile_s_networks_and_may_have_its_own_epochs() -> None:
    digits, full = profiles.load("digits"), profiles.load("full")
    assert [digits.embedding(block, "isce").spec.backbone for block in ("mnist", "cifar10")] == ["lenet5", "cnn8"]
    assert digits.embedding("mnist", "isce").spec.epochs == 30  # where the tables' networks have 15
    spec = full.embedding("cifar10", "sce", 1).spec
    assert spec == full.spec("cifar10", "resnet32", "sce", 1, embedding_dim=3)
    assert full.embedding("cifar10", "sce", backbone="cnn8").spec.backbone == "cnn8"
    assert full.embedding("mnist", "isce").n == 10_000
    assert digits.embedding("mnist", "isce").levels == (0.5, 1.0)


def test_bad_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (record.config_dir() / "digits.yaml").read_text()
    with pytest.raises(ValueError, match="unknown profile 'digit'.*digits"):
        profiles.load("digit")
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"no profiles in .*config: set ISCE_HOME to a checkout"):
        profiles.load("digit")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text("title: mine\nseed: 1\n")
    with pytest.raises(ValueError, match=r"mine\.yaml must hold just the keys .*seed"):
        profiles.load("mine")

    (tmp_path / "config" / "mine.yaml").write_text(
        text.replace("ablation_n: 100", "ablation_n: 100, ablation_epochs: {digit: 3}")
    )
    with pytest.raises(ValueError, match=r"unknown data set of ablation_epochs in mine\.yaml 'digit'"):
        profiles.load("mine")
    (tmp_path / "config" / "mine.yaml").write_text(text.replace("networks: {}", "networks: {mnist-lenet5: {}}"))
    assert profiles.load.__wrapped__("mine").nets == [("mnist", "lenet5")]
    for old, new, says in (
        ("epochs: {digits:", "epochs: {digit:", r"unknown key of epochs in mine\.yaml 'digit'"),
        ("stand_in: {mnist: digits", "stand_in: {mnist: digit", r"unknown data set of stand_in in mine\.yaml 'digit'"),
        ("networks: {}", "networks: {mnist-lenet5: }", r"networks in mine\.yaml: mnist-lenet5 must say"),
        ("networks: {}", "networks: [}", r"mine\.yaml is no YAML: "),
    ):
        assert old in text
        (tmp_path / "config" / "mine.yaml").write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=says) as caught:
            profiles.load("mine")
        assert "\n" not in str(caught.value)
    (tmp_path / "config" / "mine.yaml").write_text(
        text.replace("embedding: {mnist: lenet5", "embedding: {mnist: lenet")
    )
    with pytest.raises(
        ValueError, match=r"unknown backbone of embedding in mine\.yaml 'lenet' \(did you mean 'lenet5'"
    ):
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


def right(count: int, n: int = 100, first: int = 0) -> np.ndarray:
    """Outcomes of n images, right from image `first` on, `count` of them."""
    bits = np.zeros(n, dtype=bool)
    bits[first : first + count] = True
    return bits


@pytest.mark.parametrize(
    ("counts", "marks"),
    [
        ({"a": 60, "b": 20, "c": 20}, {"a": "best"}),
        ({"a": 60, "b": 58, "c": 20}, {"a": "tied", "b": "tied"}),
        ({"a": 60, "b": 60, "c": 20}, {"a": "tied", "b": "tied"}),
        ({"a": 20, "b": 60, "c": 54}, {"b": "best"}),  # 6 to 0, p = 0.031, times 1: of two, the other is rejected first
        ({"a": 20, "b": 60, "c": 54, "d": 54}, {"b": "tied", "c": "tied", "d": "tied"}),  # p = 0.031, times 2
        ({"a": 60, "b": 59, "c": 58}, {}),  # nobody can be told apart
        ({"a": 0, "b": 0, "c": 0}, {}),
    ],
)
def test_best_needs_a_paired_test(counts: dict[str, int], marks: dict[str, str]) -> None:
    assert tables.best({name: {0: right(count)} for name, count in counts.items()}) == marks


def test_best_needs_a_record_of_every_method() -> None:
    assert tables.best({"a": {0: right(60)}, "b": {0: right(20)}, "c": {}}) == {}


def test_sign_flip_is_mcnemar_for_one_seed_and_exact_for_several() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(500) < 0.6, rng.random(500) < 0.5
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert tables.sign_flip(a.astype(int) - b) == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    for differences in (np.array([3, -1, 2, 2, 0, 1, 3, -2]), np.array([0, 0]), np.array([4])):
        signs = np.array(list(itertools.product([1, -1], repeat=len(differences))))
        as_far = np.abs(signs @ differences) >= abs(differences.sum())
        assert tables.sign_flip(differences) == pytest.approx(as_far.mean())


def test_the_paired_test_counts_an_image_once_and_knows_its_direction() -> None:
    high, low = {seed: right(54) for seed in range(3)}, {seed: right(50) for seed in range(3)}
    assert tables.p_below(high, low) == pytest.approx(2 / 2**4)  # 4 images to 0; pooled over seeds it would be 12 to 0
    assert tables.p_below({0: right(54)}, {0: right(50)}) == pytest.approx(2 / 2**4)
    assert tables.p_below(low, high) == 1.0
    assert tables.p_below({0: right(54)}, {}) == tables.p_below({}, {0: right(54)}) == 1.0
    assert tables.p_below({0: right(54)}, {1: right(0)}) == 1.0  # no seed in common
    assert tables.p_below({0: right(54), 1: right(0)}, {0: right(50)}) == pytest.approx(2 / 2**4)


def test_a_method_is_above_another_where_it_is_with_every_seed() -> None:
    below = {0: right(50), 1: right(10), 2: right(10)}
    assert tables.p_below({0: right(60), 1: right(20), 2: right(11)}, below) < 0.01
    assert (
        tables.p_below({0: right(60), 1: right(60), 2: right(10)}, below) == 1.0
    )  # a fourth training might as well lose


def test_the_same_images_are_compared() -> None:
    """60 against 50 of the same images is significant; of others it is not: the test is paired."""
    assert tables.best({"a": {0: right(60)}, "b": {0: right(50)}}) == {"a": "best"}
    assert tables.best({"a": {0: right(60)}, "b": {0: right(50, first=50)}, "c": {0: right(1)}}) == {
        "a": "tied",
        "b": "tied",
    }


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
    assert tables.worst_outcomes(digits, "mnist", "lenet5", "isce", 1.0) == {}  # attacks of the profile have no record
    steps = {"simba_steps": digits.eps, "strongest": "simba"}
    two = dataclasses.replace(digits, tables=[7], beyond="pgd_un_50", adaptive={}, **steps)
    fake(two, "isce", {0: [True] * 10 + [False] * 10}, "deepfool_10")
    worst = tables.worst_outcomes(two, "mnist", "lenet5", "isce", 1.0)
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
    assert tables.worst_outcomes(profile, "mnist", "lenet5", "isce", 1.0) == {}
    fake(profile, "isce", {seed: [False] * 10 for seed in (0, 1)}, strongest)
    right = tables.worst_outcomes(profile, "mnist", "lenet5", "isce", 1.0)
    assert {seed: bits.tolist() for seed, bits in right.items()} == {0: [False] * 10, 1: [False] * 10}


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
    assert [len(right[0]) for right in tables.nested(found)] == [15, 15]
    met = tables.met(digits, "mnist", "lenet5", "isce", digits.eps["mnist"][1])
    assert len(tables.survivors(met, tables.met_by(digits, met))[0]) == 15


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


def test_publish_takes_nothing_away_whose_successor_is_not_there(
    digits: Profile, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record made in passing may go while it is being copied; what of it is copied, nobody takes away."""
    whole = digits.evaluation("mnist", "lenet5", "isce", "deepfool_10")
    load_or_evaluate(dataclasses.replace(whole, n=15), "cpu", False)
    publish.publish("digits")
    done = load_or_evaluate(whole, "cpu", False)
    record.write_json(whole.path, done | {"passing": True})
    with monkeypatch.context() as patch:
        patch.setattr(publish, "would_be_torn", lambda *_: whole.path.unlink() or set())
        publish.publish("digits")
    (there,) = published.rglob("deepfool_10-*.json")
    assert json.loads(there.read_text())["n"] == 15
    record.write_json(whole.path, done | {"passing": True})
    publish.publish("digits")
    (there,) = published.rglob("deepfool_10-*.json")
    assert json.loads(there.read_text()) == done


def test_publish_leaves_what_another_profile_asks_for(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "results")
    few = dataclasses.replace(digits, n=15)
    monkeypatch.setattr(publish, "load", lambda name: digits if name == "digits" else few)
    for name, profile in (("cpu", few), ("digits", digits)):
        load_or_evaluate(profile.evaluation("mnist", "lenet5", "isce", "deepfool_10"), "cpu", False)
        publish.publish(name)
    made = (tmp_path / "results").rglob("deepfool_10-*.json")
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
    for path in paths:
        record.write_json(path, {"schema": record.SCHEMA, "n": 1, "run_id": path.stem})
    assert sorted(publish.publish("digits")) == sorted(str(p.relative_to(record.runs_dir())) for p in paths)


def test_standing_counts_records_and_names_what_has_none(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "none")
    parts, everything = digits.parts(), "everything, the training too"
    counts, gaps = publish.standing(digits)
    assert [*counts["what"]] == [*parts]
    assert {cell.split(" of ")[0] for cell in counts["attacks with a record"]} == {"0"}
    assert {*gaps["without a record"]} == {everything}
    assert {(e.spec.dataset, e.spec.backbone) for e in parts["cifar10/cnn8"]} == {("digits", "cnn8")}

    asked = digits.evaluation("mnist", "lenet5", "sce", "pgd_un_50")
    load_or_evaluate(dataclasses.replace(asked, n=15), "cpu", progress=False)
    counts, gaps = publish.standing(digits)
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
    again = publish.standing(digits)[0].set_index("what").loc["mnist/lenet5"]
    assert again["of them on all images asked for"] == 1


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
    there = publish.committed(wanted.path)
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
    monkeypatch.setattr(publish, "load", lambda _: digits)
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "results")
    load_or_evaluate(digits.evaluation("mnist", "lenet5", "isce", "deepfool_10"), "cpu", progress=False)
    publish.publish("digits")
    load_or_evaluate(digits.evaluation("mnist", "lenet5", "isce", "pgd_un_50"), "cpu", progress=False)
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path / "none"))  # as `make results` does
    publish.write("digits")
    words = (tmp_path / "results" / "digits.md").read_text()
    assert "Table 7" in words
    assert "Table 5" not in words
    printed = sorted(p.name for p in (tmp_path / "results" / "digits").iterdir())
    assert printed == ["table7.html", "table7.tex"]


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


def test_the_document_lists_the_checks_that_failed(
    digits: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    monkeypatch.setattr(record, "results_dir", lambda: tmp_path / "none")
    assert publish.masking(digits, "mnist", "lenet5").empty
    found = [
        {"name": name, "passed": passed, "numbers": {}, "source": "C", "says": "so"}
        for name, passed in (("transfer", False), ("restarts", True), ("black box", None))
    ]
    path = digits.spec("mnist", "lenet5", "mmc").folder / "checks" / "0.json"
    record.write_json(path, {"schema": record.SCHEMA, "parameters": {"n": 9, "eps": 0.5}, "checks": found})
    (row,) = publish.masking(digits, "mnist", "lenet5").to_dict("records")
    assert row == {"method": "MMC", "n": 9, "ε": 0.5, "failed": "transfer (of 2)"}


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


@pytest.mark.parametrize("where", ["README.md", "results/README.md"])
def test_the_readmes_show_the_committed_records(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))  # results/ alone
    words = (Path(__file__).resolve().parents[1] / where).read_text()
    (again := tmp_path / "README.md").write_text(re.sub(r"\| I-SCE  .*", "| damaged", words))
    assert again.read_text() != words
    for name in NAMES:
        publish.update_readme(name, again)
    assert again.read_text() == words


@pytest.mark.parametrize("name", ["cpu", "full"])
def test_the_document_shows_the_committed_records(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    profile = profiles.load(name)
    assert (record.results_dir() / f"{name}.md").read_text() == publish.document(profile, publish.with_records(profile))


def test_a_glance_takes_each_cell_from_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISCE_RUNS", str(tmp_path))
    lines = publish.glance([("full", "cifar10", "resnet32"), ("full", "mnist", "resnet32")]).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [(attack, method) for attack, method, *_ in rows] == [
        (words if at == 0 else "", methods.get(method).label)
        for words, _, of in publish.GLANCE
        for at, method in enumerate(of)
    ]
    known: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for path in record.results_dir().glob("*-resnet32-*-seed?-*/attacks/*.json"):
        done = record.read_json(path) or {}
        asked, spec = done["evaluation"], done["evaluation"]["spec"]
        top, n = done["results"][-1], 10_000 if asked["attack"] == "clean" else 1000
        full = (spec["dataset"], spec["epochs"]) in {("cifar10", 60), ("mnist", 20)}
        if full and done["n"] == n and top["level"] in {0.0, 0.5, 2.0}:
            seeds = known.setdefault((spec["dataset"], asked["attack"], spec["method"]), [])
            seeds.append((top["accuracy"], *top["interval"]))
    keys = [(attack, method) for _, attack, of in publish.GLANCE for method in of]
    for (attack, method), row in zip(keys, rows, strict=True):
        for dataset, cell in zip(("cifar10", "mnist"), row[2:], strict=True):
            match known.get((dataset, attack, method), []):
                case []:
                    assert cell == "not run"
                case [alone]:
                    fewer = " (1 of 3 seeds)" if dataset == "mnist" else ""  # as many as its column's others have
                    assert cell == "{:.1f} [{:.1f}, {:.1f}]".format(*alone) + fewer
                case several:
                    accuracies = [accuracy for accuracy, _, _ in several]
                    assert cell.startswith(f"{statistics.mean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f} [")


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
    assert tables.worst_outcomes(digits, "mnist", "lenet5", "isce", small) == {}

    on_raw = digits.at_smaller("mnist", "lenet5", "isce", f"{strongest}@raw")
    assert on_raw == dataclasses.replace(asked, attack=f"{strongest}@raw")
    fake(dataclasses.replace(digits, eps={"mnist": [small]}), "isce", {0: [True] * 10 + [False] * 10}, on_raw.attack)
    long = tables.attacked(digits, "mnist", "lenet5", rows).set_index(["method", "column"])
    assert long.loc[("isce", f"{on_raw.attack}:smaller"), "accuracy"] == 50
    assert not long.loc[("sce", f"{on_raw.attack}:smaller"), "asked"]
    assert long.loc[("isce", "worst:0"), "accuracy"] == 50
    assert long.loc[("isce", "worst:0"), "beside"] == f"3 of {within + 2} attacks"


def test_simba_on_another_surface_is_asked_for_where_simba_is() -> None:
    full = profiles.load("full")
    for block, backbone in full.nets:
        asked = full.attacks(block, backbone, "isce")
        assert ("simba@raw" in asked) == ("simba" in asked) == (backbone == "resnet32")
    assert "simba@raw" not in full.attacks("mnist", "resnet32", "sce")  # whose outputs are its raw logits
