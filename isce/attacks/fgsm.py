"""Fast gradient sign method: Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572."""

import torch
from torch import Tensor, nn

from isce.attacks.common import Batch, check_numbers, differentiable, image_gradient, launch
from isce.attacks.norms import project, steepest
from isce.attacks.objectives import Objective, resolve


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "l2",
    targeted: bool = False,
    targets: Tensor | None = None,
    objective: str | Objective = "ce",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""One step to the edge of the ball: in linf $x' = clip(x + \epsilon\, sign \nabla_x L)$; in l2 along $\nabla / \|\nabla\|_2$.

    images (N, ...) in [0, 1], labels (N,); eps in [0, 1] pixels. Returns (N, ...). Raises ValueError or TypeError on bad
    input. With `targeted` the step climbs the objective's targeted form. `generator` serves only to draw targets that are not given.
    """
    check_numbers(norm, eps=eps)
    loss = resolve(objective, targeted)

    def attack(batch: Batch) -> Tensor:
        x, logits = differentiable(model, batch.images)
        gradient = image_gradient(loss(logits, batch.labels, batch.targets).sum(), x)
        return project(batch.images + steepest(gradient, norm, eps), batch.images, eps, norm)

    return launch(
        model, images, labels, attack, targeted=targeted, targets=targets, batch_size=batch_size, generator=generator
    )
