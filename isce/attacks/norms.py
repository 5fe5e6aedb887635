"""Norms per image, steps of unit norm, and the feasible set {z in [0, 1]: ||z - x|| <= eps}. Norms: "l2", "linf"."""

import torch
from torch import Tensor

from isce.attacks import random

NORMS = ("l2", "linf")


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """(N,) -> (N, 1, ..., 1), as many dimensions as the images have."""
    return values.view(-1, *[1] * (images.dim() - 1))


def scaled(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """(N, ...) -> the same times a power of two, which is exact and brings each image's largest entry to [1/2, 1), and that power
    (N,): so squares neither underflow nor overflow, however small or large a model's logits are."""
    largest = gradients.flatten(1).abs().amax(1)
    power = torch.where(largest == 0, 1, torch.frexp(largest).mantissa / largest).clamp_max(
        1 / torch.finfo(largest.dtype).tiny
    )
    return gradients * per_image(power, gradients), power


def norm_of(deltas: Tensor, norm: str = "l2") -> Tensor:
    """(N, ...) -> (N,) norm of each image."""
    return torch.linalg.vector_norm(deltas.flatten(1), ord=2 if norm == "l2" else float("inf"), dim=1)


def dual_norm_of(gradients: Tensor, norm: str = "l2") -> Tensor:
    """(N, ...) -> (N,) the norm that measures gradients when `norm` measures images: l2 for l2, l1 for linf."""
    small, power = scaled(gradients)
    return torch.linalg.vector_norm(small.flatten(1), ord=2 if norm == "l2" else 1, dim=1) / power


def tiny(x: Tensor) -> float:
    """Guard of a normaliser: the least number whose square the dtype still holds (1e-19 in float32)."""
    return torch.finfo(x.dtype).tiny ** 0.5


def steepest(gradients: Tensor, norm: str = "l2", length: Tensor | float = 1.0) -> Tensor:
    """The step of this length, a number or (N,), that ascends most: along g, or along sign(g) in linf; 0 where g = 0."""
    if norm == "linf":
        return gradients.sign() * (per_image(length, gradients) if isinstance(length, Tensor) else length)
    small, _ = scaled(gradients)
    return small * per_image(length / norm_of(small).clamp_min_(tiny(small)), small)


def project(points: Tensor, images: Tensor, eps: float | Tensor, norm: str = "l2") -> Tensor:
    """Into the eps-ball around the images, then into [0, 1]: clipping moves a point only closer to its image."""
    delta = points - images
    if norm == "linf":
        delta.clamp_(-eps, eps)  # type: ignore[arg-type]  # both numbers, or both tensors
    else:
        delta.mul_(per_image((eps / norm_of(delta).clamp_min_(tiny(delta))).clamp_max_(1), delta))
    return delta.add_(images).clamp_(0, 1)


def random_in_ball(images: Tensor, seeds: Tensor, counter: int, eps: float | Tensor, norm: str = "l2") -> Tensor:
    """A point uniform in the eps-ball around each image, clipped to [0, 1]. (N, ...) -> (N, ...)."""
    d = images[0].numel()
    if norm == "linf":
        delta = (2 * random.uniform(seeds, counter, d) - 1) * eps
    else:  # a direction uniform on the sphere, times a radius whose d-th power is uniform
        direction = random.normal(seeds, counter, d)
        radius = eps * random.uniform(seeds, ~counter, 1) ** (1 / d)
        delta = direction * (radius / direction.norm(dim=1, keepdim=True))
    return project(images + delta.to(images.dtype).view_as(images), images, eps, norm)


def onto_hyperplane(points: Tensor, normals: Tensor, offsets: Tensor, norm: str = "l2") -> Tensor:
    r"""The nearest z in [0, 1]^d to each point with <w, z> = b; where there is none, the corner that comes closest.

    points, normals w (n, d), offsets b (n,) -> (n, d). Pulled by a force t, coordinate i moves by t |w_i| (l2) or t (linf)
    towards b until it meets the box after its room r_i, so that <w, z> is increasing, concave and piecewise linear in t:
    Newton's method from t = 0 comes from below and is exact once it stands on the right piece, mostly after 4 or 5 steps.
    (Sorting the pieces, as FAB's authors do, takes three times as long for 784 pixels.)
    """
    least, most = torch.finfo(points.dtype).tiny, 1 / tiny(points)
    scale = normals.abs().amax(1, keepdim=True).clamp_min(least)
    w, gap = normals / scale, (offsets - (normals * points).sum(1)) / scale[:, 0]
    w, gap = torch.where(gap[:, None] < 0, -w, w), gap.abs().clamp_max(most)
    pull, room = w.abs(), torch.where(w > 0, 1 - points, points)
    speed = pull if norm == "l2" else torch.ones_like(pull)
    force, rows = torch.zeros_like(gap), torch.arange(len(gap), device=gap.device)
    left = (force, gap, pull, speed, room)  # of the rows whose gap is still open
    while len(rows):
        t, need, p, v, r = left
        wish = t[:, None] * v
        lack, slope = need - (torch.minimum(wish, r) * p).sum(1), (p * v * (wish < r)).sum(1)
        going = (lack > 8 * torch.finfo(gap.dtype).eps * need) & (slope > 0)
        further = torch.where(going, (t + lack / slope.clamp_min(least)).clamp_max(most), t)
        going &= further > t  # a step lost in rounding is the last
        force[rows] = further
        if going.all():
            left = (further, need, p, v, r)
        else:
            rows, left = rows[going], tuple(s[going] for s in (further, need, p, v, r))  # type: ignore[assignment]
    return points + w.sign() * torch.minimum(force[:, None] * speed, room)
