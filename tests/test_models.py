"""Backbones, heads and methods: shapes, sizes, decisions that no surface changes, weights from the seed alone."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from isce import methods, models
from isce.data import DATASETS
from isce.models import (
    BACKBONES,
    Classifier,
    InferenceTransform,
    MaxPool2x2,
    PixelConv2d,
    RandomResizePad,
    build_model,
    count_parameters,
)
from isce.train import Spec

ALL = [*methods.METHODS, *methods.CONTROLS]


NETS = [(dataset, backbone, None) for dataset in DATASETS for backbone in BACKBONES]


@pytest.mark.parametrize(
    ("dataset", "backbone", "embedding_dim"), [*NETS, ("digits", "lenet5", 3), ("cifar10", "resnet32", 3)]
)
def test_every_method_on_every_backbone(dataset: str, backbone: str, embedding_dim: int | None) -> None:
    x = torch.rand(2, *DATASETS[dataset].shape)
    y = torch.tensor([0, 9])
    for method in ALL:
        model = build_model(dataset, backbone, method, embedding_dim=embedding_dim).eval()
        torch.manual_seed(0)
        outputs = model(x)
        torch.manual_seed(0)
        raw = model.raw_logits(x)
        assert outputs.shape == raw.shape == (2, 10)
        assert torch.equal(outputs.argmax(1), raw.argmax(1)), method
        z = model.features(x)
        assert z.shape == (2, embedding_dim or model.backbone.dim)
        loss = model.head.loss(z, y)
        assert loss.shape == (2,)
        assert loss.isfinite().all()
        loss.sum().backward()
        assert all(p.grad is not None for p in model.parameters()), method


def test_resnet32_has_the_published_size_and_depth() -> None:
    model = build_model("cifar10", "resnet32", "sce")
    assert count_parameters(model) == 464_154  # He et al. 2016, table 6: 0.46 M
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    assert convolutions + 1 == 6 * 5 + 2


def test_lenet5_has_the_published_size() -> None:
    assert count_parameters(build_model("mnist", "lenet5", "sce")) == 61_706


def test_cnn8_has_eight_layers() -> None:
    layers = [
        m for m in build_model("cifar10", "cnn8", "sce").modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    assert len(layers) == 8


def test_weights_come_from_the_seed_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(3)  # the caller's generator must not matter, nor be moved
        return torch.cat([p.flatten() for p in build_model("digits", "lenet5", "isce", seed=seed).parameters()])

    state = torch.get_rng_state()
    build_model("digits", "lenet5", "isce", seed=7)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_isce_outputs_are_unit_vectors_and_the_inference_transform_keeps_decisions(digits_isce: Classifier) -> None:
    from isce import data

    x = data.to_float(data.load("digits").test.images)
    f = digits_isce(x)
    torch.testing.assert_close(f.norm(dim=1), torch.ones(len(x)))
    inference = InferenceTransform(digits_isce, s=1.5, m=0.1)(x)
    assert torch.equal(inference.argmax(1), f.argmax(1))
    top = f.max(1).values
    torch.testing.assert_close(inference.max(1).values, 1.5 * top + 0.1)


def test_random_is_fresh_in_every_pass_at_inference_and_absent_in_training() -> None:
    model = build_model("mnist", "lenet5", "random")
    x = torch.rand(2, 1, 28, 28)
    assert not torch.equal(model.eval()(x), model(x))
    assert torch.equal(model.train()(x), model(x))


@pytest.mark.parametrize(("size", "full"), [(28, 31), (32, 35), (8, 9)])
def test_resize_and_pad(size: int, full: int) -> None:
    """Each image has its own size and place, and is what torch's own nearest-neighbour interpolation makes of it."""
    x = torch.rand(1, 2, size, size) + 0.5
    out = RandomResizePad()(x.expand(200, -1, -1, -1))
    assert out.shape == (200, 2, full, full)
    sizes, places = set(), set()
    for image in out:
        rows, columns = (image[0] > 0).any(1).nonzero()[:, 0], (image[0] > 0).any(0).nonzero()[:, 0]
        top, left, new = int(rows[0]), int(columns[0]), len(rows)
        expected = torch.nn.functional.interpolate(x, size=(new, new), mode="nearest")[0]
        assert torch.equal(image[:, top : top + new, left : left + new], expected)
        assert float(image.sum()) == pytest.approx(float(expected.sum()), rel=1e-5)
        sizes.add(new)
        places.add((top, left))
    assert sizes == set(range(size, full))
    assert (0, 0) in places
    assert (full - size, full - size) in places


