r"""The objectives of the paper's table rows, as pure functions with the paper's symbols.

$f$ is the vector of logits $(N, K)$, $y$ the labels $(N,)$, $z$ the features $(N, d)$ before the output layer.
Every loss is returned per sample, shape $(N,)$: whoever calls decides how to reduce.
"""

import math
from functools import lru_cache
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _check(logits: Tensor, target: Tensor) -> None:
    for name, given in (("logits", logits), ("target", target)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(given).__name__}")
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(f"want logits (N, K) and target (N,), got {tuple(logits.shape)} and {tuple(target.shape)}")
    if target.dtype != torch.int64:
        raise TypeError(
            f"target holds class indices and must be int64, got {target.dtype}: give target.long() if they are indices"
        )
    if not target.is_cpu or torch.compiler.is_compiling():  # on a GPU, reading the values would force a sync
        return
    if len(target) and (int(target.min()) < 0 or int(target.max()) >= logits.shape[1]):
        raise ValueError(f"target must lie in 0..{logits.shape[1] - 1}, got {int(target.min())}..{int(target.max())}")


def check_s_m(s: float, m: float) -> None:
    """Raise ValueError unless $s \\ge 1$ and $m \\ge 0$, which the paper's conditions need (section 3.2: m > 0; m = 0 is A.2's plain softmax).
    TypeError for anything but a number; a 0-dimensional tensor (a learnable parameter) is accepted."""

    def seen(value: float | Tensor) -> bool:
        """Whether the value can be read without a sync of the device or a break of the compiler's graph."""
        return not isinstance(value, Tensor) or (value.is_cpu and not torch.compiler.is_compiling())

    for name, value in (("s", s), ("m", m)):
        number = value.dim() == 0 if isinstance(value, Tensor) else isinstance(value, Real)
        if isinstance(value, bool) or not number:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise TypeError(f"{name} must be a number, got {got}")
    if seen(s) and not (s >= 1 and s < float("inf")):
        raise ValueError(f"s must be at least 1 (section 3.2 of the paper), got {s}")
    if seen(m) and not (m >= 0 and m < float("inf")):
        raise ValueError(f"m must be at least 0 (section 3.2 of the paper: m > 0; 0 is plain softmax), got {m}")


def normalize_logits(f: Tensor) -> Tensor:
    r"""$f / \lVert f \rVert_2$ over the $K$ classes (section 3.2). Shape (N, K) in and out. A zero vector stays zero, and in
    float32 vectors of norm below 1e-18 or above 1e19 are not scaled to unit length."""
    norm = torch.linalg.vector_norm(f, dim=1, keepdim=True)
    return f / norm.masked_fill(norm == 0, 1)  # at zero the gradient is that of f itself, and not infinite


def inference_logits(f: Tensor, index: Tensor, s: float = 1.0, m: float = 0.1) -> Tensor:
    r"""The inference softmax's logits (equation 2): $s f_i + m$ at class $i$ = `index`, $f_j$ elsewhere.

    In training $i$ is the label, at inference the argmax, so that the decision stays. Neither normalises f nor checks s and m.
    Shapes (N, K), (N,) int64 -> (N, K).
    """
    i = index.unsqueeze(1)
    return f.scatter(1, i, s * f.gather(1, i) + m)


def softmax_cross_entropy(f: Tensor, y: Tensor) -> Tensor:
    r"""SCE: $-\ln\big(e^{f_y} / \sum_j e^{f_j}\big)$ (equation 1). Shapes (N, K), (N,) -> (N,)."""
    return F.cross_entropy(f, y, reduction="none")


def label_smoothing_loss(f: Tensor, y: Tensor, smoothing: float = 0.1) -> Tensor:
    r"""Cross-entropy against $(1 - \epsilon)\,\mathrm{onehot}(y) + \epsilon / K$ (Szegedy et al. 2016). (N, K) -> (N,).

    3.1 of the paper names the two probabilities, but the copy at hand has lost the symbols in them."""
    return F.cross_entropy(f, y, reduction="none", label_smoothing=smoothing)


