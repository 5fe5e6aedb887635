"""The rows of the paper's tables: one entry per method = head + training + inference; then our controls.

A head turns features (N, d) into outputs (N, K) whose argmax is the decision, and owns what its loss learns (centres,
class weights, means). To add a method: write its head, add one entry to `CONTROLS` (`METHODS` are the paper's nine). Settings that the paper does not
state are our decisions; `Method.source` says where each was read.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce import losses
from isce.record import choose


class Head(nn.Module):
    """What every head is: outputs, scores before their normalisation, the training loss, and what is learned beside it."""

    def forward(self, z: Tensor) -> Tensor:
        """Features (N, d) -> outputs (N, K)."""
        return self.raw_logits(z)

    def raw_logits(self, z: Tensor) -> Tensor:
        """Scores (N, K) with the same argmax, free of the output's normalisation."""
        raise NotImplementedError

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Features (N, d), labels (N,) -> the training loss per sample (N,)."""
        raise NotImplementedError

    def after_step(self, z: Tensor, y: Tensor) -> None:
        """What the loss learns outside the optimiser, after each step, from the step's detached features."""


class LinearHead(Head):
    """A linear output layer with a loss on its logits: SCE, label smoothing, Random, AT."""

    def __init__(
        self, dim: int, classes: int, loss: Callable[[Tensor, Tensor], Tensor] = losses.softmax_cross_entropy
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, classes)
        self._loss = loss

    def raw_logits(self, z: Tensor) -> Tensor:
        return self.linear(z)

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        return self._loss(self(z), y)


def smoothing_head(dim: int, classes: int, smoothing: float) -> LinearHead:
    return LinearHead(dim, classes, lambda f, y: losses.label_smoothing_loss(f, y, smoothing))


class CenterHead(LinearHead):
    r"""SCE + $\lambda\,\frac12\lVert z - c_y\rVert^2$; centres follow Wen et al. 2016, equation 4, at rate `center_lr`."""

    centers: Tensor

    def __init__(self, dim: int, classes: int, weight: float, center_lr: float) -> None:
        super().__init__(dim, classes)
        self.weight, self.center_lr = weight, center_lr
        self.register_buffer("centers", torch.zeros(classes, dim))

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        return super().loss(z, y) + self.weight * losses.center_distance(z, y, self.centers)

    @torch.no_grad()
    def after_step(self, z: Tensor, y: Tensor) -> None:
        one_hot = F.one_hot(y, len(self.centers)).to(z.dtype)  # (N, K)
        pull = one_hot.sum(0).unsqueeze(1) * self.centers - one_hot.T @ z
        self.centers -= self.center_lr * pull / (1 + one_hot.sum(0).unsqueeze(1))


class GaussianHead(Head):
    r"""L-GM with identity covariance: outputs $-\frac12\lVert z-\mu_k\rVert^2$, means learned by the optimiser."""

    def __init__(self, dim: int, classes: int, alpha: float, lam: float) -> None:
        super().__init__()
        self.alpha, self.lam = alpha, lam
        self.means = nn.Parameter(torch.randn(classes, dim))

    def forward(self, z: Tensor) -> Tensor:
        return losses.gaussian_logits(z, self.means)

    def raw_logits(self, z: Tensor) -> Tensor:
        r"""$z\cdot\mu_k - \frac12\lVert\mu_k\rVert^2$: the outputs without the term that all classes share."""
        return z @ self.means.T - self.means.square().sum(1) / 2

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        return losses.lgm_loss(z, y, self.means, self.alpha, self.lam)


class ArcFaceHead(Head):
    r"""Outputs $s\cos\theta_k$ between normalised features and normalised class weights, without bias."""

    def __init__(self, dim: int, classes: int, s: float, m: float) -> None:
        super().__init__()
        self.s, self.m = s, m
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.xavier_uniform_(self.weight)

    def cosine(self, z: Tensor) -> Tensor:
        return F.normalize(z) @ F.normalize(self.weight).T

    def forward(self, z: Tensor) -> Tensor:
        return losses.arcface_logits(self.cosine(z), s=self.s)

    def raw_logits(self, z: Tensor) -> Tensor:
        r"""$z \cdot w_k / \lVert w_k\rVert$: the features' norm does not change the argmax."""
        return z @ F.normalize(self.weight).T

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        return losses.softmax_cross_entropy(losses.arcface_logits(self.cosine(z), y, self.s, self.m), y)


