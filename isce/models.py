"""The paper's backbones and the classifier around them, on any images (N, C, H, W) with pixels in [0, 1]."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from isce import methods
from isce.data import DATASETS
from isce.losses import check_s_m, inference_logits
from isce.record import choose


class _PixelConvolution(torch.autograd.Function):
    """conv2d whose gradient in the images goes through im2col: see `PixelConv2d`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (x, weight), p = gradients, ctx.saved_tensors, ctx.padding
        want_x, want_weight, want_bias, _ = ctx.needs_input_grad
        dx = None
        if want_x and torch.is_grad_enabled():  # create_graph: the gradient is to be differentiated again
            dx = conv2d_input(x.shape, weight, g, padding=p)
        elif want_x:
            slow, only_x = torch.ops.aten._slow_conv2d_backward.output_mask, (True, False, False)
            dx = slow(g.contiguous(), x, weight, weight.shape[2:], (1, 1), p, only_x)[0]
        dw = conv2d_weight(x, weight.shape, g, padding=p) if want_weight else None
        return dx, dw, g.sum((0, 2, 3)) if want_bias else None, None


class PixelConv2d(nn.Conv2d):
    """The convolution that sees the pixels, stride 1: an nn.Conv2d, faster where an attack wants its gradient on a CPU.

    oneDNN's gradient in an input of 1 or 3 channels is slow: for LeNet-5 and 128 MNIST images 13 ms where im2col takes
    1.2 ms, of 27 ms for the whole forward and backward pass (one thread). Training never asks for it, attacks always do.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        wanted = input.requires_grad and torch.is_grad_enabled()
        if wanted and input.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            padding = [int(p) for p in self.padding]
            out: Tensor = _PixelConvolution.apply(input, weight, bias, padding)
            return out
        return super()._conv_forward(input, weight, bias)


def normalized(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """norm(conv(x)) of a convolution without bias: in eval mode on a CPU one convolution, rounding aside the same.

    Batch norm is affine there and goes into the weights. Attacks gain: a forward and backward pass of 128 images takes 0.8
    (8-layer CNN) and 0.7 (ResNet-32) of the time in float32, 0.65 and 0.6 in adversarial training's bfloat16 (2 cores). Forward
    hooks are called, if there are any, on the two as they stand.
    """
    mean, variance = norm.running_mean, norm.running_var
    elsewhere = norm.training or x.device.type != "cpu" or conv._forward_hooks or norm._forward_hooks
    if elsewhere or mean is None or variance is None:
        normed: Tensor = norm(conv(x))
        return normed
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return conv._conv_forward(x, conv.weight * scale.view(-1, 1, 1, 1), norm.bias - mean * scale)


class _MaxPool2x2(torch.autograd.Function):
    """The first largest of each 2 x 2 window in reading order, as F.max_pool2d(x, 2): see `MaxPool2x2`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        even, odd = x[..., ::2], x[..., 1::2]
        rows = torch.maximum(even, odd)
        top, bottom = rows[..., ::2, :], rows[..., 1::2, :]
        ctx.save_for_backward((even >= odd).to(x.dtype), (top >= bottom).to(x.dtype))
        return torch.maximum(top, bottom)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (g,), (left, up) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the same, by operations that can be differentiated again
            g = torch.stack([g * up, g * (1 - up)], -2).flatten(-3, -2)
            return torch.stack([g * left, g * (1 - left)], -1).flatten(-2)
        rows = torch.empty_like(left, memory_format=torch.contiguous_format)
        torch.mul(g, up, out=rows[..., ::2, :])
        torch.sub(g, rows[..., ::2, :], out=rows[..., 1::2, :])
        dx = g.new_empty(*rows.shape[:-1], 2 * rows.shape[-1])
        torch.mul(rows, left, out=dx[..., ::2])
        torch.sub(rows, dx[..., ::2], out=dx[..., 1::2])
        return dx


class MaxPool2x2(nn.Module):
    """F.max_pool2d(x, 2), (N, C, H, W) -> (N, C, H // 2, W // 2); on a CPU by operations that use its vector unit.

    In channels_last order torch's own does. Ties go to the first in reading order, as there. For (128, 6, 28, 28) on one
    thread 0.3 ms instead of 3.1 ms, with the gradient 1.6 ms instead of 3.5 ms.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.is_contiguous():
            return F.max_pool2d(x, 2)
        x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
        if x.requires_grad and torch.is_grad_enabled():
            pooled: Tensor = _MaxPool2x2.apply(x)
            return pooled
        rows = torch.maximum(x[..., ::2], x[..., 1::2])
        return torch.maximum(rows[..., ::2, :], rows[..., 1::2, :])


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998): conv 6 5x5, pool, conv 16 5x5, pool, 120, 84; ReLU and max pooling.

    Smaller images are zero-padded to 32 x 32, the size it was drawn for.
    """

    dim = 84

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = PixelConv2d(channels, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 120), nn.Linear(120, self.dim)
        self.pool = MaxPool2x2()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        dy, dx = max(32 - height, 0), max(32 - width, 0)
        x = F.pad(x, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))
        x = F.relu(self.pool(self.conv1(x)))  # ReLU and maximum commute: fewer values to rectify
        x = F.relu(self.pool(self.conv2(x)))
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))


