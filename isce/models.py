"""The paper's backbones and the classifier around them, on any images (N, C, H, W) with pixels in [0, 1]."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce import methods
from isce.data import DATASETS
from isce.losses import check_s_m, inference_logits
from isce.record import choose


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998): conv 6 5x5, pool, conv 16 5x5, pool, 120, 84; ReLU and max pooling.

    Smaller images are zero-padded to 32 x 32, the size it was drawn for.
    """

    dim = 84

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 120), nn.Linear(120, self.dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        dy, dx = max(32 - height, 0), max(32 - width, 0)
        x = F.pad(x, (dx // 2, dx - dx // 2, dy // 2, dy - dy // 2))
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))


class CNN8(nn.Module):
    """The paper's "8-layer neural network", which it does not describe; ours: six 3x3 convolutions (32, 32, pool, 64, 64,
    pool, 128, 128, pool) and two linear layers (256, and the head), with batch norm."""

    dim = 256

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (32, 64, 128):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(128 * (size // 8) ** 2, self.dim, bias=False), nn.BatchNorm1d(self.dim), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.convolutions(x).flatten(1))


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
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra or self.stride > 1:
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2)
            )
        return F.relu(out + x)


class ResNet32(nn.Module):
    """ResNet-32 for small images (He et al. 2016): depth 6n + 2 with n = 5, 16/32/64 channels, global average pooling."""

    dim = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
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
        return self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3))


BACKBONES = {"lenet5": "LeNet-5", "cnn8": "8-layer CNN", "resnet32": "ResNet-32"}


def build_backbone(name: str, shape: tuple[int, int, int]) -> nn.Module:
    channels, size, _ = shape
    return {"lenet5": LeNet5, "resnet32": ResNet32}[name](channels) if name != "cnn8" else CNN8(channels, size)


class RandomResizePad(nn.Module):
    """Xie et al. 2018: resize each image to a random size in [H, H + e), zero-pad at random to H + e; fresh every pass.

    e is a tenth of the size: 28 pixels become 28..30, padded to 31; 32 become 32..34, padded to 35. Nearest neighbour.
    Every image draws its own size and place, from torch's global generator.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, channels, size, _ = x.shape
        full = size + max(1, round(size / 10))
        new = torch.randint(size, full, (n, 1), device=x.device)
        for dim in (2, 3):  # rows, then columns: each output line is a line of the image, or zeros
            start = (torch.rand(n, 1, device=x.device) * (full - new + 1)).long()
            line = torch.arange(full, device=x.device) - start  # (n, full)
            source = (line * size // new).clamp(0, size - 1)
            shape = (n, 1, full, 1) if dim == 2 else (n, 1, 1, full)
            index = source.view(shape).expand(n, channels, full, x.shape[3] if dim == 2 else full)
            inside = ((line >= 0) & (line < new)).view(shape)
            x = torch.where(inside, x.gather(dim, index), 0)
        return x


class Classifier(nn.Module):
    """Pixels in [0, 1] -> features -> head -> outputs (N, K) whose argmax is the decision.

    Attributes:
        backbone: images to penultimate features. embedding: an optional linear layer to `embedding_dim` before the head.
        head: one of `isce.methods`; owns the loss. inference_input: what happens to images at inference alone (Random).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        head: methods.LinearHead,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        embedding: nn.Module | None = None,
        inference_input: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.embedding, self.head = backbone, embedding, head
        self.inference_input = inference_input
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> penultimate features (N, d), or the embedding (N, embedding_dim)."""
        if self.inference_input is not None and not self.training:
            x = self.inference_input(x)
        z = self.backbone((x - self.mean) / self.std)
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
        ValueError: s < 1 or m < 0.
    """

    def __init__(self, model: nn.Module, s: float = 1.0, m: float = 0.1) -> None:
        super().__init__()
        check_s_m(s, m)
        self.model, self.s, self.m = model, s, m

    def forward(self, x: Tensor) -> Tensor:
        f = self.model(x)
        return inference_logits(f, f.argmax(1), self.s, self.m)


def build_model(
    dataset: str, backbone: str, method: str, *, embedding_dim: int | None = None, seed: int = 0, **options: Any
) -> Classifier:
    """A fresh classifier of a backbone and a method, its weights drawn from `seed` alone.

    Args:
        dataset: digits, mnist, cifar10 (gives the images' shape). backbone: lenet5, cnn8, resnet32.
        method: one of the paper's nine, or a control. options: the method's settings, such as `s=1.2, m=0.05`.
        embedding_dim: width of a linear layer before the head (3 for Figure 4); none by default.

    Raises:
        ValueError: an unknown name or option, embedding_dim < 1, s < 1 or m < 0 for I-SCE.
    """
    info = DATASETS[choose("data set", dataset, DATASETS)]
    choose("backbone", backbone, BACKBONES)
    entry = methods.get(method)
    settings = entry.settings(dataset, options)
    if entry.adversarial:
        settings = {}  # eps and steps belong to the training
    if embedding_dim is not None and embedding_dim < 1:
        raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_backbone(backbone, info.shape)
        width: int = net.dim  # type: ignore[assignment]
        embedding = None if embedding_dim is None else nn.Linear(width, embedding_dim)
        head = entry.head(embedding_dim or width, 10, **settings)
    return Classifier(net, head, info.mean, info.std, embedding, RandomResizePad() if entry.random_input else None)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
