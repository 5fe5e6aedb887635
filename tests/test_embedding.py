import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from isce import data, embedding, losses, train
from isce.evaluate import predict
from isce.evaluations import Evaluation
from isce.methods import LinearHead
from isce.models import Classifier
from isce.train import Spec

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


def test_the_nearest_mean_is_that_of_training_points() -> None:
    train, labels = torch.tensor([[0.0, 0], [1, 1], [10, 0], [11, 1]]), torch.tensor([0, 0, 1, 1])
    mirrored = 10.5 - train
    assert embedding.separation(mirrored, labels, train, labels)["nearest_mean"] == 0
    assert embedding.separation(mirrored, 1 - labels, train, labels)["nearest_mean"] == 100


def test_separation_does_not_depend_on_the_features_scale() -> None:
    small, large = (embedding.separation(c * cloud(1.0), LABELS, c * cloud(1.0), LABELS) for c in (1e-2, 1e2))
    assert small == pytest.approx(large, abs=1e-4)


def test_figure_4_can_be_drawn_from_its_record_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec("digits", "lenet5", "sce", epochs=2, embedding_dim=3)
    search = Evaluation(spec, "deepfool_50@raw", (0.5,), 60)
    assert embedding.find_clouds(search) is None
    made = embedding.load_or_embed(search, "cpu")
    model, test = train.load_or_train(spec, "cpu"), data.subset(data.load("digits").test, 60)
    z = embedding.features(model, data.to_float(test.images))
    with monkeypatch.context() as patch:
        patch.setattr(train, "load_or_train", lambda *_: pytest.fail("the record is there"))
        found = embedding.load_or_embed(search, "cpu")
    assert made.items() <= found.items()
    cloud = embedding.cloud_of(found)
    assert (cloud["points"] == z.numpy()).all()
    assert (cloud["labels"] == test.labels.numpy()).all()
    assert [len(part) for part in embedding.cloud_of(found, 7).values()] == [7, 7]
    right = predict(model, data.to_float(test.images)) == test.labels
    worst = min(100 * right[test.labels == c].double().mean().item() for c in test.labels.unique())
    assert found["worst_class"] == pytest.approx(worst)
    assert found["median_norm"] == pytest.approx(z.norm(dim=1).median().item())
    assert embedding.find_clouds(dataclasses.replace(search, n=50)) is None


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


def test_what_an_attack_does_to_the_features_of_a_linear_map() -> None:
    """Two pixels whose larger one is the class: the attack goes straight towards the other, and every image of a class the same way."""
    pixels = torch.tensor([[200, 50], [60, 180], [250, 10], [90, 120]], dtype=torch.uint8).view(4, 1, 1, 2)
    split = data.Split(pixels, torch.tensor([0, 1, 0, 1]))
    panel, measured = embedding.inference_region(planar(torch.eye(2)), split, split, eps=0.1)
    clean = pixels.flatten(1) / 255
    torch.testing.assert_close(panel["clean"], clean)
    away = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])[split.labels] / math.sqrt(2)
    free = (clean - 0.5).abs().amax(1) < 0.4  # not stopped by black or white
    moved = (panel["adversarial"] - clean)[free]
    torch.testing.assert_close(moved.norm(dim=1), torch.full((3,), 0.1), atol=1e-5, rtol=0)
    along = (moved * away[free]).sum(1)
    assert bool((along > 0.98 * 0.1).all())  # 50 steps leave little of a random start beside the way
    assert panel["absent"] == []
    assert panel["wrong"].tolist() == [[False] * 4, [False, False, False, True]]
    assert measured["under attack, %"] == 75.0
    assert measured["moved inwards, %"] == 100.0
    assert measured["one-sidedness"] == pytest.approx(1, abs=0.05)
    assert measured["axes of the ellipse, ratio"] == pytest.approx(1)
    assert measured["shift, adversarial / random"] == pytest.approx(1, abs=1e-3)


