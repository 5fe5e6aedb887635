"""Notebooks are what papermill, nbval and a reader expect of them; nbval itself runs them (`make test`)."""

import json
import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from papermill import inspect_notebook

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = [
    "attack",
    "curves",
    "figure1_inference_region",
    "figure2_label_regression",
    "figure3_ablation",
    "figure4_embedding",
    "figure5_condition",
    "gradient_masking",
    "report",
    "table",
    "theory",
    "tour",
    "train",
]


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    return [c for c in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells if c.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def test_all_are_there() -> None:
    assert sorted(p.stem for p in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
class TestNotebook:
    def test_structure(self, name: str) -> None:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.name == "python3"
        assert "papermill" not in notebook.metadata
        assert notebook.cells[0].cell_type == "markdown"
        assert notebook.cells[0].source.startswith("# ")

    def test_parameters_are_typed_commented_literals_and_checked_next(self, name: str) -> None:
        cells = code_cells(name)
        tagged = [i for i, cell in enumerate(cells) if "parameters" in tags(cell)]
        assert tagged == [0]
        parameters = inspect_notebook(str(FOLDER / f"{name}.ipynb"))  # papermill reads no `int | None`
        lines = [line for line in cells[0].source.splitlines() if line.strip()]
        assert len(parameters) == len(lines) > 0
        for line in lines:
            assert re.fullmatch(r"\w+: \w+ = .+  # .+", line), line
        assert "check_parameters(globals())" in cells[1].source

    def test_was_run_and_nbval_has_something_to_compare(self, name: str) -> None:
        cells = [c for c in code_cells(name) if c.source.strip()]
        assert all(c.execution_count is not None for c in cells), "nbval compares nothing in cells that were never run"
        compared = [c for c in cells if c.outputs and "nbval-ignore-output" not in tags(c)]
        assert len(compared) >= 2
        assert not any(o.output_type == "error" or o.get("name") == "stderr" for c in cells for o in c.outputs)

    def test_holds_no_path_of_a_machine(self, name: str) -> None:
        text = (FOLDER / f"{name}.ipynb").read_text()
        assert not re.search(r"(?<![\w.:/])/(home|root|work|Users|tmp)/", text)
        assert "site-packages" not in text


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("train", {"metod": "sce"}, "unknown parameter 'metod' (did you mean 'method'?)"),
        ("train", {"method": "isec"}, "unknown method 'isec' (did you mean 'isce'?)"),
        ("attack", {"eps": "1e-3"}, "parameter eps must be list, got"),
        ("table", {"table": 8}, "unknown table '8'"),
        ("figure5_condition", {"s_min": 0.5}, "s must be at least 1"),
        ("theory", {"attack": "pgd"}, "unknown attack 'pgd'"),
        ("curves", {"minimal": "pgd_un_50"}, "pgd_un_50 is of kind fixed"),
    ],
)
def test_bad_parameters_end_papermill_with_one_clear_line(
    name: str, given: dict[str, object], words: str, tmp_path: Path
) -> None:
    flags = [text for key, value in given.items() for text in ("-p", key, str(value))]
    done = subprocess.run(
        ["papermill", str(FOLDER / f"{name}.ipynb"), str(tmp_path / "out.ipynb"), "--no-progress-bar", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "ISCE_RUNS": str(tmp_path / "runs")},
        check=False,
    )
    assert done.returncode != 0
    assert words in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_attack_draws_attacks_on_fewer_images(tmp_path: Path) -> None:
    """As the full profile asks for: a figure for each n, and SimBA's two surfaces are two curves."""
    out = tmp_path / "out.ipynb"
    given = {
        "method": "isce",
        "attacks": "deepfool_10,deepfool_10@raw,simba,simba@raw,pgd_un_10",
        "fewer": {"deepfool_10@raw": 9, "simba@raw": 7, "pgd_un_10": 5},
        "epochs": 1,
        "n": 20,
    }
    done = subprocess.run(
        ["papermill", str(FOLDER / "attack.ipynb"), str(out), "--no-progress-bar", "-y", json.dumps(given)],
        capture_output=True,
        text=True,
        env={**os.environ, "ISCE_RUNS": str(tmp_path / "runs")},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    drawn = [
        sum("image/png" in o.get("data", {}) for o in cell.outputs)
        for cell in nbformat.read(out, as_version=4).cells
        if cell.cell_type == "code"
    ]
    assert sum(drawn) == 4
    assert sorted(drawn)[-2:] == [2, 2]  # smallest perturbations of 20 and of 9 images, queries of 20 and of 7
