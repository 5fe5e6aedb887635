r"""Equations 1-15 of the paper as pure functions, in its symbols, and where its conditions hold.

With $R = \sum_{j \ne i} e^{f_j}$ (`rest`) and $\sigma$ the logistic function, everything reduces to

$$P = \sigma(f_i - \ln R), \qquad P_I = \sigma(s f_i + m - \ln R),$$

which is how it is computed: no exponential of a logit is ever formed. Logits f have shape (..., K), the class i shape
(...); s, m, $f_i$ and `rest` broadcast, as floats (float64) or tensors. ValueError for s < 1 or m < 0 (the
paper's conditions), NaN and infinity, everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, expm1, log1p, sqrt

import torch
from torch import Tensor
from torch.nn.functional import softplus

Number = Tensor | float


def _tensor(name: str, x: Number) -> Tensor:
    t = x if isinstance(x, Tensor) and x.is_floating_point() else torch.as_tensor(x, dtype=torch.float64)
    if not bool(torch.isfinite(t).all()):
        raise ValueError(f"{name} must be finite, but holds NaN or infinity")
    return t


def _s_m(s: Number, m: Number) -> tuple[Tensor, Tensor]:
    st, mt = _tensor("s", s), _tensor("m", m)
    if bool((st < 1).any()):
        raise ValueError(f"s must be at least 1 (section 3.2 of the paper), got {st.min().item():g}")
    if bool((mt < 0).any()):
        raise ValueError(
            f"m must be at least 0 (section 3.2 of the paper: m > 0; 0 is plain softmax), got {mt.min().item():g}"
        )
    return st, mt


def _log(rest: Number) -> Tensor:
    t = _tensor("rest", rest)
    if bool((t <= 0).any()):
        raise ValueError(f"rest is a sum of exponentials and must be positive, got {t.min().item():g}")
    return t.log()


def split(f: Tensor, i: Tensor | int) -> tuple[Tensor, Tensor]:
    r"""$f_i$ and $\ln R = \ln \sum_{j \ne i} e^{f_j}$ of logits f (..., K), K >= 2, at class i (...): two (...).

    Raises:
        ValueError: fewer than 2 classes, or i of another shape than f without its last axis, or out of 0..K-1.
    """
    f = _tensor("f", f)
    if f.ndim < 1 or f.shape[-1] < 2:
        raise ValueError(f"want logits (..., K) with K >= 2, got {tuple(f.shape)}")
    index = torch.as_tensor(i, device=f.device)
    if index.ndim and index.shape != f.shape[:-1]:
        raise ValueError(f"want one class per row of f {tuple(f.shape)}, got {tuple(index.shape)}")
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < f.shape[-1]:
        raise ValueError(f"class must lie in 0..{f.shape[-1] - 1}, got {int(index.min())}..{int(index.max())}")
    index = index.expand(f.shape[:-1]).unsqueeze(-1)
    return f.gather(-1, index).squeeze(-1), f.scatter(-1, index, -torch.inf).logsumexp(-1)


def P(f: Tensor, i: Tensor | int) -> Tensor:
    r"""Softmax, equation 1: $P(y=i|x) = e^{f_i} / \sum_j e^{f_j}$. Shapes (..., K), (...) -> (...).
    Logits are taken as they are, here and below; the paper's unit logits are `isce.losses.normalize_logits(f)`."""
    f_i, log_rest = split(f, i)
    return (f_i - log_rest).sigmoid()


def P_I(f: Tensor, i: Tensor | int, s: Number = 1.0, m: Number = 0.1) -> Tensor:
    r"""Inference softmax, equation 2: $e^{s f_i + m} / (e^{s f_i + m} + R)$; its $-\ln$ is equation 3. -> (...)."""
    s, m = _s_m(s, m)
    f_i, log_rest = split(f, i)
    return (s * f_i + m - log_rest).sigmoid()


def loss(f: Tensor, i: Tensor | int, s: Number = 1.0, m: Number = 0.0) -> Tensor:
    r"""Equation 3: $-\ln P_I = \mathrm{softplus}(\ln R - s f_i - m)$, in nats; s = 1, m = 0, the default here, is softmax cross-entropy.

    Of logits under attack, its mean is the risk of 3.3.2: $\rho = E \max_\delta \mathcal L(\theta, x + \delta, y)$. -> (...)."""
    s, m = _s_m(s, m)
    f_i, log_rest = split(f, i)
    return softplus(log_rest - s * f_i - m, threshold=40.0)


