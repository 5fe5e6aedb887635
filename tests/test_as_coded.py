"""Arm A's attacks on models whose answer is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from isce import as_coded, attacks, evaluate
from isce.train import Spec


class Slope(nn.Module):
    """Logits (f, 0), f = w . (x - 0.5) + 0.2: class 0 at x = 0.5; `steepness` is the norm of w on the [-1, 1] scale."""

    def __init__(self, steepness: float) -> None:
        super().__init__()
        self.w = torch.tensor([0.6, 0.8]) * 2 * steepness  # per unit of [0, 1]

    def forward(self, x: Tensor) -> Tensor:
        f = (x.flatten(1) - 0.5) @ self.w + 0.2
        return torch.stack([f, torch.zeros_like(f)], 1)


X, Y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("eps", [0.01, 0.04])
def test_deepfool_on_a_gentle_slope_shrinks_the_margin_geometrically_and_never_crosses(steps: int, eps: float) -> None:
    model = Slope(0.3)
    moved = as_coded.deepfool(model, X, Y, eps=eps, steps=steps)
    expected = 0.2 * (1 - (1 + eps) * 0.3) ** steps
    torch.testing.assert_close(model(moved)[0, 0], torch.tensor(expected), atol=1e-6, rtol=1e-4)
    delta = (moved - X).flatten()
    torch.testing.assert_close(delta / delta.norm(), torch.tensor([-0.6, -0.8]), atol=1e-4, rtol=0)
    assert model(attacks.deepfool(model, X, Y, steps=1)).argmax(1).item() == 1  # the published step needs just one


def test_deepfool_on_a_steep_slope_goes_too_far() -> None:
    model = Slope(1.6)
    moved = as_coded.deepfool(model, X, Y, eps=0.01, steps=10)
    length = float((moved - X).norm())
    assert length == pytest.approx(1.01 * 0.2 / 2, rel=1e-4)  # |f|, whatever the gradient; one step, then it rests
    assert length / (0.2 / 3.2) == pytest.approx(1.01 * 1.6, rel=1e-4)  # so many times the distance to the boundary


def test_deepfool_depends_on_the_scale_of_the_logits_alone() -> None:
    """The same decisions: the attack fails on the model whose logits are small, and fells it scaled."""
    model = Slope(0.3)
    assert model(as_coded.deepfool(model, X, Y, eps=0.01, steps=50)).argmax(1).item() == 0
    scaled = attacks.Rescaled(model, 10.0)
    assert model(as_coded.deepfool(scaled, X, Y, eps=0.01, steps=50)).argmax(1).item() == 1


class Plane(nn.Module):
    """Three classes: class 1 lies nearer in distance, class 2 in logits."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = (x.flatten(1) - 0.5).unbind(1)
        return torch.stack([torch.zeros_like(a), 4 * a - 0.4, 0.5 * b - 0.3], 1)


def test_deepfool_goes_to_the_nearest_boundary_and_leaves_what_has_changed() -> None:
    slow = torch.tensor([0.0, 0.6]).view(1, 1, 1, 2)  # near class 2, whose slope is gentle: it moves to the last step
    images = torch.cat([X, X, slow])
    moved = as_coded.deepfool(Plane(), images, torch.tensor([0, 1, 0]), eps=0.01, steps=5)
    delta = (moved - images).flatten(1)
    assert (delta[:2, 1] == 0).all()
    torch.testing.assert_close(delta[:2, 0], torch.full((2,), 1.01 * 0.4 / 2))  # one step; the label plays no part
    torch.testing.assert_close(
        0.5 * delta[2, 1], torch.tensor(0.25 * (1 - (1 - 1.01 * 0.25) ** 5)), atol=1e-6, rtol=1e-4
    )
    flat = as_coded.deepfool(Slope(0.0), X, Y, eps=0.01, steps=2)
    assert torch.equal(flat, X)  # no gradient: it stays where it is, and is no NaN


def test_as_coded_attacks_are_selected_by_name_and_have_no_ball() -> None:
    names = evaluate.parse("as_coded_5,as_coded_50,as_coded_df_10,as_coded_df_50")
    for name in names:
        assert evaluate.default_levels(name, [1.0, 2.0], [0.2]) == as_coded.EPS
    with pytest.raises(ValueError, match="steps must be at least 1"):
        as_coded.deepfool(Plane(), X, Y, eps=0.01, steps=0)