@pytest.mark.parametrize(("shape", "full"), [((32, 64), (35, 70)), ((64, 32), (70, 35))])
def test_resize_and_pad_images_that_are_not_square(shape: tuple[int, int], full: tuple[int, int]) -> None:
    out = RandomResizePad()(torch.ones(200, 3, *shape))
    assert out.shape == (200, 3, *full)
    rows, columns = (out[:, 0].amax(dim).sum(1) for dim in (2, 1))
    assert torch.equal(columns, torch.floor(rows * shape[1] / shape[0]))  # the width goes with the height
    assert (int(rows.min()), int(rows.max())) == (shape[0], full[0] - 1)


def test_center_follows_its_update_rule() -> None:
    head = methods.CenterHead(2, 3, weight=0.01, center_lr=0.5)
    z = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 1.0]])
    head.after_step(z, torch.tensor([0, 0, 2]))
    # c_0 - 0.5 * ((0 - 2) + (0 - 4)) / (1 + 2); c_1 unseen; c_2 - 0.5 * (0 - 1) / (1 + 1)
    torch.testing.assert_close(head.centers, torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.25]]))


def by_hand(name: str, head: methods.Head, z: np.ndarray, y: int) -> float:
    """A method's loss at one feature vector, from its paper's formula, term by term."""
    state = {key: value.detach().double().numpy() for key, value in [*head.named_parameters(), *head.named_buffers()]}
    if name == "lgm":  # (1 + alpha) on the distance to the right mean, lambda on it again
        d = [0.5 * sum((z - mean) ** 2) for mean in state["means"]]
        scores = [-(1 + 0.3 * (k == y)) * d_k for k, d_k in enumerate(d)]
        return log_sum_exp(scores) - scores[y] + 0.1 * d[y]
    if name == "arcface":
        cosines = [z @ w / math.sqrt(z @ z) / math.sqrt(w @ w) for w in state["weight"]]
        scores = [30 * math.cos(math.acos(c) + 0.1 * (k == y)) for k, c in enumerate(cosines)]
        return log_sum_exp(scores) - scores[y]
    scores = state["linear.weight"] @ z + state["linear.bias"]
    if name == "mmc":
        return sum((scores - state["centers"][y]) ** 2)
    if name == "isce":
        scores = scores / math.sqrt(scores @ scores)
        scores = [1.0 * c + 0.1 if k == y else c for k, c in enumerate(scores)]
    loss = log_sum_exp(scores) - scores[y]
    if name == "label_smoothing":  # 0.9 on the label, 0.1 spread over all K classes
        return 0.9 * loss + 0.1 * sum(log_sum_exp(scores) - score for score in scores) / len(scores)
    if name == "center":
        return loss + 0.01 * 0.5 * sum((z - state["centers"][y]) ** 2)
    return loss


def log_sum_exp(scores: Sequence[float]) -> float:
    return math.log(sum(math.exp(score) for score in scores))


@pytest.mark.parametrize("name", ["sce", "label_smoothing", "center", "lgm", "arcface", "mmc", "isce"])
def test_a_heads_loss_is_its_papers_formula(name: str, generator: torch.Generator) -> None:
    method = methods.get(name)
    head = method.head(6, 4, **method.settings("cifar10", {})).double()
    z, y = torch.randn(8, 6, generator=generator, dtype=torch.float64), torch.arange(8) % 4
    if name == "center":
        head.centers.copy_(torch.randn(4, 6, generator=generator))
    expected = torch.tensor([by_hand(name, head, row.numpy(), int(label)) for row, label in zip(z, y, strict=True)])
    torch.testing.assert_close(head.loss(z, y).detach(), expected.to(z), rtol=1e-6, atol=1e-8)


