"""What the READMEs say works: code, commands' files, links."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isce import ISCELoss, attacks, data, evaluate, losses, models, train
from isce.models import Classifier
from isce.record import read_json

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_the_code_runs(digits_isce: Classifier) -> None:
    """As it stands there, but on the digits: MNIST need not be here."""
    code, own = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace('"cpu"', '"digits"').replace('data.load("mnist")', 'data.load("digits")'), names)
    images, labels = names["images"], names["labels"]
    assert names["loss"].ndim == 0
    assert names["adversarial"].shape == names["closest"].shape == images.shape
    assert names["survivors"].shape == labels.shape
    assert len(names["rows"]) == 4 * len(images)
    exec(own, names)
    model = names["Normalized"](torch.nn.Sequential(digits_isce.backbone, digits_isce.head.linear))
    torch.testing.assert_close(model(images).norm(dim=1), torch.ones(len(images)))
    assert len(names["evaluate"](model, names["data"].Split(images, labels), {"fgsm@raw": [1.0]})) == len(images)


RELIED_ON: dict[Callable[..., Any], str] = {
    ISCELoss: "s m normalize reduction",
    losses.isce_loss: "logits target s m normalize",
    models.build_model: "dataset backbone method embedding_dim seed",
    data.load: "name root download",
    train.load_or_train: "spec",
    evaluate.evaluate: "model data attacks",
    attacks.fgsm: "model images labels eps norm",
    attacks.pgd: "model images labels eps steps norm step_size targeted targets restarts objective generator",
    attacks.deepfool: "model images labels steps overshoot num_classes",
    attacks.simba: "model images labels queries step_size basis generator",
}


@pytest.mark.parametrize("function", RELIED_ON)
def test_arguments_that_others_name(function: Callable[..., Any]) -> None:
    """In this order, with others between or behind them."""
    named = [name for name in inspect.signature(function).parameters if name in RELIED_ON[function].split()]
    assert named == RELIED_ON[function].split()


@pytest.mark.parametrize(
    "where", ["README.md", "results/README.md", "results/benchmarks/README.md", "figures/README.md"]
)
def test_links_and_named_files_exist(where: str) -> None:
    text = (ROOT / where).read_text()
    links = re.findall(r"\]\((?!https:)([^)#]+)\)", text)
    assert links
    for target in links:
        assert ((ROOT / where).parent / target).exists(), target
    for page, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        there = ((ROOT / where).parent / page if page else ROOT / where).read_text()
        headings = re.findall(r"^#+ (.+)$", there, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], anchor
    for target in re.findall(r"`((?:isce|notebooks|config|tests)/[\w./]+)`", text):
        assert (ROOT / target).exists(), target


def test_every_figure_is_listed() -> None:
    listed = re.findall(r"\]\(([^)#]+)\)", (ROOT / "figures" / "README.md").read_text())
    there = {path.name for path in (ROOT / "figures").iterdir() if path.suffix != ".md"}
    committed = subprocess.run(["git", "ls-files", "figures"], cwd=ROOT, capture_output=True, text=True)
    if committed.returncode == 0:  # a profile that was run here draws more
        there &= {Path(line).name for line in committed.stdout.splitlines()}
    assert sorted(listed) == sorted(there)


def test_the_records_keys_are_named() -> None:
    named = set(re.findall(r"`(\w+)`", TEXT[TEXT.index("**Records.**") : TEXT.index("## If you have a model")]))
    trained = [read_json(path) for path in (ROOT / "results").glob("*/result.json")]
    attacked = [read_json(path) for path in (ROOT / "results").glob("*/attacks/*.json")]
    assert trained
    assert attacked
    assert {key for done in trained for key in [*done, *done["metrics"]]} <= named
    assert {key for done in attacked for key in [*done, *done["results"][0], *done.get("minimal", {})]} <= named


def test_the_attacks_alone_import_torch_and_numpy() -> None:
    code = "import sys, isce.attacks; print([m for m in ('scipy', 'pandas', 'sklearn', 'matplotlib', 'torchvision') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert "`isce.attacks` alone imports torch and NumPy" in TEXT


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