def center_distance(z: Tensor, y: Tensor, centers: Tensor) -> Tensor:
    r"""$\frac12 \lVert z - c_y \rVert^2$ (Wen et al. 2016, equation 2). Features (N, d), labels (N,) int64, centres (K, d)
    -> (N,)."""
    return (z - centers[y]).square().sum(1) / 2


def gaussian_logits(z: Tensor, means: Tensor, y: Tensor | None = None, alpha: float = 0.0) -> Tensor:
    r"""L-GM's logits $-\frac12 \lVert z - \mu_k \rVert^2$, unit covariance (Wan et al. 2018); with labels, the margin.

    In training the distance to the right class is enlarged to $(1 + \alpha)\,\frac12 \lVert z - \mu_y \rVert^2$.
    Features (N, d), labels (N,) int64, means (K, d) -> (N, K).
    """
    distance = (z.unsqueeze(1) - means).square().sum(2) / 2
    if y is not None and alpha:
        distance = distance.scatter_add(1, y.unsqueeze(1), alpha * distance.gather(1, y.unsqueeze(1)))
    return -distance


def lgm_loss(z: Tensor, y: Tensor, means: Tensor, alpha: float = 1.0, lam: float = 0.1) -> Tensor:
    r"""L-GM: cross-entropy of the margin logits $+\ \lambda\,\frac12\lVert z - \mu_y\rVert^2$ (Wan et al. 2018). Shapes as in
    `gaussian_logits`, -> (N,); alpha: the margin, `lam`: the weight of the features' likelihood, both at least 0."""
    logits = gaussian_logits(z, means, y, alpha)
    return softmax_cross_entropy(logits, y) + lam * center_distance(z, y, means)


def arcface_logits(cosine: Tensor, y: Tensor | None = None, s: float = 30.0, m: float = 0.5) -> Tensor:
    r"""ArcFace: $s \cos(\theta_y + m)$ at the label, $s \cos\theta_j$ elsewhere (Deng et al. 2019, equation 3).

    Where $\theta_y + m > \pi$ the target is continued by $\cos\theta_y - m \sin m$, so that it stays decreasing in
    $\theta_y$ (the authors' remedy). Without labels: $s \cos\theta$, as at inference.
    cosine (N, K) in [-1, 1], labels (N,) int64, s > 0, m in radians -> (N, K).
    """
    if y is None:
        return s * cosine
    c = cosine.gather(1, y.unsqueeze(1))
    sine = (1 - c.square()).clamp_min(torch.finfo(c.dtype).eps).sqrt()  # away from 0: its gradient is infinite there
    rotated = c * math.cos(m) - sine * math.sin(m)
    past_pi = c <= math.cos(math.pi - m)
    return s * cosine.scatter(1, y.unsqueeze(1), torch.where(past_pi, c - m * math.sin(m), rotated))


@lru_cache
def spherical_code(k: int, dim: int) -> Tensor:
    """k unit vectors whose largest pairwise cosine is as small as found by SLSQP from eight fixed starts. -> (k, d) float64.

    The problem of Tammes 1930: for 10 points in space the smallest angle is 66.147 degrees. The first of equally good
    starts is taken, so that another machine's rounding does not choose another code.
    """
    from scipy.optimize import minimize  # half a second, of the little that `import isce` takes

    i, j = np.triu_indices(k, 1)

    def points(v: np.ndarray) -> np.ndarray:
        return v[:-1].reshape(k, dim)

    found = []
    for seed in range(8):
        x = np.random.RandomState(seed).randn(k, dim)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        code = minimize(
            lambda v: v[-1],  # the largest cosine, an unknown like the points
            np.append(x.ravel(), 1.0),
            jac=lambda v: np.eye(len(v))[-1],
            constraints=[
                {"type": "ineq", "fun": lambda v: v[-1] - (points(v)[i] * points(v)[j]).sum(1)},
                {"type": "eq", "fun": lambda v: (points(v) ** 2).sum(1) - 1},
            ],
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-14},
        )
        u = points(code.x) / np.linalg.norm(points(code.x), axis=1, keepdims=True)
        found.append((float((u[i] * u[j]).sum(1).max()), u))
    best = min(cosine for cosine, _ in found)
    return torch.from_numpy(next(u for cosine, u in found if cosine < best + 1e-6))


