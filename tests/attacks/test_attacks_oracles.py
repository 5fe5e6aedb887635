"""Agreement with attacks that no one here wrote, on six small trained models. Peers are development dependencies."""

import contextlib
import importlib
import io
import sys
import types
import warnings
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from isce import attacks
from isce.attacks.norms import norm_of

HEADS = ["sce", "isce", "smoothing", "mmc", "arcface", "at"]
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]


def peer(name: str) -> types.ModuleType:
    """The module, or a skip. adv-lib wants visdom, and distutils, which Python 3.12 lacks: stubs will do."""
    if name.startswith("adv_lib"):
        for stub, contents in (("visdom", ["Visdom"]), ("distutils.version", ["LooseVersion"])):
            try:
                importlib.import_module(stub)
            except ImportError:
                module = types.ModuleType(stub)
                for content in contents:
                    setattr(module, content, str)
                sys.modules[stub] = module
                if "." in stub:
                    sys.modules.setdefault(stub.split(".")[0], types.ModuleType(stub.split(".")[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


@pytest.fixture(params=HEADS)
def head(request):
    return request.param


@pytest.fixture
def setting(head, trained, digits):
    """(model, 200 test images, labels, l2 radius at which about half of the images fall)."""
    model, x, y = trained(head), digits[2][:200], digits[3][:200]
    return model, x, y, 0.9 if head == "at" else 0.7


def right(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Accuracy in %."""
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item() * 100


def median_norm(model: nn.Module, out: torch.Tensor, x: torch.Tensor, y: torch.Tensor, norm: str = "l2") -> float:
    """Over all images that are right to begin with; where the attack failed, infinite."""
    return norms(model, out, x, y, norm).median().item()


def norms(model: nn.Module, out: torch.Tensor, x: torch.Tensor, y: torch.Tensor, norm: str) -> torch.Tensor:
    """Of the images that are right to begin with; where the attack failed, infinite."""
    with torch.no_grad():
        clean, failed = model(x).argmax(1) == y, model(out).argmax(1) == y
    return torch.where(failed, torch.inf, norm_of(out.detach() - x, norm))[clean]


def test_pgd_against_foolbox(setting, head):
    """Both from the image itself: one random start differs from the next by some points on 200 images."""
    fb = peer("foolbox")
    model, x, y, eps = setting
    for norm, radius, attack in (
        ("l2", eps, fb.attacks.L2BasicIterativeAttack(steps=50, rel_stepsize=0.05)),
        ("linf", eps / 8, fb.attacks.LinfBasicIterativeAttack(steps=50, rel_stepsize=0.05)),
    ):
        theirs = attack(fb.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=radius)[1]
        ours = attacks.pgd(model, x, y, eps=radius, steps=50, norm=norm, random_start=False)
        assert right(model, ours, y) < 90, "the radius must be worth a test"
        assert right(model, ours, y) <= right(model, theirs, y) + 1.0
        if head in (
            "isce",
            "smoothing",
            "at",
        ):  # the others saturate float32, where foolbox' cross-entropy stands still
            assert right(model, ours, y) >= right(model, theirs, y) - 1.0


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_against_foolbox_and_advlib(setting, norm):
    fb, adv = peer("foolbox"), peer("adv_lib.attacks")
    model, x, y, _ = setting
    surface = attacks.RawLogits(model) if model.head == "isce" else model
    attack = (fb.attacks.L2DeepFoolAttack if norm == "l2" else fb.attacks.LinfDeepFoolAttack)(steps=50)
    theirs = attack(fb.PyTorchModel(surface.eval(), bounds=(0, 1), device="cpu"), x, y, epsilons=None)[1]
    others = adv.df(surface, x, y, steps=50, norm=2 if norm == "l2" else float("inf"))
    ours = attacks.deepfool(surface, x, y, norm=norm)
    medians = [median_norm(model, out, x, y, norm) for out in (ours, theirs, others)]
    assert medians[0] <= 1.01 * min(medians[1:])
    assert medians[0] >= 0.95 * min(medians[1:]), "it is still DeepFool"


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_fab_against_advlib(setting, norm):
    adv = peer("adv_lib.attacks")
    model, x, y, _ = setting
    theirs = adv.fab(
        model, x, y, norm=2 if norm == "l2" else float("inf"), n_iter=15, targeted_restarts=True, restarts=4
    )
    ours = attacks.fab(model, x, y, norm=norm, steps=15, n_targets=4)
    ratio = norms(model, ours, x, y, norm) / norms(
        model, theirs, x, y, norm
    )  # image by image: their median is no one's
    assert ratio.nanmedian() <= 1.005
    assert (
        ratio > 1.02
    ).float().mean() <= 0.05  # 15 steps end where they happen to: elsewhere another few may be worse


@pytest.mark.parametrize("objective", ["ce", "dlr"])
def test_apgd_against_advlib(setting, objective):
    adv = peer("adv_lib.attacks")
    model, x, y, eps = setting
    ours, theirs = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        theirs.append(right(model, adv.apgd(model, x, y, eps, norm=2, n_iter=50, loss_function=objective), y))
        out = attacks.apgd(
            model, x, y, eps=eps, steps=50, objective=objective, generator=torch.Generator().manual_seed(seed)
        )
        ours.append(right(model, out, y))
    assert sum(ours) / 2 <= sum(theirs) / 2 + 3.0  # one run differs from the next by two points


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_autoattack_against_torchattacks(setting, norm):
    ta = peer("torchattacks")
    model, x, y, eps = setting
    x, y, radius = x[:100], y[:100], eps if norm == "l2" else eps / 8
    peers = ta.AutoAttack(model, norm={"l2": "L2", "linf": "Linf"}[norm], eps=radius, seed=0)
    peers._autoattack.attacks[-1].n_queries = 100
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = peers(x, y)
    # Theirs take 10 steps. With 20 of ours one image of 100 hung on the starts, on one processor; in 50 they no longer matter.
    ours = attacks.autoattack(model, x, y, eps=radius, norm=norm, steps=50, queries=100)
    assert right(model, ours, y) <= right(model, theirs, y) + 0.5


def test_square_against_torchattacks(setting):
    ta = peer("torchattacks")
    model, x, y, eps = setting
    for norm, radius in (("L2", 2 * eps), ("Linf", eps / 4)):
        theirs = ta.Square(model, norm=norm, eps=radius, n_queries=200, seed=0)(x, y)
        ours = attacks.square(model, x, y, eps=radius, norm=norm.lower(), queries=200)
        assert (
            right(model, ours, y) <= right(model, theirs, y) + 6.0
        )  # random search: two standard errors of 200 images


@pytest.mark.parametrize("head", ["sce", "isce", "mmc"], indirect=True)
def test_simba_against_art(head, trained, digits):
    """ART spends two queries on every direction."""
    peer("art")
    import numpy as np
    from art.attacks.evasion import SimBA
    from art.estimators.classification import PyTorchClassifier

    model, x, y = trained(head), digits[2][:60], digits[3][:60]
    with ExitStack() as quiet:
        quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
        np.random.seed(0)  # noqa: NPY002
        classifier = PyTorchClassifier(
            nn.Sequential(model, nn.Softmax(1)), nn.NLLLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu"
        )
        attack = SimBA(classifier, attack="px", max_iter=40, order="random", epsilon=0.3, verbose=False)
        theirs = torch.from_numpy(attack.generate(x.numpy(), np.eye(10)[y.numpy()]))
    ours = attacks.simba(model, x, y, queries=81, step_size=0.3)
    assert right(model, ours, y) <= right(model, theirs, y) + 10.0  # two standard errors of 60 images