def test_stretch_of_a_linear_map_is_its_singular_values_and_leaves_the_model_alone() -> None:
    turn = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    model = planar(turn @ torch.diag(torch.tensor([4.0, 0.5])))
    axes = embedding.stretch(model, torch.rand(5, 1, 1, 2))
    torch.testing.assert_close(axes, torch.tensor([[4.0, 0.5]]).expand(5, 2))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_pull_of_a_known_loss() -> None:
    x = torch.tensor([[3.0, 4.0], [-1.0, 0.0]], dtype=torch.float64)
    down = embedding.downhill(lambda x: x[:, 0], x)
    torch.testing.assert_close(down, torch.tensor([[-1.0, 0.0]]).double().expand(2, 2))
    found = embedding.pull(lambda x: x[:, 0], lambda x: x.square().sum(1), x)
    assert found["at"].tolist() == [25, 1]
    assert found["rate"].tolist() == [-6, 2]  # towards smaller x: nearer to the origin, or away from it
    assert found["radial"].tolist() == pytest.approx([0.6, 1])
    assert not any(value.requires_grad for value in found.values())


def test_pull_of_a_normalised_loss_is_never_along_the_sample() -> None:
    x = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(30) % 3
    found = embedding.pull(lambda x: losses.isce_loss(x, y), lambda x: x[:, 0], x)
    assert found["radial"].max() < 1e-12
    assert embedding.pull(lambda x: losses.softmax_cross_entropy(x, y), lambda x: x[:, 0], x)["radial"].max() > 0.1


def test_sides() -> None:
    turn = torch.linspace(0, 2 * math.pi, 41)[:-1]
    ring = torch.stack([turn.cos(), turn.sin()], 1)
    line = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(20, 1)
    y = torch.zeros(40, dtype=torch.int64)
    assert embedding.sides(line.abs(), y) == pytest.approx((1, 1))  # one side
    assert embedding.sides(line, y) == pytest.approx((0, 1))  # both
    assert embedding.sides(ring, y) == pytest.approx((0, 0.5), abs=1e-6)  # all
    assert embedding.sides(torch.cat([line, line.abs()]), torch.cat([y, y + 1])) == pytest.approx((0.5, 1))


def test_norms_in_training_start_at_the_factor_and_i_sce_keeps_it() -> None:
    spec = Spec("digits", "lenet5", "isce", epochs=2)
    once, larger = (embedding.norms_in_training(spec, torch.device("cpu"), a, progress=False) for a in (1.0, 10.0))
    assert once.shape == (2,)
    assert bool((larger > 5 * once).all())
    assert not spec.folder.exists()
    with pytest.raises(ValueError, match="the output layer of mmc is not linear"):
        embedding.norms_in_training(Spec("digits", "lenet5", "mmc", epochs=1), torch.device("cpu"))


def test_features_come_in_batches() -> None:
    model, images = planar(torch.eye(2)), torch.rand(7, 1, 1, 2)
    torch.testing.assert_close(embedding.features(model, images, batch_size=3), images.flatten(1))


def test_logits_that_only_grow_move_along_themselves(digits_isce: Classifier) -> None:
    class Linear(torch.nn.Module):
        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.weight = weight

        def raw_logits(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.weight.T

    x, y = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    one_way = torch.tensor([2.0, -1.0, 0.5])[:, None] * torch.tensor(
        [1.0, 2.0, 3.0, 4.0]
    )  # logits (2, -1, 1/2) times a number
    torch.testing.assert_close(embedding.radial_share(Linear(one_way), x, y), torch.ones(6))  # type: ignore[arg-type]
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    for image, label, found in zip(x, y, embedding.radial_share(Linear(weight), x, y), strict=True):  # type: ignore[arg-type]
        z = weight @ image.flatten()
        other = max({0, 1, 2} - {int(label)}, key=lambda k: float(z[k]))
        moved = weight @ (weight[other] - weight[label])
        assert float(found) == pytest.approx(abs(float(z @ moved / z.norm() / moved.norm())), abs=1e-5)
    split = data.load("digits").test
    shares = embedding.radial_share(digits_isce, data.to_float(split.images[:20]), split.labels[:20])
    assert shares.shape == (20,)
    assert bool(((shares >= 0) & (shares <= 1 + 1e-6)).all())
    assert all(parameter.grad is None for parameter in digits_isce.parameters())