def test_mmc_predicts_the_nearest_centre() -> None:
    head = methods.MaxMahalanobisHead(16, 10, norm=10.0)
    z = torch.randn(50, 16)
    distances = torch.cdist(head.linear(z), head.centers)
    torch.testing.assert_close(head(z), -(distances**2), atol=1e-3, rtol=1e-4)
    assert torch.equal(head.raw_logits(z).argmax(1), distances.argmin(1))


def test_lgm_margin_depends_on_the_data_set() -> None:
    assert methods.get("lgm").settings("mnist", {})["alpha"] == 1.0
    assert methods.get("lgm").settings("cifar10", {})["alpha"] == 0.3


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        (("digit", "lenet5", "sce"), {}, "unknown data set 'digit'.*digits"),
        (("digits", "lenet", "sce"), {}, "unknown backbone 'lenet'.*lenet5"),
        (("digits", "lenet5", "i-sce"), {}, "unknown method 'i-sce'.*isce"),
        (("digits", "lenet5", "isce"), {"margin": 1.0}, "unknown option of I-SCE 'margin'"),
        (("digits", "lenet5", "isce"), {"s": 0.5}, "s must be at least 1"),
        (("digits", "lenet5", "isce"), {"m": -0.1}, "m must be at least 0"),
        (("digits", "lenet5", "isce"), {"embedding_dim": 0}, "embedding_dim must be at least 1"),
    ],
)
def test_bad_input(args: tuple[str, str, str], options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build_model(*args, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_option_of_a_wrong_type() -> None:
    with pytest.raises(TypeError, match="option s of I-SCE must be a number"):
        build_model("digits", "lenet5", "isce", s="1.5")


def test_numpy_numbers_are_numbers() -> None:
    own, numpys = (Spec("digits", "lenet5", "isce", options={"s": s}) for s in (2.0, np.int64(2)))
    assert own == numpys


def test_parse() -> None:
    assert methods.parse("all") == list(methods.METHODS)
    assert methods.parse("isce, sce,isce") == ["isce", "sce"]
    assert methods.parse("sce,controls") == ["sce", *methods.CONTROLS]
    with pytest.raises(ValueError, match="did you mean 'arcface'"):
        methods.parse("arcfase")


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "bias"), [(1, 5, 0, True), (3, 3, 1, False), (2, 3, 0, True)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixel_convolution_is_a_convolution(
    channels: int, kernel: int, padding: int, bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    conv = PixelConv2d(channels, 6, kernel, padding=padding, bias=bias).to(dtype)
    x = torch.rand(3, channels, 11, 9, dtype=dtype, requires_grad=True)
    expected = F.conv2d(x, conv.weight, conv.bias, padding=padding)
    assert torch.equal(conv(x), expected)
    g = torch.randn_like(expected)
    leaves = [x, *conv.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(conv(x), leaves, g), torch.autograd.grad(expected, leaves, g), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(conv, (x,))
        assert torch.autograd.gradgradcheck(lambda x: conv(x) ** 2, (x,))


@pytest.mark.parametrize("backbone", ["cnn8", "resnet32"])
def test_batch_norm_goes_into_the_convolutions_in_eval_mode(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("cifar10", backbone, "sce").double()
    x = torch.rand(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # far from what they are at first
            torch.nn.init.uniform_(module.weight, -2, 2)
            torch.nn.init.normal_(module.bias)
    for _ in range(5):
        model(x)
    norms: list[str] = []
    real = torch.nn.BatchNorm2d.forward
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda self, x: norms.append("") or real(self, x))

    def passes() -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        outputs = model(leaf)
        return [outputs, *torch.autograd.grad(outputs[:, 3].sum(), [leaf, *model.parameters()])]

    model.eval()
    folded = passes()
    assert not norms
    with monkeypatch.context() as patched:
        patched.setattr(models, "normalized", lambda conv, norm, x: norm(conv(x)))
        for ours, plain in zip(folded, passes(), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
    layers = [m for m in model.backbone.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.BatchNorm2d))][:2]
    fused = torch.nn.utils.fusion.fuse_conv_bn_eval(*layers)
    torch.testing.assert_close(models.normalized(*layers, x), fused(x))

    seen: list[torch.Tensor] = []
    layers[0].register_forward_hook(lambda module, given, out: seen.append(out))
    torch.testing.assert_close(model(x), folded[0])
    assert len(seen) == 1
    norms.clear()
    model.train()(x)
    assert len(norms) == sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


def test_integers_are_no_images() -> None:
    model = build_model("digits", "lenet5", "random").eval()
    with pytest.raises(TypeError, match=r"floats in \[0, 1\], got torch.uint8: give isce.data.to_float"):
        model(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))


def test_images_of_other_channels_are_refused() -> None:
    """A grey image would be broadcast over the three means of CIFAR-10, and pass."""
    model = build_model("cifar10", "cnn8", "isce").eval()
    for shape in ((2, 1, 32, 32), (3, 32, 32)):
        with pytest.raises(ValueError, match=r"images must have shape \(N, 3, H, W\), got"):
            model(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 6, 28, 28), (2, 3, 7, 5), (1, 1, 2, 2)])
def test_pooling_is_max_pool2d_ties_included(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape).mul(2).round().requires_grad_()  # whole numbers: many ties
    expected = F.max_pool2d(x, 2)
    g = torch.randn_like(expected)
    pool = MaxPool2x2()
    assert torch.equal(pool(x), expected)
    with torch.no_grad():
        assert torch.equal(pool(x), expected)
    assert torch.equal(torch.autograd.grad(pool(x), x, g)[0], torch.autograd.grad(expected, x, g)[0])
    z = torch.randperm(24, dtype=torch.float64).view(1, 2, 3, 4).requires_grad_()  # no ties: differentiable
    assert torch.autograd.gradcheck(pool, (z,))
    assert torch.autograd.gradgradcheck(lambda z: pool(z) ** 2, (z,))


@pytest.mark.parametrize("backbone", ["cnn8", "resnet32"])
def test_layout_and_half_precision_change_a_network_by_rounding_alone(backbone: str) -> None:
    model = build_model("cifar10", backbone, "isce").eval()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = model(x).detach()
    assert models.arrange(model) is model
    weight = next(p for p in model.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), plain, atol=1e-5, rtol=1e-4)
    model.half_precision = True
    z = model.features(x)
    assert z.dtype == torch.float32
    assert not torch.equal(model(x), plain)
    torch.testing.assert_close(model(x), plain, atol=0.05, rtol=0)
    leaf = x.clone().requires_grad_()  # adversarial training asks for it
    (gradient,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    assert gradient.dtype == torch.float32
    assert bool(gradient.isfinite().all())


def test_half_precision_is_for_convolutions_on_hardware_that_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=able: able)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert models.pays_in_half("resnet32", "mnist", cpu) is able
        assert models.pays_in_half("cnn8", "cifar10", cpu) is able
        assert not models.pays_in_half("lenet5", "mnist", cpu)
        assert not models.pays_in_half("cnn8", "digits", cpu)