def max_mahalanobis_centers(num_classes: int, dim: int, norm: float = 10.0) -> Tensor:
    r"""K vectors in $\mathbb R^d$ of length $C_{MM}$ = `norm`, the smallest distance between them as large as can be.

    With d >= K - 1 their pairwise cosine is $-1/(K-1)$ (Pang et al. 2020), the vertices of a regular simplex:
    $\sqrt{K/(K-1)}\,(e_k - \mathbf 1/K)$ lie in a (K-1)-dimensional subspace, whose basis is here the QR basis of the
    first K - 1 of them (with a sign rule: the same on every machine). In fewer dimensions no simplex exists; there they
    are a `spherical_code` (Figure 4's MMC; our decision). -> (K, d) float32.

    Raises:
        ValueError: fewer than 2 classes or dimensions.
    """
    k = num_classes
    if k < 2 or dim < min(2, k - 1):
        raise ValueError(f"max-Mahalanobis centres need at least 2 classes and 2 dimensions, got {k} and {dim}")
    if dim < k - 1:
        return (norm * spherical_code(k, dim)).float()
    simplex = (k / (k - 1)) ** 0.5 * (torch.eye(k, dtype=torch.float64) - 1 / k)
    basis, triangle = torch.linalg.qr(simplex[:, : k - 1])
    basis = basis * triangle.diagonal().sign()
    centers = torch.zeros(k, dim, dtype=torch.float64)
    centers[:, : k - 1] = simplex @ basis
    return (norm * centers).float()


def isce_loss(logits: Tensor, target: Tensor, s: float = 1.0, m: float = 0.1, normalize: bool = True) -> Tensor:
    r"""I-SCE (equation 3): $-\ln\dfrac{e^{s f_y + m}}{e^{s f_y + m} + \sum_{j \ne y} e^{f_j}}$, with
    $f = $ logits $/ \lVert$logits$\rVert_2$ when `normalize` (as the paper trains).

    Args:
        logits: (N, K), finite. target: (N,) int64 class indices.
        s: scale of the right class, at least 1. m: margin added to the right class, at least 0. Either may be a learnable tensor.
        normalize: divide each sample's logits by their L2 norm first; no change where they have length 1 already.

    Returns:
        (N,) losses in nats; in float32 where the logits are half precision.

    Raises:
        ValueError, TypeError: wrong shapes, dtypes, s < 1, m < 0, and on a CPU labels out of range (on a GPU CUDA stops at those).
    """
    _check(logits, target)
    check_s_m(s, m)
    f = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits  # as autocast does
    f = normalize_logits(f) if normalize else f
    return softmax_cross_entropy(inference_logits(f, target, s, m), target)


class ISCELoss(nn.Module):
    """`isce_loss` as a drop-in for `nn.CrossEntropyLoss`: logits (N, K) and target (N,) to a scalar, or (N,) unreduced.

    s, m, normalize: as there. At inference take the argmax as usual. For the paper's probabilities wrap a model that returns
    `normalize_logits(logits)` in `isce.models.InferenceTransform`, and take the softmax of that. Targets are class indices (int64): no
    class weights, no `ignore_index`, no soft targets; on a CPU their range is checked, so `torch.func.vmap` does not work there.

    Raises:
        ValueError, TypeError: s < 1, m < 0, anything but numbers, or `reduction` not one of mean, sum, none.
    """

    def __init__(self, s: float = 1.0, m: float = 0.1, normalize: bool = True, reduction: str = "mean") -> None:
        super().__init__()
        check_s_m(s, m)
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be mean, sum or none, got {reduction!r}")
        self.s, self.m, self.normalize, self.reduction = s, m, normalize, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = isce_loss(logits, target, self.s, self.m, self.normalize)
        return loss if self.reduction == "none" else getattr(loss, self.reduction)()

    def extra_repr(self) -> str:
        return f"s={self.s}, m={self.m}, normalize={self.normalize}, reduction={self.reduction!r}"