def risk(path: Tensor, labels: Tensor, s: Number = 1.0, m: Number = 0.0) -> float:
    r"""3.3.2's $\rho = E \max_\delta \mathcal L(\theta, x + \delta, y)$ along an attack's way (with s and m, $\rho_I$): the mean over images of
    the largest `loss`. Logits (T, N, K) at T >= 1 points on the way of each of N images, labels (N,) int64; in nats."""
    return float(loss(path, labels.expand(len(path), -1), s, m).amax(0).mean())


def unsaturated(s: float = 1.0) -> Callable[..., Tensor]:
    r"""An objective for attacks, (logits, labels, targets) -> (N,), that puts points in the order of $-\ln P_I$ and keeps its gradient where
    that rounds to 0: $\ln R - s f_y$. (The margin m is a constant.)"""

    def objective(f: Tensor, y: Tensor, targets: Tensor | None = None) -> Tensor:
        f_y, log_rest = split(f, y)
        return log_rest - s * f_y

    return objective


def h(f: Tensor, i: Tensor | int, s: Number = 1.0, m: Number = 0.1) -> Tensor:
    r"""Equation 11: $h(f(x)) = P_I(i|x) - P(i|x)$. -> (...)."""
    return P_I(f, i, s, m) - P(f, i)


def h_closed(f: Tensor, i: Tensor | int, s: Number = 1.0, m: Number = 0.1) -> Tensor:
    r"""Equation 12: $R\,(e^{s f_i + m} - e^{f_i}) / ((e^{s f_i + m} + R)(e^{f_i} + R))$, here $P (1 - P_I)
    (e^{(s-1) f_i + m} - 1)$: no cancellation, so its sign is exact. -> (...)."""
    s, m = _s_m(s, m)
    return _h(*split(f, i), s, m)


def _h(f_i: Tensor, log_rest: Tensor, s: Tensor, m: Tensor) -> Tensor:
    return (f_i - log_rest).sigmoid() * (log_rest - s * f_i - m).sigmoid() * torch.expm1((s - 1) * f_i + m)


def z(s: Number, m: Number, f_i: Number = 0.97, rest: Number = 8.0) -> Tensor:
    r"""The paper's condition (3.3.1, A.2, Figure 5): $z = \dfrac{s\,e^{s f_i + m}}{(e^{s f_i + m} + R)^2} -
    \dfrac{e^{f_i}}{(e^{f_i} + R)^2}$. All broadcast; the defaults are the paper's averages. `rest` must be positive."""
    s, m = _s_m(s, m)
    f_i, log_rest = _tensor("f_i", f_i), _log(rest)
    return _rest_times_z(f_i, log_rest, s, m) * (-log_rest).exp()


def _rest_times_z(f_i: Tensor, log_rest: Tensor, s: Tensor, m: Tensor) -> Tensor:
    u_i, u = s * f_i + m - log_rest, f_i - log_rest
    return s * u_i.sigmoid() * (-u_i).sigmoid() - u.sigmoid() * (-u).sigmoid()


def dh_df_i(f: Tensor, i: Tensor | int, s: Number = 1.0, m: Number = 0.1) -> Tensor:
    r"""Equation 15: $\partial h / \partial f_i = R\,z(s, m; f_i, R)$, the other logits held fixed. -> (...)."""
    s, m = _s_m(s, m)
    return _rest_times_z(*split(f, i), s, m)


def condition_grid(s_min: float, s_max: float, m_max: float, points: int) -> tuple[Tensor, Tensor]:
    r"""Even grids over $[s_{min}, s_{max}]$ and $(0, m_{max}]$, float64 (`points`,) each, for `z(s[:, None], m)`.

    Raises:
        ValueError: not 1 <= s_min < s_max, m_max <= 0, fewer than 2 points.
    """
    _s_m(s_min, m_max)
    if not (s_min < s_max < float("inf") and m_max > 0 and points >= 2):
        raise ValueError(f"want s_min < s_max, m_max > 0, points >= 2, got {s_min}, {s_max}, {m_max}, {points}")
    s = torch.linspace(s_min, s_max, points, dtype=torch.float64)
    return s, m_max * torch.arange(1, points + 1, dtype=torch.float64) / points