def test_sce_is_built_beside_isce_and_nothing_else() -> None:
    both = [Spec("digits", "resnet32", method, epochs=1, arm="A") for method in ("isce", "sce")]
    ours, control = (spec.build().eval() for spec in both)
    for a, b in zip(ours.parameters(), control.parameters(), strict=True):
        assert torch.equal(a, b)  # the head alone differs
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(control(x), ours.raw_logits(x))
    assert float(ours(x).detach().max()) <= 1.0
    with pytest.raises(ValueError, match="arm A exists for isce, and sce"):
        Spec("digits", "resnet32", "mmc", arm="A")


def test_the_head_clips_the_largest_entry_alone() -> None:
    head = as_coded.Head(2, 3, s=1.5, m=0.1)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 1.0]]))
        head.linear.bias.zero_()
    outputs = head(torch.tensor([[1.0, 0.0], [-1.0, 12.0]])).detach()  # logits (3, 4, 0) and (-3, -4, 12)
    torch.testing.assert_close(outputs, torch.tensor([[0.6, 1.0, 0.0], [-3 / 13, -4 / 13, 1.0]]))  # 1.5 (0.8 + 0.1) > 1
    head.s = 1.0
    torch.testing.assert_close(head(torch.tensor([[1.0, 0.0]])).detach(), torch.tensor([[0.6, 0.9, 0.0]]))
    expected = -math.log(
        math.exp(0.6) / (math.exp(0.6) + math.exp(0.9) + 1)
    )  # the label is class 0, the change is class 1's
    assert float(head.loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).detach()) == pytest.approx(expected, abs=1e-6)


def test_images_are_standardised_one_by_one_and_batch_norm_uses_the_batch() -> None:
    model = as_coded.build("cifar10", "sce").eval()
    x = 0.2 + 0.6 * torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = model(x)
        torch.testing.assert_close(
            model(0.5 * x + 0.1), outputs, atol=1e-4, rtol=1e-3
        )  # contrast and brightness do not show
        assert not torch.allclose(
            model(x[:3]), outputs[:3], atol=1e-2
        )  # other neighbours, other statistics: in eval mode


@pytest.mark.parametrize(("name", "steps"), [("as_coded_5", 5), ("as_coded_50", 50)])
@pytest.mark.parametrize("label", [0, 1])
def test_the_scripts_pgd_climbs_from_its_own_prediction_by_half_eps_a_step(name: str, steps: int, label: int) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1]]))
    x = torch.tensor([0.9, 0.1, 0.6, 0.4]).view(1, 1, 2, 2)  # predicted as class 0, whatever the label
    found = evaluate.ATTACKS[name].run(net, x, torch.tensor([label]), eps=0.02)
    downhill = torch.tensor([-1.0, 1, -1, 1]).view_as(x)
    torch.testing.assert_close(found, (x + steps * 0.01 * downhill).clamp(0, 1))


@pytest.mark.parametrize("steps", [10, 50])
def test_the_scripts_deepfool_is_run_for_the_iterations_of_its_name(steps: int) -> None:
    model = Slope(0.3)
    found = evaluate.ATTACKS[f"as_coded_df_{steps}"].run(model, X, Y, eps=0.01)
    torch.testing.assert_close(found, as_coded.deepfool(model, X, Y, eps=0.01, steps=steps))
    assert not torch.equal(found, as_coded.deepfool(model, X, Y, eps=0.01, steps=20))


def test_the_pixel_mean_is_taken_off(generator: torch.Generator) -> None:
    one, other = (as_coded.build("digits", "sce").backbone.eval() for _ in range(2))
    mean, x = torch.rand(1, 8, 8, generator=generator), torch.rand(4, 1, 8, 8, generator=generator)
    one.pixel_mean.copy_(mean)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(one(x), other(x - mean))
    assert not torch.allclose(one(x), other(x), atol=1e-3)


def test_the_scripts_optimiser_and_its_schedule() -> None:
    sgd, schedule = as_coded.optimizer(nn.Linear(2, 2), 8)
    group, rates = sgd.param_groups[0], []
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0)
    for _ in range(8):
        rates.append(group["lr"])
        sgd.step()
        schedule.step()
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)
