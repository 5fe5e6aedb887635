"""What the README says works: its code, its commands' files, its links."""

import re
from pathlib import Path

import torch

from isce import data
from isce.models import Classifier

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_code_runs(digits_isce: Classifier) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
    split = data.subset(data.load("digits").test, 20)
    images, labels = data.to_float(split.images), split.labels
    names = {
        "model": digits_isce,
        "images": images,
        "labels": labels,
        "logits": torch.randn(4, 10),
        "target": torch.arange(4),
    }
    exec(code, names)
    assert names["loss"].ndim == 0  # type: ignore[union-attr]
    assert names["adversarial"].shape == names["closest"].shape == images.shape  # type: ignore[union-attr]
    assert names["survivors"].shape == labels.shape  # type: ignore[union-attr]


def test_links_and_named_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"`((?:isce|notebooks|config|tests)/[\w./]+)`", TEXT):
        assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