def positive_margins(s: Number, f_i: Number = 0.97, rest: Number = 8.0) -> tuple[Tensor, Tensor]:
    r"""The margins with z > 0, exactly: $z(s, m) > 0 \iff m_{low} < m < m_{high}$ (ours; the paper looks at a plot).

    With $g = P(1 - P)$, $z > 0 \iff P_I (1 - P_I) > g / s$, and $P_I$ is logistic in m: a quadratic. -> two (...).
    At s = 1 the two ends are 0 and $2(\ln R - f_i)$, in order. $m_{low}$ may be negative.
    """
    s, _ = _s_m(s, 0.0)
    f_i, log_rest = _tensor("f_i", f_i), _log(rest)
    u = f_i - log_rest
    half_width = 2 * (s / (4 * u.sigmoid() * (-u).sigmoid())).clamp_min(1).sqrt().acosh()
    center = log_rest - s * f_i
    return center - half_width, center + half_width


def L(f: Tensor, f_adv: Tensor, i: Tensor | int) -> Tensor:
    r"""Expected interval of SCE, equation 6: $P(i|x) - P(i|x+\delta)$, logits f at x, f_adv at $x+\delta$. -> (...)."""
    return P(f, i) - P(f_adv, i)


def L_I(f: Tensor, f_adv: Tensor, i: Tensor | int, s: Number = 1.0, m: Number = 0.1) -> Tensor:
    r"""Expected interval of I-SCE, equation 7: $P_I(i|x) - P_I(i|x+\delta)$; $L_I - L = h(f) - h(f_{adv})$ (eq 14)."""
    return P_I(f, i, s, m) - P_I(f_adv, i, s, m)


def gain_in_two(f: Tensor, f_adv: Tensor, i: Tensor | int, s: Number = 1.0, m: Number = 0.1) -> tuple[Tensor, Tensor]:
    r"""$L_I - L$ (equation 14) in two parts, whose sum it is (ours): first $f_i$ falls while R stays, which is all that
    equation 15 speaks of; then the other logits move. -> two (...)."""
    s, m = _s_m(s, m)
    (f_i, log_rest), (f_i_adv, log_rest_adv) = split(f, i), split(f_adv, i)
    between = _h(f_i_adv, log_rest, s, m)
    return _h(f_i, log_rest, s, m) - between, between - _h(f_i_adv, log_rest_adv, s, m)


