"""Run notebooks with their default parameters and write them back with clean outputs: `make notebooks`.

    python notebooks/refresh.py [train attack ...]      # all of them by default
    ISCE_RUNS=... python notebooks/refresh.py report    # of a copy of runs/ after `make replicate`, without runs/digits: as it is committed

What nbval compares is what is committed here, so progress bars (stderr), timings, papermill's metadata and objects' addresses are dropped.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from isce import record

FOLDER = Path(__file__).resolve().parent


def refresh(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    text = re.sub(r" at 0x[0-9a-f]+>", ">", nbformat.writes(notebook)) + "\n"
    if any(str(path) in text for path in (FOLDER.parent, Path.home(), record.runs_dir())):
        raise SystemExit(f"{path.name}: an output holds a path of this machine")
    with record.atomic(path) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as runs:
        os.environ.setdefault("ISCE_RUNS", runs)  # what lies in runs/ would come into the outputs
        for name in sys.argv[1:] or sorted(p.stem for p in FOLDER.glob("*.ipynb")):
            print(name, flush=True)
            refresh(FOLDER / f"{name}.ipynb")