@pytest.mark.parametrize(
    ("method", "length"), [("isce", 1.0), ("norm_only", 1.0), ("temperature", 20.0), ("isce_temperature", 20.0)]
)
def test_outputs_have_the_length_that_the_control_says(method: str, length: float, generator: torch.Generator) -> None:
    chosen = methods.get(method)
    head = chosen.head(6, 4, **chosen.settings("mnist", {}))
    outputs = head(torch.randn(5, 6, generator=generator))
    torch.testing.assert_close(outputs.norm(dim=1), torch.full((5,), length))


@pytest.mark.parametrize(("method", "scale"), [("arcface", 30.0), ("arcface_unit", 1.0), ("arcface_isce", 1.0)])
def test_arcfaces_outputs_are_cosines_at_the_scale_that_it_says(
    method: str, scale: float, generator: torch.Generator
) -> None:
    chosen = methods.get(method)
    head, z = chosen.head(6, 4, **chosen.settings("mnist", {})), torch.randn(5, 6, generator=generator)
    cosines = F.normalize(z, dim=1) @ F.normalize(head.weight, dim=1).T  # type: ignore[arg-type, union-attr]
    torch.testing.assert_close(head(z), scale * cosines)


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_the_backbone_sees_standardised_pixels(dataset: str, generator: torch.Generator) -> None:
    info, seen = DATASETS[dataset], []
    model = build_model(dataset, "lenet5", "sce").eval()
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.rand(3, *info.shape, generator=generator)
    model(x)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    torch.testing.assert_close(seen[0], (x - mean) / std)