class MaxMahalanobisHead(Head):
    r"""MMC: a linear map to fixed centres, loss $\lVert z-\mu_y\rVert^2$, outputs $-\lVert z-\mu_k\rVert^2$.

    The map is the authors' (a dense layer behind the pooling): features behind a ReLU are never negative, as half of the centres'
    entries are.
    """

    centers: Tensor

    def __init__(self, dim: int, classes: int, norm: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        centers = losses.max_mahalanobis_centers(classes, dim, norm)
        self.register_buffer("centers", centers, persistent=False)  # a constant: not of the stored state

    def forward(self, z: Tensor) -> Tensor:
        return 2 * losses.gaussian_logits(self.linear(z), self.centers)

    def raw_logits(self, z: Tensor) -> Tensor:
        r"""$z\cdot\mu_k$: all centres have the same norm, so the nearest one has the largest product."""
        return self.linear(z) @ self.centers.T

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        return 2 * losses.center_distance(self.linear(z), y, self.centers)


class ISCEHead(LinearHead):
    r"""I-SCE: outputs are the normalised logits $f = $ raw $/ \lVert$raw$\rVert$; $s f_y + m$ enters in training alone.

    Decisions need no $s, m$ (at s = 1, as everywhere in the paper's comparisons, they keep the argmax): the inference softmax of
    equation 2 is `isce.models.InferenceTransform`. `temperature` multiplies all normalised logits: a control, 1 in the paper. A negative
    m, which the paper excludes, is the subtracted margin of our controls.
    """

    def __init__(self, dim: int, classes: int, s: float, m: float, temperature: float = 1.0) -> None:
        super().__init__(dim, classes)
        self.s, self.m, self.temperature = s, m, temperature

    def forward(self, z: Tensor) -> Tensor:
        return self.temperature * losses.normalize_logits(self.raw_logits(z))

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        return losses.softmax_cross_entropy(losses.inference_logits(self(z), y, self.s, self.m), y)


@dataclass(frozen=True)
class Method:
    """A row: how its head is built, trained and used at inference.

    `options` are the head's settings and, for adversarial training, `eps` and `steps`; `by_dataset` overrides them.
    """

    label: str
    head: Callable[..., Head]
    source: str
    options: dict[str, float] = field(default_factory=dict)
    by_dataset: dict[str, dict[str, float]] = field(default_factory=dict)
    adversarial: bool = False  # trained on L2 PGD images instead of clean ones
    random_input: bool = False  # resized and padded at random in every forward pass at inference
    trained_as: str | None = None  # shares the weights of this method

    def settings(self, dataset: str, overrides: dict[str, float]) -> dict[str, float]:
        """The options for a data set, with a user's own on top.

        Raises:
            ValueError, TypeError: an option the method does not have, or a value that it cannot take, such as s < 1 or m < 0
                for I-SCE.
        """
        if not isinstance(overrides, Mapping):
            raise TypeError(f"options of {self.label} must be a dict, got {overrides!r}")
        if overrides and not self.options:
            raise ValueError(
                f"{self.label} has no options, got {', '.join(overrides)}: give them to methods that have them"
            )
        for name, value in overrides.items():
            choose(f"option of {self.label}", name, self.options)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"option {name} of {self.label} must be a number, got {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"option {name} of {self.label} must be finite, got {value!r}")
            if isinstance(self.options[name], int) and not float(value).is_integer():
                raise ValueError(f"option {name} of {self.label} must be a whole number, got {value!r}")
        settings = {**self.options, **self.by_dataset.get(dataset, {}), **overrides}
        settings = {name: type(self.options[name])(value) for name, value in settings.items()}  # 1 and 1.0 are one run
        if self.adversarial and not (settings["eps"] > 0 and settings["steps"] >= 1):
            raise ValueError(f"{self.label} needs eps > 0 and steps >= 1, got {settings}")
        if self is METHODS["isce"]:
            losses.check_s_m(settings["s"], settings["m"])
        for name, value in settings.items():
            words, holds = RANGES.get(name, ("", math.isfinite))
            if not holds(value):
                raise ValueError(f"option {name} of {self.label} must be {words}, got {value!r}")
        return settings


RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {  # of options; all are finite
    **dict.fromkeys(("s", "norm", "temperature"), ("> 0", lambda value: value > 0)),
    **dict.fromkeys(("smoothing", "center_lr"), ("in [0, 1]", lambda value: 0 <= value <= 1)),
    **dict.fromkeys(("weight", "alpha", "lam"), (">= 0", lambda value: value >= 0)),
}


METHODS: dict[str, Method] = {
    "sce": Method("SCE", LinearHead, "equation 1"),
    "label_smoothing": Method("Label smoothing", smoothing_head, "Szegedy et al. 2016", {"smoothing": 0.1}),
    "center": Method(
        "Center loss",
        CenterHead,
        "Wen et al. 2016; ydwen/caffe-face, MNIST example",
        {"weight": 0.01, "center_lr": 0.5},
    ),
    # alpha and lambda are in the authors' examples, on CIFAR that of CIFAR-100; they raise alpha during training, here it is
    # constant, and their means start smaller than ours.
    "lgm": Method(
        "L-GM",
        GaussianHead,
        "Wan et al. 2018; WeitaoVan/L-GM-loss",
        {"alpha": 1.0, "lam": 0.1},
        {"cifar10": {"alpha": 0.3}},
    ),
    # m on CIFAR-10: after 5 epochs of the 8-layer CNN 0.1 and 0.2 are level (83.36 and 83.32 % of 5,000 validation images), 0.3
    # and 0.5 train badly; longer trainings and ResNet-32 were not tuned.
    "arcface": Method(
        "ArcFace",
        ArcFaceHead,
        "Deng et al. 2019; small-data implementations; m on CIFAR-10 by validation, results/tuning",
        {"s": 30.0, "m": 0.5},
        {"cifar10": {"m": 0.1}},
    ),
    "mmc": Method("MMC", MaxMahalanobisHead, "Pang et al. 2020; P2333/Max-Mahalanobis-Training", {"norm": 10.0}),
    "random": Method("Random", LinearHead, "Xie et al. 2018; liuaishan/LAT", random_input=True, trained_as="sce"),
    "at": Method(
        "AT",
        LinearHead,
        "Madry et al. 2018; MadryLab/robustness",
        {"eps": 1.5, "steps": 7},
        {"cifar10": {"eps": 0.5}, "digits": {"eps": 0.5}},
        adversarial=True,
    ),
    "isce": Method("I-SCE", ISCEHead, "the paper, section 4.1", {"s": 1.0, "m": 0.1}),
}

# Which ingredient does what? Not rows of the paper.
CONTROLS: dict[str, Method] = {
    "norm_only": Method("Normalisation only", ISCEHead, "ours", {"s": 1.0, "m": 0.0}),
    "subtracted_margin": Method(
        "Subtracted margin", ISCEHead, "ours; the sign of ArcFace and CosFace", {"s": 1.0, "m": -0.1}
    ),
    "temperature": Method("Temperature 20", ISCEHead, "ours", {"s": 1.0, "m": 0.0, "temperature": 20.0}),
    "isce_temperature": Method("I-SCE, temperature 20", ISCEHead, "ours", {"s": 1.0, "m": 0.1, "temperature": 20.0}),
    "sce_normalized": Method(
        "SCE, normalised later", ISCEHead, "ours; SCE's weights", {"s": 1.0, "m": 0.0}, trained_as="sce"
    ),
    "arcface_unit": Method("ArcFace, s = 1", ArcFaceHead, "ours; I-SCE's scale", {"s": 1.0, "m": 0.5}),
    "arcface_isce": Method("ArcFace, s = 1, m = 0.1", ArcFaceHead, "ours; I-SCE's scale and m", {"s": 1.0, "m": 0.1}),
}


def get(name: str) -> Method:
    """The method of this name, the paper's or a control. Raises ValueError for an unknown one."""
    known: dict[str, Method] = METHODS | CONTROLS
    return known[choose("method", name, known)]


def parse(names: str) -> list[str]:
    """`"isce"`, `"sce,isce"`, `"all"` (the paper's nine) or `"controls"` -> names. Raises ValueError for unknown ones."""
    groups: dict[str, list[str]] = {"all": list(METHODS), "controls": list(CONTROLS)}
    parts = [part.strip() for part in names.split(",")]
    known = [*METHODS, *CONTROLS, *groups]
    found = [name for part in parts for name in groups.get(part, [choose("method", part, known)])]
    return list(dict.fromkeys(found))
