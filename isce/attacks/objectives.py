"""What an attack maximises: pure functions (logits (N, K), labels (N,), targets (N,) or None) -> (N,).

Attacks use only how an objective ranks an image's points, and the direction of its gradient; an increasing function of
it changes neither. `ce` relies on that to be free of saturation.
"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def _others(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits with that of the given class at -inf."""
    return logits.scatter(1, classes[:, None], float("-inf"))


def _need(targets: Tensor | None) -> Tensor:
    if targets is None:
        raise ValueError("a targeted objective needs targets: call the attack with targeted=True")
    return targets


def ce(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Cross-entropy by its log-odds, u = log sum_{j != y} exp z_j - z_y; the cross-entropy itself is softplus(u).

    softplus increases, so u orders points as the cross-entropy does and its gradient points the same way. But softplus'
    derivative, 1 - p(y), is exactly 0 in float32 once p(y) = 1, as on most test images of a well trained SCE model: the
    attack would stand still and the model look robust. u keeps its gradient however sure the model is. Where logits differ by
    less than 1e-3 or so, u is nearly the constant log (K - 1), and float32 no longer ranks points reliably: take "margin", or `Rescaled`.
    """
    return _others(logits, labels).logsumexp(1) - _of(logits, labels)


def _positive(spread: Tensor, logits: Tensor) -> Tensor:
    """At least 1e-12 of the largest logit, or what the dtype can hold: one over less would overflow where logits tie. (AutoAttack's
    code adds 1e-12, whatever the logits' scale.)"""
    largest = logits.detach().abs().amax(1)
    least = 1e-12 * torch.where(largest == 0, 1, largest)
    return torch.maximum(spread, least.clamp_min(torch.finfo(spread.dtype).tiny))


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """max_{j != y} z_j - z_y, positive where misclassified (Carlini & Wagner 2017)."""
    return _others(logits, labels).amax(1) - _of(logits, labels)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference of logits ratio, (max_{j != y} z_j - z_y) / (z_(1) - z_(3)); K >= 3 (Croce & Hein 2020)."""
    if logits.shape[1] < 3:
        raise ValueError(f"dlr needs at least 3 classes, the model has {logits.shape[1]}: use objective='margin'")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / _positive(top[:, 0] - top[:, 2], logits)


def mmc(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """-z_y: with logits -||f - mu_k||^2, the distance from the own centre (adaptive attack on Max-Mahalanobis)."""
    return -_of(logits, labels)


def ce_targeted(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Log-odds of the target, z_t - log sum_{j != t} exp z_j: the order and gradient direction of log p(t)."""
    return -ce(logits, _need(targets))


def margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """z_t - max_{j != t} z_j, positive where the target is predicted."""
    return -margin(logits, _need(targets))


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2); K >= 4 (Croce & Hein 2020)."""
    if logits.shape[1] < 4:
        raise ValueError(f"targeted dlr needs at least 4 classes, the model has {logits.shape[1]}: use 'margin'")
    top = logits.topk(4, dim=1).values
    spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return (_of(logits, _need(targets)) - _of(logits, labels)) / _positive(spread, logits)


def mmc_targeted(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """z_t: with logits -||f - mu_k||^2, the nearness to the target's centre."""
    return _of(logits, _need(targets))


OBJECTIVES: dict[str, Objective] = {
    f.__name__: f for f in (ce, margin, dlr, mmc, ce_targeted, margin_targeted, dlr_targeted, mmc_targeted)
}


def _own(objective: Objective) -> Objective:
    wanted = "an objective is a function (logits, labels, targets) -> (N,), such as lambda z, y, t: F.cross_entropy(z, y, reduction='none')"
    try:
        inspect.signature(getattr(objective, "forward", objective)).bind(None, None, None)
    except (TypeError, ValueError):  # a builtin has no signature
        raise TypeError(f"{objective} does not take three arguments: {wanted}") from None

    def checked(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        values = objective(logits, labels, targets)
        if not isinstance(values, Tensor) or values.shape != labels.shape:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"the objective returned {got}, not ({len(labels)},): {wanted}")
        return values

    return checked


def resolve(objective: str | Objective, targeted: bool) -> Objective:
    """The function of that name, in its targeted form if the attack is targeted; a function of one's own is taken as it is.

    TypeError, ValueError: it does not take (logits, labels, targets), or does not return a value for each image.
    """
    if callable(objective):
        return _own(objective)
    name = f"{objective}_targeted" if targeted and not str(objective).endswith("_targeted") else objective
    if name not in OBJECTIVES:
        known = ", ".join(n for n in OBJECTIVES if not n.endswith("_targeted"))
        raise ValueError(f"unknown objective {objective!r}: choose one of {known}, or pass a function")
    return OBJECTIVES[name]
