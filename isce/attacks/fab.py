"""Fast adaptive boundary attack, targeted form: Croce & Hein 2020, https://arxiv.org/abs/1907.02044."""

import torch
from torch import Tensor, nn

from isce.attacks.common import (
    Batch,
    check_numbers,
    clearly_wrong,
    differentiable,
    finite,
    image_gradient,
    launch,
    likely_wrong,
    logits_of,
    misled,
    real,
)
from isce.attacks.norms import norm_of, onto_hyperplane, per_image, random_in_ball, tiny

SHORTEST = 0.8  # of a perturbation found, what the bisection may leave


def fab(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    norm: str = "l2",
    n_targets: int = 9,
    eps: float | None = None,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The smallest perturbation found: projections on the linearised boundary, biased towards the image.

    For each of the `n_targets` most likely wrong classes t, with $f = z_t - z_y$, $w = \nabla_x f$ and $P$ the exact
    projection on $\{u \in [0, 1]: f(x) + w^T (u - x) = 0\}$:
    $x \leftarrow (1-a)(x + \eta (P x - x)) + a (x_0 + \eta (P x_0 - x_0))$,
    $a = min(\|Px - x\| / (\|Px - x\| + \|Px_0 - x_0\|), alpha_{max})$. Where this misclassifies, its norm is noted and x goes
    back towards x_0, to $x_0 + \beta (x - x_0)$. A bisection towards x_0 ends the search.

    images (N, ...) in [0, 1], labels (N,). Returns (N, ...): the smallest adversarial found, misclassified by a margin that survives
    another batch size where such a one was found; an image without any is returned unchanged. With `eps` (in [0, 1] pixels; None: no
    radius) an image is done with its first adversarial of norm <= eps, before or after the bisection, and one without is returned
    unchanged. `steps` are those of one target and restart. Restarts after the first begin at random points in the ball of half the best norm. Raises ValueError or TypeError on bad input.
    """
    check_numbers(norm, steps=steps, n_targets=n_targets, restarts=restarts, alpha_max=alpha_max, eta=eta)
    if eps is not None:
        check_numbers(eps=eps)
    if not real(beta) or not 0 <= beta < 1:
        raise ValueError(f"beta must be a number in [0, 1), got {beta!r}")

    def attack(batch: Batch) -> Tensor:
        best, least = batch.images.clone(), torch.full_like(batch.logits[:, 0], float("inf"))  # least norm so far
        targets = likely_wrong(batch, n_targets).unbind(1)
        for run in range(restarts * len(targets)):
            rows = (least > (eps or 0)).nonzero()[:, 0]
            if not len(rows):
                break
            x0, y, t, x = batch.images[rows], batch.labels[rows], targets[run % len(targets)][rows], batch.images[rows]
            if run >= len(targets):
                radius = per_image(least[rows].clamp_max(eps or (1.0 if norm == "l2" else 0.3)) / 2, x)
                x = (x0 + radius * (random_in_ball(x0 * 0 + 0.5, batch.seeds[rows], run, 0.5, norm) - 0.5) * 2).clamp_(
                    0, 1
                )
            for _ in range(steps):
                if not len(rows):
                    break
                leaf, logits = differentiable(model, x)
                f = (logits.gather(1, t[:, None]) - logits.gather(1, y[:, None]))[:, 0]
                w = image_gradient(f.sum(), leaf)
                w, f = w.flatten(1), f.detach()
                both, offset = torch.cat([x, x0]).flatten(1), (w * x.flatten(1)).sum(1) - f
                move = (onto_hyperplane(both, w.repeat(2, 1), offset.repeat(2), norm) - both).view(2, *x.shape)
                d, d0 = norm_of(move[0], norm), norm_of(move[1], norm)
                a = per_image((d / (d + d0).clamp_min(tiny(d))).clamp_max(alpha_max), x)
                x = ((1 - a) * (x + eta * move[0]) + a * (x0 + eta * move[1])).clamp_(0, 1)
                with torch.no_grad():
                    logits = logits_of(model, x)
                wrong, distance = misled(logits, y), norm_of(x - x0, norm)
                better = (wrong if eps is None else clearly_wrong(logits, y)) & (distance < least[rows])
                best[rows[better]], least[rows[better]] = x[better], distance[better]
                x = torch.where(per_image(wrong, x), x0 + beta * (x - x0), x)
                if eps is not None and bool((keep := least[rows] > eps).logical_not().any()):
                    rows, x0, y, t, x = (s[keep] for s in (rows, x0, y, t, x))
            lost = rows[~finite(x) & least[rows].isinf()]
            best[lost] = torch.nan  # unless another run finds one: that the gradient was lost is to be seen
        ball = float("inf") if eps is None else eps
        close = (least > (eps or 0)) & (SHORTEST * least <= ball)  # with eps: outside of the ball by little
        if close.any():
            best[close] = _nearest_on_ray(model, batch.images[close], batch.labels[close], best[close])
        near = norm_of(best - batch.images, norm) <= ball
        return torch.where(per_image(near | ~finite(best), best), best, batch.images)

    return launch(model, images, labels, attack, batch_size=batch_size, generator=generator)


def _nearest_on_ray(model: nn.Module, x0: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """x0 + c (x - x0), clearly misclassified: outwards from c = 1 until it is, then ten bisections above `SHORTEST`. x where it
    never is."""

    def lies_beyond(c: Tensor) -> Tensor:
        return clearly_wrong(logits_of(model, torch.lerp(x0, x, per_image(c, x)).clamp_(0, 1)), y)

    high = torch.ones(len(x), dtype=x.dtype, device=x.device)
    low = SHORTEST * high
    with torch.no_grad():
        for k in range(10):
            high = torch.where(lies_beyond(high), high, high + 1e-4 * 2**k)
        stuck = ~lies_beyond(high)  # wrong, but by no clear margin however far: what was found stays
        low, high = torch.where(stuck, 1, low), torch.where(stuck, 1, high)
        for _ in range(10):
            c = (low + high) / 2
            beyond = lies_beyond(c)
            low, high = torch.where(beyond, low, c), torch.where(beyond, c, high)
    return torch.lerp(x0, x, per_image(high, x)).clamp_(0, 1)