def assumptions(
    f: Tensor, f_adv: Tensor, i: Tensor | int, s: Number = 1.0, m: Number = 0.1
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    r"""What the property of 3.3.1 assumes and says, at pairs of logits f at x, f_adv at $x + \delta$, each (...).

    Returns:
        Whether it holds: $f_i$ falls; P falls; z > 0 at x, and at $x + \delta$; $L_I > L$. And by how much logits move:
        `f_i`, `log_rest` ($\ln R$, which the proof keeps fixed) and `top`, the largest other logit, each after minus
        before; `share`, the part of the log-odds' fall $f_i - \ln R$ that is the others' doing.
    """
    f, f_adv = _tensor("f", f), _tensor("f_adv", f_adv)
    (f_i, log_rest), (f_i_adv, log_rest_adv) = split(f, i), split(f_adv, i)
    index = torch.as_tensor(i, device=f.device).expand(f.shape[:-1]).unsqueeze(-1)
    top, top_adv = (t.scatter(-1, index, -torch.inf).amax(-1) for t in (f, f_adv))
    moved = {"f_i": f_i_adv - f_i, "log_rest": log_rest_adv - log_rest, "top": top_adv - top}
    holds = {
        "f_i falls": moved["f_i"] < 0,
        "P falls": moved["f_i"] < moved["log_rest"],
        "z > 0 at x": dh_df_i(f, i, s, m) > 0,
        "z > 0 at x + delta": dh_df_i(f_adv, i, s, m) > 0,
        "L_I > L": h_closed(f, i, s, m) > h_closed(f_adv, i, s, m),
    }
    return holds, moved | {"share": moved["log_rest"] / (moved["log_rest"] - moved["f_i"])}


def loss_is_lower(f_i: Number, s: Number = 1.0, m: Number = 0.1) -> Tensor:
    r"""$P_I > P$, that is $(s-1) f_i + m > 0$ (equation 12; claim C12). -> bool, broadcast.

    The paper goes on to divide by $f_i$, which is right for $f_i > 0$ only: for s > 1 it fails below $-m / (s-1)$."""
    s, m = _s_m(s, m)
    return (s - 1) * _tensor("f_i", f_i) + m > 0


@dataclass(frozen=True)
class SphereOptimum:
    """Unit logits of least loss: the right class's, each other's, R, the loss in nats, and the probability then."""

    f_y: float
    f_other: float
    rest: float
    loss: float
    p_max: float


def sphere_optimum(num_classes: int = 10, s: float = 1.0, m: float = 0.0) -> SphereOptimum:
    r"""The minimum of equation 3 on $\lVert f \rVert_2 = 1$ (ours): $f \propto (s, -\frac1{K-1}, \dots)$, for any m.

    The loss is convex, and its gradient $-(1 - P_I)\,(s, -\frac1{K-1}, \dots)$ where the others are equal: there it is
    radial, so this is the minimum. s = 1, m = 0 is cross-entropy. Raises ValueError for fewer than 2 classes, s < 1, m < 0.
    """
    _s_m(s, m)
    if num_classes < 2:
        raise ValueError(f"want at least 2 classes, got {num_classes}")
    others = num_classes - 1
    length = sqrt(s * s + 1 / others)
    f_y, f_other = s / length, -1 / (others * length)
    rest = others * exp(f_other)
    loss = log1p(rest * exp(-s * f_y - m))
    return SphereOptimum(f_y, f_other, rest, loss, 1 + expm1(-loss))


def boundary_pairs(draws: int, num_classes: int = 10, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Pairs of unit logit vectors: f with class 0 ahead, `f_adv` where class 0 just ties with the best other (ours).

    The setting of 3.3.1 and nothing more ($\delta$ just misleads, $f_i(x+\delta) < f_i(x)$): f in uniform directions, `f_adv`
    of Gaussian logits whose class 0 is raised or lowered to the tie, and of `draws` pairs those whose $f_0$ falls, over half.
    -> two float64 (n, K). ValueError: no draws, fewer than 3 classes.
    """
    if draws < 1 or num_classes < 3:
        raise ValueError(f"want at least 1 draw and at least 3 classes, got {draws} and {num_classes}")
    f, f_adv = torch.randn(2, draws, num_classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    f = f.sort(dim=1, descending=True).values  # exchangeable, but for class 0 being ahead
    f_adv[:, 0] = f_adv[:, 1:].amax(1)
    f, f_adv = f / f.norm(dim=1, keepdim=True), f_adv / f_adv.norm(dim=1, keepdim=True)
    falls = f_adv[:, 0] < f[:, 0]
    return f[falls], f_adv[falls]


def largest_misled(num_classes: int = 10) -> float:
    r"""The largest P(i) of unit logits whose class i is not ahead of all others (ours): $1 / (2 + (K-2)\,e^{-a-b})$.

    $-\ln P$ is convex, so its minimum over the ball cut by $f_i \le f_j$ lies at a tie: two logits a, the others -b with
    $2a^2 + (K-2) b^2 = 1$, where a + b is largest for $a = (K-2) b / 2$. Hence at s = 1 and $0 < m < 2(\ln R - f_i)$
    **no** perturbation whatever breaks $L_I > L$ for an image with P(i|x) above it: 0.178 of ten classes, where 0.242 is the
    most that there is. ValueError for fewer than 3 classes.
    """
    if num_classes < 3:
        raise ValueError(f"want at least 3 classes, got {num_classes}")
    others = num_classes - 2
    b = 1 / sqrt(others * (others / 2 + 1))
    return 1 / (2 + others * exp(-b * (others / 2 + 1)))


def violations_near(
    f: Tensor,
    f_adv: Tensor,
    i: Tensor,
    radius: float,
    s: float = 1.0,
    m: float = 0.1,
    *,
    draws: int = 100,
    seed: int = 0,
) -> tuple[int, int]:
    r"""Counter-examples near pairs of logits f, f_adv (N, K), class i (N,): the proof's premises hold, and yet $L_I \le L$.

    Both ends are moved by `radius` times their length in uniform directions, and scaled back to it, `draws` times. Counted
    are pairs that the premises admit (x decided as i, $x + \delta$ not, $f_i$ falls, z > 0 at both ends) -> (violations, of them all).
    """
    generator = torch.Generator().manual_seed(seed)

    def moved(t: Tensor) -> Tensor:
        noise = torch.randn(draws, *t.shape, dtype=t.dtype, generator=generator).to(t.device)
        length = t.norm(dim=-1, keepdim=True)
        near = t + radius * length * noise / noise.norm(dim=-1, keepdim=True)
        return near * length / near.norm(dim=-1, keepdim=True)

    a, b, c = moved(f), moved(f_adv), i.expand(draws, -1)
    holds, _ = assumptions(a, b, c, s, m)
    right, wrong = a.argmax(-1) == c, b.argmax(-1) != c
    asked = right & wrong & holds["f_i falls"] & holds["z > 0 at x"] & holds["z > 0 at x + delta"]
    return int((asked & ~holds["L_I > L"]).sum()), int(asked.sum())
