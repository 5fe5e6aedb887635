"""Projected gradient descent: Madry et al. 2018, https://arxiv.org/abs/1706.06083."""

import torch
from torch import Tensor, nn

from isce.attacks.common import Batch, check_numbers, differentiable, finite, image_gradient, launch, logits_of, misled
from isce.attacks.norms import project, random_in_ball, steepest
from isce.attacks.objectives import Objective, resolve


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 50,
    norm: str = "l2",
    step_size: float | None = None,
    targeted: bool = False,
    targets: Tensor | None = None,
    restarts: int = 1,
    objective: str | Objective = "ce",
    random_start: bool = True,
    early_stop: bool = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""$x \leftarrow \Pi(x + \alpha\, g / \|g\|_2)$, or sign g in linf; $\Pi$: into the eps-ball, then into [0, 1].

    images (N, ...) in [0, 1], labels (N,); eps, step_size (default 2.5 eps / steps) in [0, 1] pixels. Starts uniformly
    in the ball, or at the image. Returns (N, ...): the first iterate that is misclassified, or, if targeted, predicted
    as its target; an image that never gets there returns, of its restarts' last iterates, that of the largest
    objective. Restarts run only on images that have not succeeded yet. Without `early_stop` every image, a misclassified one too,
    takes all steps of all restarts, and returns, of their last iterates, a successful one before others, then that of the largest
    objective: for random models (`Expectation`), of which another draw may be right just past the mean's boundary, and for transfer. In l2 a uniform start lies near the sphere, and one run from the image
    (`random_start=False`) is often a little stronger. Raises ValueError or TypeError on bad input.
    """
    check_numbers(norm, eps=eps, steps=steps, restarts=restarts, step_size=step_size)
    loss, step, steps = resolve(objective, targeted), step_size or 2.5 * eps / steps, int(steps)

    def attack(batch: Batch) -> Tensor:
        out, best = batch.images.clone(), torch.full_like(batch.logits[:, 0], float("-inf"))
        fooled = torch.zeros_like(batch.labels, dtype=torch.bool)  # at `out`, without early_stop
        left = torch.arange(len(out), device=out.device)  # rows of `out` that are still to be fooled
        for restart in range(restarts):
            rows, x0, y = left, batch.images[left], batch.labels[left]
            t = None if batch.targets is None else batch.targets[left]
            x = random_in_ball(x0, batch.seeds[left], restart, eps, norm) if random_start else x0.clone()
            for i in range(steps + 1):  # one forward pass both judges the last step and gives the next gradient
                with torch.set_grad_enabled(i < steps):
                    leaf, logits = differentiable(model, x) if i < steps else (x, logits_of(model, x))
                    losses = loss(logits, y, t)
                there = misled(logits, y, t)
                hit = there & early_stop
                if i < steps:
                    gradient = image_gradient(losses.sum(), leaf)
                if hit.any():
                    out[rows[hit]], keep = x[hit], ~hit
                    rows, x0, y, x, losses, there = (s[keep] for s in (rows, x0, y, x, losses, there))
                    t = None if t is None else t[keep]
                    if not len(rows):
                        break
                    gradient = gradient[keep] if i < steps else gradient
                if i < steps:
                    x = project(x + steepest(gradient, norm, step), x0, eps, norm)
            if not len(left := rows):
                break
            better = (there & ~fooled[rows]) | ((there == fooled[rows]) & (losses > best[rows]))
            better |= ~finite(x)  # a point that is lost to NaN is to be seen
            out[rows[better]], best[rows[better]], fooled[rows[better]] = x[better], losses[better], there[better]
        return out

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


def pgd_path(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 50,
    norm: str = "l2",
    step_size: float | None = None,
    objective: str | Objective = "ce",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The logits (steps + 1, N, K) along untargeted `pgd` from its random start, for every image and every step.

    For what `pgd` does not tell, because there an image leaves at its first success: the loss against iterations, and the
    inner maximum of the min-max risk. Images that are misclassified from the start are attacked too. Arguments and errors as in
    `pgd`, and ValueError where there are no images.
    """
    check_numbers(norm, eps=eps, steps=steps, step_size=step_size)
    loss, step, paths = resolve(objective, False), step_size or 2.5 * eps / steps, []

    def walk(batch: Batch) -> Tensor:
        x, path = random_in_ball(batch.images, batch.seeds, 0, eps, norm), []
        for _ in range(steps):
            leaf, logits = differentiable(model, x)
            gradient = image_gradient(loss(logits, batch.labels, None).sum(), leaf)
            path.append(logits.detach())
            x = project(x + steepest(gradient, norm, step), batch.images, eps, norm)
        with torch.no_grad():
            paths.append(torch.stack([*path, logits_of(model, x)]))
        return x

    launch(model, images, labels, walk, batch_size=batch_size, generator=generator, everything=True)
    if not paths:
        raise ValueError("no images: there is no path to follow")
    return torch.cat(paths, 1)
