"""What the README says works: its code, its commands' files, its links."""

import re
from pathlib import Path
from typing import Any

from isce.models import Classifier

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_code_runs(digits_isce: Classifier) -> None:
    """As it stands there, but on the digits: MNIST need not be here."""
    (code,) = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace('"cpu"', '"digits"').replace('data.load("mnist")', 'data.load("digits")'), names)
    images, labels = names["images"], names["labels"]
    assert names["loss"].ndim == 0
    assert names["adversarial"].shape == names["closest"].shape == images.shape
    assert names["survivors"].shape == labels.shape
    assert len(names["rows"]) == 4 * len(images)


def test_links_and_named_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"`((?:isce|notebooks|config|tests)/[\w./]+)`", TEXT):
        assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
