"""DeepFool: Moosavi-Dezfooli et al. 2016, https://arxiv.org/abs/1511.04599."""

import torch
from torch import Tensor, nn

from isce.attacks.common import (
    Batch,
    check_numbers,
    clearly_wrong,
    differentiable,
    image_gradient,
    launch,
    likely_wrong,
    logits_of,
    real,
)
from isce.attacks.norms import dual_norm_of, per_image, steepest


def deepfool(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 50,
    overshoot: float = 0.02,
    num_classes: int = 10,
    norm: str = "l2",
    batch_size: int | None = None,
) -> Tensor:
    r"""A small perturbation that crosses the nearest decision boundary, by repeated linearisation.

    With $f_k = z_k - z_y$ and $w_k = \nabla_x f_k$, each step goes to the nearest linearised boundary
    $l = argmin_k |f_k| / \|w_k\|_*$, by $(1 + overshoot) (|f_l| / \|w_l\|_* + 10^{-4})$ in the direction of steepest
    ascent of f_l; $10^{-4}$ is the original code's. k runs over the `num_classes` - 1 most likely wrong classes of the
    clean image; every iterate is clipped to [0, 1].

    images (N, ...) in [0, 1], labels (N,); num_classes: of the label and the likeliest wrong ones, K at most. Returns (N, ...), in no
    ball (`isce.evaluate` shortens it to a radius). An image is done once its margin exceeds 128 machine
    epsilons of its largest logit (`clearly_wrong`): the verdict on a point nearer to the boundary would change with the
    batch size. Where `steps` do not suffice, the last iterate is returned, which may be still correctly
    classified, and far away. Raises ValueError or TypeError on bad input.
    """
    check_numbers(norm, steps=steps, num_classes=num_classes)
    if not real(overshoot) or not 0 <= overshoot < float("inf"):
        raise ValueError(f"overshoot must be a finite number >= 0, got {overshoot!r}")
    if num_classes < 2:
        raise ValueError("num_classes must be at least 2: the label's class and one other")

    def attack(batch: Batch) -> Tensor:
        x, y, out = batch.images, batch.labels, batch.images.clone()
        others = likely_wrong(batch, num_classes - 1)  # (n, k)
        rows = torch.arange(len(x), device=x.device)
        for _ in range(steps):
            leaf, logits = differentiable(model, x)
            f = logits.gather(1, others) - logits.gather(1, y[:, None])  # (n, k)
            nearest, w = torch.full_like(f[:, 0], float("inf"), requires_grad=False), torch.zeros_like(x)
            for k in range(f.shape[1]):
                w_k = image_gradient(f[:, k].sum(), leaf, retain_graph=k + 1 < f.shape[1])
                distance = f[:, k].detach().abs() / dual_norm_of(w_k, norm).clamp_min(torch.finfo(w_k.dtype).tiny)
                w = torch.where(per_image(distance < nearest, w), w_k, w)
                nearest = torch.minimum(nearest, distance)
            nearest = nearest.clamp_max(1e12)  # finite where the gradient is 0: such an image stays where it is
            x = (x + steepest(w, norm, (1 + overshoot) * (nearest + 1e-4))).clamp_(0, 1)
            with torch.no_grad():
                done = clearly_wrong(logits_of(model, x), y)
            if done.any():  # they leave before the next k gradients, which cost far more than a forward pass
                out[rows[done]], keep = x[done], ~done
                x, y, others, rows = x[keep], y[keep], others[keep], rows[keep]
                if not len(rows):
                    break
        out[rows] = x
        return out

    return launch(model, images, labels, attack, batch_size=batch_size)
