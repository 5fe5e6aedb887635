"""Square attack: Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049."""

import torch
from torch import Tensor, nn

from isce.attacks import random
from isce.attacks.common import Batch, check_images, check_numbers, launch, logits_of, misled, rounding
from isce.attacks.norms import norm_of, per_image, tiny
from isce.attacks.objectives import margin

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the squares' area, in 10,000ths of the queries


def bump(size: int) -> Tensor:
    """The l2 attack's window, (size, size) of norm 1: two pyramids side by side, one up, one down."""

    def pyramid(height: int, width: int) -> Tensor:
        rings = max(height // 2, width // 2) + 1
        heights = (1 / torch.arange(1, rings + 1) ** 2).flip(0).cumsum(0).flip(0)
        i, j = (torch.arange(height) - height // 2).abs(), (torch.arange(width) - width // 2).abs()
        window = heights[torch.maximum(i[:, None], j[None, :])]
        return window / window.norm()

    halves = [pyramid(size // 2, size)] if size > 1 else []
    window = torch.cat([*halves, -pyramid(size - size // 2, size)])
    return window / window.norm()


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    queries: int = 5000,
    norm: str = "l2",
    p_init: float = 0.8,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random search with square-shaped updates, kept where they raise the margin: no gradients are used.

    images (N, C, H, W) in [0, 1], labels (N,); eps in [0, 1] pixels; `queries` forward passes per image at most, not counting
    the clean one (SimBA's count it); p_init: the share of the pixels that the first squares cover, halved on the paper's schedule. Every image has its own squares. Returns
    (N, C, H, W): the first misclassified point, or the one of largest margin. Raises ValueError or TypeError on bad input.
    """
    check_numbers(norm, eps=eps, queries=queries, p_init=p_init)
    check_images(model, images, labels, spatial="square")
    if p_init > 1:
        raise ValueError(f"p_init is a share of the pixels, at most 1, got {p_init}")
    channels, height, width = images.shape[1:]

    @torch.no_grad()
    def attack(batch: Batch) -> Tensor:
        x0, y, seeds, out = batch.images, batch.labels, batch.seeds, batch.images.clone()
        rows = torch.arange(len(y), device=y.device)
        best, x = torch.full_like(batch.logits[:, 0], float("-inf")), x0
        last = 0
        for query in range(queries):
            if query == 0:
                z = first(x0, seeds)
            else:
                p = p_init / 2 ** sum(query * 10_000 // queries > h for h in HALVINGS)
                side = round((p * height * width) ** 0.5)
                side = max(side, 1) if norm == "linf" else max(side, 3) // 2 * 2 + 1
                side = min(side, height, width)
                if side != last:
                    last, window = side, bump(side).to(x0)
                    grid = torch.arange(side, device=y.device)
                bits = random.integers(seeds, query, 5 + channels)
                place = [  # two windows, (n, 1, side, 1) rows and (n, 1, 1, side) columns; the authors' never touch the end
                    per_image((bits[:, i] & 0xFFFFFF) * max(span - side, 1) >> 24, x0) + grid.view(shape)
                    for i, (span, shape) in enumerate([(height, (-1, 1)), (width, (1, -1))] * 2)
                ]
                n, c = (torch.arange(k, device=y.device) for k in (len(y), channels))
                n, c = n.view(-1, 1, 1, 1), c.view(-1, 1, 1)
                here, there = (n, c, place[0], place[1]), (n, c, place[2], place[3])
                sign = ((bits[:, 5:] < 0).to(x0.dtype) * 2 - 1)[:, :, None, None]
                if norm == "linf":
                    z = x.clone()
                    z[here] = (x0[here] + eps * sign).clamp_(0, 1)
                else:
                    pattern = torch.where((bits[:, 4] < 0)[:, None, None], window, window.T)[:, None] * sign
                    z = moved(x - x0, here, there, pattern).add_(x0).clamp_(0, 1)
            logits = logits_of(model, z)
            value = margin(logits, y)
            hit = misled(logits, y)
            better = hit | (value > best + rounding(logits))
            x, best = torch.where(per_image(better, x), z, x), torch.where(better, value, best)
            if hit.any():
                out[rows[hit]], keep = z[hit], ~hit
                rows, x0, y, seeds, x, best = (s[keep] for s in (rows, x0, y, seeds, x, best))
                if not len(rows):
                    break
        out[rows] = x
        return out

    def first(x0: Tensor, seeds: Tensor) -> Tensor:
        """The first point: vertical stripes of +-eps (linf), or a grid of bumps of random signs, of norm eps (l2)."""
        if norm == "linf":
            stripes = random.signs(seeds, 0, channels * width).view(-1, channels, 1, width)
            return (x0 + eps * stripes.to(x0.dtype)).clamp_(0, 1)
        side = max(min(height, width) // 5, 1)
        tiles = height // side, width // side
        signs = random.signs(seeds, 0, channels * tiles[0] * tiles[1]).view(-1, channels, *tiles)
        grid = torch.kron(signs.to(x0.dtype), bump(side).to(x0))  # (n, channels, tiles * side, tiles * side)
        delta, top, left = torch.zeros_like(x0), (height - grid.shape[2]) // 2, (width - grid.shape[3]) // 2
        delta[:, :, top : top + grid.shape[2], left : left + grid.shape[3]] = grid
        return (x0 + delta * per_image(eps / norm_of(delta), delta)).clamp_(0, 1)

    def moved(delta: Tensor, here: tuple, there: tuple, pattern: Tensor) -> Tensor:
        """The l2 proposal: the mass of two windows, and what the ball still allows, goes to the first one, as a bump."""
        total = norm_of(delta).square()
        window = delta[here]
        delta = delta.clone()
        mass = delta.square().sum((2, 3), keepdim=True)
        delta[here] = 0
        delta[there] = 0
        mass = mass - delta.square().sum((2, 3), keepdim=True)  # per channel, of both windows
        spare = per_image((eps**2 - total).clamp_min(0) / channels, delta)
        new = pattern + window / window.square().sum((2, 3), keepdim=True).sqrt().clamp_min(tiny(delta))
        new *= ((mass + spare).clamp_min(0) / new.square().sum((2, 3), keepdim=True).clamp_min(tiny(delta))).sqrt()
        delta[here] = new
        return delta * per_image(eps / norm_of(delta).clamp_min(tiny(delta)), delta)

    return launch(model, images, labels, attack, batch_size=batch_size, generator=generator)