class CNN8(nn.Module):
    """The paper's "8-layer neural network", which it does not describe; ours: six 3x3 convolutions (32, 32, pool, 64, 64,
    pool, 128, 128, pool) and two linear layers (256, and the head), with batch norm."""

    dim = 256

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (32, 64, 128):
            first = PixelConv2d if width == 32 else nn.Conv2d
            layers += [first(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                MaxPool2x2(),
                nn.ReLU(),
            ]
            channels = width
        self.convolutions = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(128 * (size // 8) ** 2, self.dim, bias=False), nn.BatchNorm1d(self.dim), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        layers = iter(self.convolutions)
        for layer in layers:
            x = normalized(layer, next(layers), x) if isinstance(layer, nn.Conv2d) else layer(x)  # type: ignore[arg-type]
        return self.fc(x.flatten(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut (He et al. 2016, option A: stride and zero-padded channels)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = normalized(self.conv2, self.bn2, F.relu(normalized(self.conv1, self.bn1, x)))
        if self.extra or self.stride > 1:
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2)
            )
        return F.relu(out + x)


class ResNet32(nn.Module):
    """ResNet-32 for small images (He et al. 2016): depth 6n + 2 with n = 5, 16/32/64 channels, global average pooling.

    "ResNet-32 with five stages" (section 4) is read so: five blocks in each of the three stages that He et al. have."""

    dim = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = PixelConv2d(channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks, inputs = [], 16
        for outputs, stride in ((16, 1), (32, 2), (64, 2)):
            for k in range(5):
                blocks.append(BasicBlock(inputs, outputs, stride if k == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(normalized(self.conv, self.bn, x))).mean((2, 3))


BACKBONES = {"lenet5": "LeNet-5", "cnn8": "8-layer CNN", "resnet32": "ResNet-32"}


def build_backbone(name: str, shape: tuple[int, int, int]) -> nn.Module:
    """One of `BACKBONES` for square images of this (C, H, W), with weights drawn from torch's generator: (N, C, H, W) -> (N, F)."""
    channels, size, _ = shape
    return {"lenet5": LeNet5, "resnet32": ResNet32}[name](channels) if name != "cnn8" else CNN8(channels, size)


class RandomResizePad(nn.Module):
    """Xie et al. 2018: resize each image to a random size in [H, H + e), zero-pad at random to H + e; fresh every pass.

    e is a tenth of the size: 28 pixels become 28..30, padded to 31; 32 become 32..34, padded to 35. Nearest neighbour. The
    width goes with the height. Every image draws its own size and place, from torch's global generator.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, _ = x.shape
        drawn = torch.randint(height, height + max(1, round(height / 10)), (n, 1), device=x.device)
        for dim in (2, 3):  # rows, then columns: each output line is a line of the image, or zeros
            size = x.shape[dim]
            full, new = size + max(1, round(size / 10)), drawn * size // height
            start = (torch.rand(n, 1, device=x.device) * (full - new + 1)).long()
            line = torch.arange(full, device=x.device) - start  # (n, full)
            source = (line * size // new).clamp(0, size - 1)
            shape = (n, 1, full, 1) if dim == 2 else (n, 1, 1, full)
            index = source.view(shape).expand(n, channels, *((full, x.shape[3]) if dim == 2 else (x.shape[2], full)))
            inside = ((line >= 0) & (line < new)).view(shape)
            x = torch.where(inside, x.gather(dim, index), 0)
        return x


class Classifier(nn.Module):
    """Pixels in [0, 1] -> features -> head -> outputs (N, K) whose argmax is the decision.

    Attributes:
        backbone: images to penultimate features. embedding: an optional linear layer to `embedding_dim` before the head.
        head: one of `isce.methods`; owns the loss. inference_input: what happens to images at inference alone (Random).
        half_precision: the backbone computes in bfloat16, weights and head in float32; compiled: its forward pass by torch.compile,
            or None; see `computing`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: methods.Head,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        embedding: nn.Module | None = None,
        inference_input: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.embedding, self.head = backbone, embedding, head
        self.inference_input, self.half_precision = inference_input, False
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> penultimate features (N, d), or the embedding (N, embedding_dim). TypeError for integers:
        data sets hold uint8, `isce.data.to_float` converts. ValueError for images with other channels."""
        if not x.is_floating_point():
            raise TypeError(f"images must be floats in [0, 1], got {x.dtype}: give isce.data.to_float(images)")
        if x.dim() != 4 or x.shape[1] != len(self.mean):
            raise ValueError(f"images must have shape (N, {len(self.mean)}, H, W), got {tuple(x.shape)}")
        if self.inference_input is not None and not self.training:
            x = self.inference_input(x)
        x, backbone = (x - self.mean) / self.std, self.compiled or self.backbone
        if self.half_precision:
            with torch.autocast(x.device.type, torch.bfloat16):
                z = backbone(x).float()
        else:
            z = backbone(x)
        return z if self.embedding is None else self.embedding(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def raw_logits(self, x: Tensor) -> Tensor:
        """Scores (N, K) with the same argmax as the outputs, free of the output's normalisation."""
        return self.head.raw_logits(self.features(x))


class InferenceTransform(nn.Module):
    r"""The inference softmax's logits (equation 2) around any model: $s f_i + m$ at $i = \arg\max f$.

    The decision does not change for s >= 1, m >= 0 and $f_i \ge 0$ at the argmax, which holds for normalised logits unless
    all are negative. Softmax over the outputs gives $P_I$.

    Raises:
        ValueError, TypeError: s < 1, m < 0, or no numbers.
    """

    def __init__(self, model: nn.Module, s: float = 1.0, m: float = 0.1) -> None:
        super().__init__()
        check_s_m(s, m)
        self.model, self.s, self.m = model, s, m

    def forward(self, x: Tensor) -> Tensor:
        f = self.model(x)
        return inference_logits(f, f.argmax(1), self.s, self.m)


_SEEDING = Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generator of the CPU begins at `seed` inside the block and goes on after it as if nothing had been; one thread
    at a time, since all share it."""
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def build_model(
    dataset: str, backbone: str, method: str, *, embedding_dim: int | None = None, seed: int = 0, **options: Any
) -> Classifier:
    """A fresh classifier of a backbone and a method, of ten classes, on the CPU, its weights drawn from `seed` alone.

    Args:
        dataset: digits, mnist, cifar10 (gives the images' shape). backbone: lenet5, cnn8, resnet32.
        method: one of the paper's nine, or a control. options: the method's settings, such as `s=1.2, m=0.05`.
        embedding_dim: width of a linear layer before the head (3 for Figure 4); none by default.

    Raises:
        ValueError, TypeError: an unknown name or option, embedding_dim < 1, for I-SCE s < 1, m < 0 or no numbers.
    """
    info = DATASETS[choose("data set", dataset, DATASETS)]
    choose("backbone", backbone, BACKBONES)
    entry = methods.get(method)
    settings = entry.settings(dataset, options)
    if entry.adversarial:
        settings = {}  # eps and steps belong to the training
    if embedding_dim is not None and embedding_dim < 1:
        raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
    with seeded(seed):
        net = build_backbone(backbone, info.shape)
        width: int = net.dim  # type: ignore[assignment]
        embedding = None if embedding_dim is None else nn.Linear(width, embedding_dim)
        head = entry.head(embedding_dim or width, 10, **settings)
    return Classifier(net, head, info.mean, info.std, embedding, RandomResizePad() if entry.random_input else None)


def arrange(model: Classifier, half: bool = False) -> Classifier:
    """The backbone's weights, in place, in the memory order in which its convolutions are fastest: channels_last on a CPU
    and for bfloat16 on a GPU, the usual one for float32 there. LeNet-5 gains nothing from it."""
    weight = next(model.parameters())
    last = not isinstance(model.backbone, LeNet5) and (half or weight.device.type == "cpu")
    model.backbone.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    return model


@contextmanager
def computing(model: Classifier, half: bool) -> Iterator[None]:
    """The backbone in bfloat16, or not, for as long as the block lasts: however training ends, what is evaluated is float32, and as
    it is written, not `compiled`."""
    model.half_precision = half
    try:
        yield
    finally:
        model.half_precision, model.compiled = False, None


def pays_in_half(backbone: str, dataset: str, device: torch.device) -> bool:
    """Whether training is faster with the backbone in bfloat16: where the hardware multiplies it, for convolutions that
    take most of the time. LeNet-5 and 8 x 8 pixels spend it elsewhere (measured: benchmarks/training.py)."""
    if backbone == "lenet5" or DATASETS[dataset].shape[1] < 28:
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def pays_compiled(backbone: str, half: bool, device: torch.device, steps: int) -> bool:
    """Whether compiling the backbone (up to a minute) makes a training of so many steps faster: a long one of ResNet-32 in bfloat16
    on a CPU alone. There a step takes 0.8 of the time, one of adversarial training 0.7; those of the other networks, and in float32,
    gain a twentieth or nothing (2 cores). On a GPU a CUDA graph does more (`isce.train.replayed`)."""
    return half and backbone == "resnet32" and device.type == "cpu" and steps >= 2000


def count_parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
