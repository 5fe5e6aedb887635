"""SimBA, the simple black-box attack: Guo et al. 2019, https://arxiv.org/abs/1905.07121."""

import math
from typing import Literal, overload

import torch
from torch import Tensor, nn

from isce.attacks import random
from isce.attacks.common import Batch, check_images, check_numbers, finite, launch, logits_of, misled, rounding
from isce.attacks.norms import norm_of, per_image
from isce.attacks.objectives import resolve


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II, (n, n) float64: row u is the cosine of frequency u."""
    grid = torch.arange(n, dtype=torch.float64)
    matrix = (2 / n) ** 0.5 * (math.pi / n * (grid + 0.5) * grid[:, None]).cos()
    matrix[0] /= 2**0.5
    return matrix


@overload
def simba(model: nn.Module, images: Tensor, labels: Tensor, *, queries: int, step_size: float = ..., basis: str = ...,
          eps: float | None = ..., freq_dims: int | None = ..., targeted: bool = ..., targets: Tensor | None = ...,
          return_queries: Literal[False] = ..., batch_size: int | None = ...,
          generator: torch.Generator | None = ...) -> Tensor: ...  # fmt: skip
@overload
def simba(model: nn.Module, images: Tensor, labels: Tensor, *, queries: int, step_size: float = ..., basis: str = ...,
          eps: float | None = ..., freq_dims: int | None = ..., targeted: bool = ..., targets: Tensor | None = ...,
          return_queries: Literal[True], batch_size: int | None = ...,
          generator: torch.Generator | None = ...) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def simba(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    queries: int,
    step_size: float = 0.2,
    basis: str = "pixel",
    eps: float | None = None,
    freq_dims: int | None = None,
    targeted: bool = False,
    targets: Tensor | None = None,
    return_queries: bool = False,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Try x - step q, then x + step q, for orthonormal directions q in random order; keep the first that lowers p(y).

    Queries are counted as the authors do: one for the clean image, one for each first sign, one more for the second
    where the first does not help. Each image is at its own direction and sign, so that a forward pass spends exactly one
    query of each image and none is wasted. p(y) is compared by its log-odds in float64, which still move where a float32
    probability is exactly 1. Directions come in a random order per image without replacement (`pixel`: one channel of
    one pixel; `dct`: one cosine, of the lowest `freq_dims` frequencies each way, all by default); once all are tried, in
    a new random order. Points are clipped to [0, 1]; with `eps`, steps that leave the l2 ball are refused (their query counts).

    images (N, ...) in [0, 1] ((N, C, H, W) for dct), labels (N,); step_size and eps (L2; None: no ball) in [0, 1] pixels; `queries` count
    the clean image's. Returns (N, ...);
    with return_queries also (N,) int64: the queries used until success, or `queries` where there is none, and 1 for
    images that were misclassified. The accuracy after q queries is the share of images that used more than q, or are
    still right. Raises ValueError or TypeError on bad input.
    """
    check_numbers(queries=queries, step_size=step_size, freq_dims=freq_dims)
    if eps is not None:
        check_numbers(eps=eps)
    if basis not in ("pixel", "dct"):
        raise ValueError(f"unknown basis {basis!r}: choose 'pixel' or 'dct'")
    check_images(model, images, labels, spatial="basis 'dct'" if basis == "dct" else "")
    if basis == "pixel" and freq_dims is not None:
        raise ValueError("freq_dims belongs to basis='dct'")
    loss = resolve("ce", targeted)
    with torch.inference_mode(False):
        used = torch.ones(len(images), dtype=torch.long, device=images.device)

    @torch.no_grad()
    def attack(batch: Batch) -> Tensor:
        x0, y, t, shape = batch.images, batch.labels, batch.targets, batch.images.shape[1:]
        high, wide = (min(freq_dims or n, n) for n in shape[1:]) if basis == "dct" else (0, 0)  # frequencies each way
        directions = shape[0] * high * wide if basis == "dct" else x0[0].numel()
        passes = range(max(1, math.ceil((queries - 1) / directions)))
        order = torch.cat([random.permutations(batch.seeds, p, directions) for p in passes], dim=1)
        if basis == "dct":
            rows_of, columns_of = (dct_matrix(n).to(x0) for n in shape[1:])

        def moved(x: Tensor, at: Tensor, step: Tensor) -> Tensor:
            """x one step along each image's direction number `at`; step (n, 1), at (n, 1)."""
            if basis == "pixel":
                flat = x.flatten(1)
                return flat.scatter(1, at, (flat.gather(1, at) + step).clamp_(0, 1)).view_as(x)
            c, u, v = at[:, 0] // (high * wide), at[:, 0] // wide % high, at[:, 0] % wide
            wave = rows_of[u][:, :, None] * columns_of[v][:, None, :]  # (n, H, W)
            z = x.clone()
            z[torch.arange(len(z), device=z.device), c] += step[:, :, None] * wave
            return z.clamp_(0, 1)

        out, rows, x = x0.clone(), torch.arange(len(x0), device=x0.device), x0
        best = loss(batch.logits.double(), y, t)
        place = torch.zeros_like(y)[:, None]  # (n, 1): how many directions lie behind
        second = torch.zeros_like(place, dtype=torch.bool)  # (n, 1): the first sign has failed
        for query in range(2, queries + 1):
            z = moved(x, order.gather(1, place), step_size * (2 * second.to(x.dtype) - 1))
            logits = logits_of(model, z)
            value = loss(logits.double(), y, t)
            better = value > best + rounding(logits)  # a pixel at 0 cannot go down: rounding is no progress
            better |= ~finite(logits)  # a model that breaks down is misled
            if eps is not None:
                better &= norm_of(z - x0) <= eps
            x = torch.where(per_image(better, z), z, x)
            best = torch.where(better, value, best)
            place = place + (better[:, None] | second)
            second = ~(better[:, None] | second)
            hit = better & misled(logits, y, t)
            if hit.any():
                out[rows[hit]], used[batch.places[rows[hit]]], keep = x[hit], query, ~hit
                rows, x, x0, y, order, best = rows[keep], x[keep], x0[keep], y[keep], order[keep], best[keep]
                place, second, t = place[keep], second[keep], None if t is None else t[keep]
                if not len(rows):
                    break
        out[rows], used[batch.places[rows]] = x, queries
        return out

    adversarial = launch(
        model, images, labels, attack, targeted=targeted, targets=targets, batch_size=batch_size, generator=generator
    )
    return (adversarial, used) if return_queries else adversarial
