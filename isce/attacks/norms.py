"""Norms per image, steps of unit norm, and the feasible set {z in [0, 1]: ||z - x|| <= eps}. Norms: "l2", "linf"."""

import torch
from torch import Tensor

from isce.attacks import random

NORMS = ("l2", "linf")


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """(N,) -> (N, 1, ..., 1), as many dimensions as the images have."""
    return values.view(-1, *[1] * (images.dim() - 1))


def norm_of(deltas: Tensor, norm: str = "l2") -> Tensor:
    """(N, ...) -> (N,) norm of each image."""
    return torch.linalg.vector_norm(deltas.flatten(1), ord=2 if norm == "l2" else float("inf"), dim=1)


def dual_norm_of(gradients: Tensor, norm: str = "l2") -> Tensor:
    """(N, ...) -> (N,) the norm that measures gradients when `norm` measures images: l2 for l2, l1 for linf."""
    return torch.linalg.vector_norm(gradients.flatten(1), ord=2 if norm == "l2" else 1, dim=1)


def tiny(x: Tensor) -> float:
    """Guard of a normaliser: the least number whose square the dtype still holds (1e-19 in float32)."""
    return torch.finfo(x.dtype).tiny ** 0.5


def steepest(gradients: Tensor, norm: str = "l2", length: Tensor | float = 1.0) -> Tensor:
    """The step of this length, a number or (N,), that ascends most: along g, or along sign(g) in linf; 0 where g = 0."""
    if norm == "linf":
        return gradients.sign() * (per_image(length, gradients) if isinstance(length, Tensor) else length)
    return gradients * per_image(length / norm_of(gradients).clamp_min_(tiny(gradients)), gradients)


def project(points: Tensor, images: Tensor, eps: float, norm: str = "l2") -> Tensor:
    """Into the eps-ball around the images, then into [0, 1]: clipping moves a point only closer to its image."""
    delta = points - images
    if norm == "linf":
        delta.clamp_(-eps, eps)
    else:
        delta.mul_(per_image((eps / norm_of(delta).clamp_min_(tiny(delta))).clamp_max_(1), delta))
    return delta.add_(images).clamp_(0, 1)


def random_in_ball(images: Tensor, seeds: Tensor, counter: int, eps: float, norm: str = "l2") -> Tensor:
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

    points, normals w (n, d), offsets b (n,) -> (n, d). Exact, by sorting: pulled by a force t, coordinate i moves by
    t |w_i| (l2) or t (linf) towards b until it meets the box after its room r_i, so that <w, z> grows with t as a
    piecewise linear function, whose kinks are at r_i / |w_i| or r_i.
    """
    scale = normals.abs().amax(1, keepdim=True).clamp_min(tiny(normals))
    w, gap = normals / scale, (offsets - (normals * points).sum(1)) / scale[:, 0]
    w, gap = torch.where(gap[:, None] < 0, -w, w), gap.abs()[:, None]
    pull, room = w.abs(), torch.where(w > 0, 1 - points, points)
    speed = pull if norm == "l2" else torch.ones_like(pull)
    kinks, order = torch.where(pull > 0, room / speed, 0).nan_to_num_(0).sort(dim=1)
    slopes = (pull * speed).gather(1, order)  # what coordinate i adds to <w, z> per unit of force, until its kink
    after = slopes.flip(1).cumsum(1).flip(1)  # slope of <w, z> before each kink
    starts = torch.cat([torch.zeros_like(gap), kinks[:, :-1]], dim=1)
    gained = (after * (kinks - starts)).cumsum(1)  # <w, z> at each kink, counted from the point
    k = (gained < gap).sum(1, keepdim=True).clamp_max(points.shape[1] - 1)  # the piece on which the gap closes
    before = gained.gather(1, k) - after.gather(1, k) * (kinks.gather(1, k) - starts.gather(1, k))
    force = starts.gather(1, k) + (gap - before) / after.gather(1, k).clamp_min(tiny(points))
    return points + w.sign() * torch.minimum(force.clamp_max(1 / tiny(points)) * speed, room)
