"""Auto-PGD: Croce & Hein 2020, https://arxiv.org/abs/2003.01690."""

import torch
from torch import Tensor, nn

from isce.attacks.common import (
    Batch,
    check_numbers,
    differentiable,
    finite,
    image_gradient,
    launch,
    likely_wrong,
    logits_of,
    misled,
)
from isce.attacks.norms import per_image, project, random_in_ball, steepest
from isce.attacks.objectives import Objective, resolve


def climb(
    model: nn.Module,
    batch: Batch,
    targets: Tensor | None,
    counter: int,
    *,
    eps: float,
    steps: int,
    norm: str,
    loss: Objective,
    rho: float,
    reach_target: bool,
    early_stop: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One run of APGD from a random start: x (n, ...), success (n,), largest objective (n,).

    Success: predicted as the target with `reach_target`, else misclassified. x is the first such iterate, or the iterate
    of largest objective. Images leave at success; without `early_stop` where the model breaks down (`misled`) alone.
    """
    x0, y, t, steps = batch.images, batch.labels, targets, int(steps)
    out, success = x0.clone(), torch.zeros_like(y, dtype=torch.bool)
    value = torch.full_like(batch.logits[:, 0], float("-inf"))
    rows = torch.arange(len(y), device=y.device)
    x = x_old = x_best = random_in_ball(x0, batch.seeds, counter, eps, norm)
    g_best, f_best, f_old, f_check = torch.zeros_like(x), value, value, value
    size, ups = torch.full_like(value, 2 * eps), torch.zeros_like(y)  # step size; ascents since the last checkpoint
    halved = success
    window, shrink, least = max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    checkpoint = window
    for i in range(steps + 1):
        with torch.set_grad_enabled(i < steps):
            leaf, logits = differentiable(model, x) if i < steps else (x, logits_of(model, x))
            f = loss(logits, y, t)
        g = image_gradient(f.sum(), leaf) if i < steps else g_best
        f = f.detach()
        hit = (misled(logits, y, t if reach_target else None) & early_stop) | ~finite(logits)
        if hit.any():
            done, keep = rows[hit], ~hit
            out[done], success[done], value[done] = x[hit], True, f[hit]
            x0, y, x, x_old, x_best, g, g_best = (s[keep] for s in (x0, y, x, x_old, x_best, g, g_best))
            t = None if t is None else t[keep]
            f, f_best, f_old, f_check, size, ups = (s[keep] for s in (f, f_best, f_old, f_check, size, ups))
            halved, rows = halved[keep], rows[keep]
            if not len(rows):
                break
        better = f > f_best
        wide = per_image(better, x)
        x_best, g_best, f_best = torch.where(wide, x, x_best), torch.where(wide, g, g_best), f_best.maximum(f)
        if i == 0:
            f_check = f_best
        else:
            ups = ups + (f > f_old)
        f_old = f
        if i == checkpoint:  # halve the step where ascents were rare, or where nothing was gained at an unchanged step
            halved = (ups <= rho * window) | (~halved & (f_best <= f_check))
            size, wide = torch.where(halved, size / 2, size), per_image(halved, x)
            x, g = torch.where(wide, x_best, x), torch.where(wide, g_best, g)
            f_check, ups = f_best, torch.zeros_like(ups)
            window = max(window - shrink, least)
            checkpoint = i + window
        if i < steps:
            z = project(x + steepest(g, norm, size), x0, eps, norm)
            if i > 0:  # momentum: x + 0.75 (z - x) + 0.25 (x - x_old)
                z = project(z.mul_(0.75).add_(x, alpha=0.5).sub_(x_old, alpha=0.25), x0, eps, norm)
            x, x_old = z, x
    out[rows], value[rows] = torch.where(per_image(f_best.isnan(), x), torch.nan, x_best), f_best
    return out, success, value


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 100,
    norm: str = "l2",
    objective: str | Objective = "ce",
    targeted: bool = False,
    targets: Tensor | None = None,
    restarts: int = 1,
    rho: float = 0.75,
    early_stop: bool = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """PGD with momentum (0.75). The step, 2 eps at first, halves at checkpoints without enough progress, and the search goes on from the
    best point; checkpoints lie 22 % of the steps apart at first, then 3 % less each time, 6 % at least (the paper's section 4).

    images (N, ...) in [0, 1], labels (N,); eps in [0, 1] pixels; rho is the share of ascents below which the step halves.
    Returns (N, ...): the first iterate that is misclassified, or, if targeted, predicted as its target; otherwise the
    iterate of largest objective. Restarts run only on images that have not succeeded yet. Without `early_stop` every image, a
    misclassified one too, takes all steps of all restarts, and comes back as the iterate of largest objective: for random models and for
    transfer, as in `pgd`. Raises ValueError or TypeError on bad input.
    """
    check_numbers(norm, eps=eps, steps=steps, restarts=restarts, rho=rho)
    loss = resolve(objective, targeted)
    settings = {"eps": eps, "steps": steps, "norm": norm, "loss": loss, "rho": rho}
    settings |= {"reach_target": targeted, "early_stop": early_stop}

    def attack(batch: Batch) -> Tensor:
        return best_of(model, batch, [batch.targets] * restarts, settings)

    return launch(
        model,
        images,
        labels,
        attack,
        targeted=targeted,
        targets=targets,
        batch_size=batch_size,
        generator=generator,
        everything=not early_stop,
    )


def apgd_targeted(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 100,
    norm: str = "l2",
    objective: str | Objective = "dlr",
    n_targets: int = 9,
    restarts: int = 1,
    rho: float = 0.75,
    early_stop: bool = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """AutoAttack's APGD-T: APGD towards each of the `n_targets` most likely wrong classes, until one misclassifies.

    The objective is taken in its targeted form, but any misclassification is a success. Arguments, result and errors are
    those of `apgd`.
    """
    check_numbers(norm, eps=eps, steps=steps, restarts=restarts, rho=rho, n_targets=n_targets)
    loss = resolve(objective, True)
    settings = {"eps": eps, "steps": steps, "norm": norm, "loss": loss, "rho": rho}
    settings |= {"reach_target": False, "early_stop": early_stop}

    def attack(batch: Batch) -> Tensor:
        return best_of(model, batch, list(likely_wrong(batch, n_targets).unbind(1)) * restarts, settings)

    everything = not early_stop
    return launch(model, images, labels, attack, batch_size=batch_size, generator=generator, everything=everything)


def best_of(model: nn.Module, batch: Batch, runs: list[Tensor] | list[Tensor | None], settings: dict) -> Tensor:
    """One `climb` per entry of `runs` (its targets), each on the images that no earlier one has fooled; x (n, ...)."""
    out, best = batch.images.clone(), torch.full_like(batch.logits[:, 0], float("-inf"))
    left = torch.arange(len(out), device=out.device)
    for counter, targets in enumerate(runs):
        part = Batch(*(None if s is None else s[left] for s in batch))  # type: ignore[arg-type]
        x, success, value = climb(model, part, None if targets is None else targets[left], counter, **settings)
        take = success | (value > best[left]) | ~finite(x)  # a point that is lost to NaN is to be seen
        out[left[take]], best[left[take]] = x[take], value[take]
        left = left[~success]
        if not len(left):
            break
    return out
