import math

import pytest
import torch
from torch import Tensor, nn

from isce import embedding
from isce.methods import LinearHead
from isce.models import Classifier

CORNERS = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]])
LABELS = torch.arange(3).repeat_interleave(20)


def planar(weight: Tensor) -> Classifier:
    """Two-pixel images whose features are weight @ pixels; the larger feature is the class."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    head = LinearHead(2, 2)
    with torch.no_grad():
        backbone[1].weight.copy_(weight)
        head.linear.weight.copy_(torch.eye(2))
        head.linear.bias.zero_()
    return Classifier(backbone, head, (0.0,), (1.0,)).eval()


def cloud(spread: float) -> Tensor:
    return CORNERS[LABELS] + spread * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))


def test_tight_clusters_are_separate_and_noise_is_not() -> None:
    apart, mixed = (embedding.separation(cloud(s), LABELS, cloud(s), LABELS) for s in (1e-3, 30.0))
    assert apart["euclidean"] > 0.99
    assert apart["cosine"] > 0.99
    assert apart["nearest_mean"] == 100
    assert mixed["euclidean"] < 0.1
    assert mixed["nearest_mean"] < 70


def test_separation_does_not_depend_on_the_features_scale() -> None:
    small, large = (embedding.separation(c * cloud(1.0), LABELS, c * cloud(1.0), LABELS) for c in (1e-2, 1e2))
    assert small == pytest.approx(large, abs=1e-4)


def test_outside_counts_what_lies_off_the_clean_points() -> None:
    clean = cloud(0.1)
    assert embedding.outside(clean[::2], clean[1::2], clean[::2]) == 0  # on the training points themselves
    assert embedding.outside(clean[::2], clean[1::2], clean[1::2]) <= 100 / 30 * 2  # the rarest of the clean ones
    assert embedding.outside(clean[::2], clean[1::2], clean + 100) == 100


def test_plane_holds_the_points_and_the_heads_decisions() -> None:
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
    plane = embedding.decision_plane(planar(torch.eye(2)), points, size=41)
    left, right, bottom, top = plane["extent"]
    assert left < -1
    assert right > 1
    assert right - left == pytest.approx(top - bottom)
    x, y = torch.linspace(left, right, 41), torch.linspace(bottom, top, 41)
    clear = (x - y[:, None]).abs() > 1e-6
    assert torch.equal(torch.as_tensor(plane["decision"])[clear], (y[:, None] > x).long()[clear])


def test_stretch_of_a_linear_map_is_its_singular_values_and_leaves_the_model_alone() -> None:
    turn = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    model = planar(turn @ torch.diag(torch.tensor([4.0, 0.5])))
    axes = embedding.stretch(model, torch.rand(5, 1, 1, 2))
    torch.testing.assert_close(axes, torch.tensor([[4.0, 0.5]]).expand(5, 2))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_features_come_in_batches() -> None:
    model, images = planar(torch.eye(2)), torch.rand(7, 1, 1, 2)
    torch.testing.assert_close(embedding.features(model, images, batch_size=3), images.flatten(1))
