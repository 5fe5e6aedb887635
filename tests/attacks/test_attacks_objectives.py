"""Objectives against their definitions, and free of saturation; surfaces."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isce import attacks
from isce.attacks.objectives import OBJECTIVES, resolve


@pytest.fixture
def logits():
    return torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def test_definitions_row_by_row(logits):
    labels, targets = torch.arange(50) % 6, (torch.arange(50) + 2) % 6
    for i in range(50):
        z, y, t = logits[i], int(labels[i]), int(targets[i])
        rest = [float(z[j]) for j in range(6) if j != y]
        top = sorted(z.tolist(), reverse=True)
        expected = {
            "ce": float(-(1 / (1 / z.softmax(0)[y] - 1)).log()),
            "margin": max(rest) - float(z[y]),
            "dlr": (max(rest) - float(z[y])) / (top[0] - top[2]),
            "mmc": -float(z[y]),
            "ce_targeted": float((1 / (1 / z.softmax(0)[t] - 1)).log()),
            "margin_targeted": float(z[t]) - max(float(z[j]) for j in range(6) if j != t),
            "dlr_targeted": float(z[t] - z[y]) / (top[0] - (top[2] + top[3]) / 2),
            "mmc_targeted": float(z[t]),
        }
        assert set(expected) == set(OBJECTIVES)
        for name, value in expected.items():
            row = slice(i, i + 1)
            got = OBJECTIVES[name](logits[row], labels[row], targets[row])
            assert got.item() == pytest.approx(value, rel=1e-9), name


def test_ce_is_cross_entropy_in_order_and_direction(logits):
    labels = torch.arange(50) % 6
    torch.testing.assert_close(
        F.softplus(OBJECTIVES["ce"](logits, labels, None)), F.cross_entropy(logits, labels, reduction="none")
    )
    logits.requires_grad_()
    (ours,) = torch.autograd.grad(OBJECTIVES["ce"](logits, labels, None).sum(), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), logits)
    torch.testing.assert_close(F.normalize(ours, dim=1), F.normalize(plain, dim=1))


@pytest.mark.parametrize(("objective", "tied"), [("dlr", 3), ("dlr_targeted", 4)])
def test_a_dlr_of_tied_logits_has_a_finite_gradient(objective, tied):
    """One over the least float32 would overflow in it: that image would come back as it was, and count as robust."""
    logits = torch.tensor([[2.0] * tied + [1.0] * 6]).requires_grad_()
    OBJECTIVES[objective](logits, torch.tensor([0]), torch.tensor([1])).sum().backward()
    assert logits.grad.isfinite().all()


def test_no_saturation():
    """Where p(y) is exactly 1 in float32, cross-entropy has no gradient; its log-odds have."""
    z = torch.tensor([[200.0, 0.0, 1.0]], requires_grad=True)
    y = torch.tensor([0])
    assert z.softmax(1)[0, 0] == 1
    (plain,) = torch.autograd.grad(F.cross_entropy(z, y), z)
    assert plain.abs().max() < 1e-40
    (ours,) = torch.autograd.grad(OBJECTIVES["ce"](z, y, None).sum(), z)
    torch.testing.assert_close(ours, torch.tensor([[-1.0, 0.2689, 0.7311]]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd", "simba"])
def test_attacks_do_not_depend_on_the_scale_of_logits(attack):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 4))
        x = torch.rand(30, 1, 6, 6)
    y = model(x).argmax(1)
    huge = attacks.Rescaled(model, 1e5)
    assert (huge(x).softmax(1).gather(1, y[:, None]) == 1).float().mean() > 0.9
    options = {"queries": 300} if attack == "simba" else {"eps": 0.5, "norm": "l2"}
    if attack in ("pgd", "apgd"):
        options |= {"objective": "ce", "steps": 20}
    right = [(m(getattr(attacks, attack)(m, x, y, **options)).argmax(1) == y).sum() for m in (model, huge)]
    assert right[1] <= right[0] + 3
    assert right[1] < 15


def test_resolve():
    assert resolve("margin", targeted=True) is OBJECTIVES["margin_targeted"]
    assert resolve("ce_targeted", targeted=True) is OBJECTIVES["ce_targeted"]
    own = lambda logits, labels, targets: logits[:, 0]  # noqa: E731
    z = torch.tensor([[3.0, 1.0], [2.0, 5.0]])
    assert resolve(own, targeted=False)(z, torch.tensor([0, 1]), None).tolist() == [3.0, 2.0]
    for name, k in (("dlr", 2), ("dlr_targeted", 3)):
        with pytest.raises(ValueError, match=r"use .*margin"):
            OBJECTIVES[name](torch.zeros(1, k), torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(ValueError, match="targeted=True"):
        OBJECTIVES["ce_targeted"](torch.zeros(1, 3), torch.tensor([0]), None)


def test_surfaces():
    class Head(nn.Module):
        def raw_logits(self, x):
            return 7 * x

        def forward(self, x):
            return F.normalize(self.raw_logits(x), dim=1)

    x = torch.rand(5, 4)
    assert torch.equal(attacks.RawLogits(Head())(x), 7 * x)
    assert torch.equal(attacks.Rescaled(Head(), 3.0)(x), Head()(x) * 3)
    with pytest.raises(TypeError, match="raw_logits"):
        attacks.RawLogits(nn.Identity())
    with pytest.raises(ValueError, match="scale"):
        attacks.Rescaled(Head(), 0)

    with pytest.raises(ValueError, match="samples"):
        attacks.Expectation(nn.Identity(), 0)

    class Flip(nn.Module):
        """Swaps its logits on every other call."""

        on = False

        def forward(self, x):
            self.on = not self.on
            return x.flip(1) if self.on else x

    mean = attacks.Expectation(Flip(), 4)(x).exp()
    torch.testing.assert_close(mean, (x.softmax(1) + x.flip(1).softmax(1)) / 2)
