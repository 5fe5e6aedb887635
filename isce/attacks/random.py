"""Random numbers that belong to an image, not to its place in a batch.

The seed of an image is a hash of its pixels and of one draw from the caller's generator; every number is a hash of
(seed, counter, position). So the randomness of an image depends neither on the batch size, nor on its neighbours, nor
on the order of the calls, nor on the device: the integers, and the uniforms made of them, are equal bit for bit.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def reseed(seed: int, device: torch.device) -> None:
    """torch's own generators, which random models draw from, begin at `seed`: the CPU's and that of `device`, of no other GPU."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(int(seed))
        return
    torch.default_generator.manual_seed(int(seed))
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(int(seed))


@contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """`reseed` for what runs inside; the caller's generators go on after it where they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        reseed(seed, device)
        yield


def _signed(constant: int) -> int:
    """The int64 with the same 64 bits: torch has no unsigned arithmetic, and int64 products wrap as they should."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


GOLDEN, MIX1, MIX2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; `>>` alone would drag the sign along."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: Tensor) -> Tensor:
    """splitmix64's finaliser (Steele et al. 2014): int64 of any shape -> int64, every bit moves all."""
    z = (z ^ _shift(z, 30)) * MIX1
    z = (z ^ _shift(z, 27)) * MIX2
    return z ^ _shift(z, 31)


def draw_key(generator: torch.Generator | None) -> int:
    """One integer from the caller's generator (default: a fresh one, seed 0): the key of an attack's randomness. TypeError for
    what is none."""
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(
            f"generator must be a torch.Generator, got {generator!r}: try torch.Generator().manual_seed({generator!r})"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return int(torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device))


def image_seeds(images: Tensor, key: int | Tensor) -> Tensor:
    """(N, ...) images in [0, 1] and an integer -> (N,) int64 seeds. Pixels count in steps of 1/4080: 8-bit images are multiples of 16
    such steps, so that another device's rounding of k / 255 leads to the same seed."""
    pixels = (images.flatten(1) * 4080).round().long()
    places = torch.arange(1, pixels.shape[1] + 1, device=images.device) * GOLDEN
    return mix(mix(pixels + places).sum(1) + key)


def integers(seeds: Tensor, counter: int, n: int) -> Tensor:
    """(N,) seeds -> (N, n) uniform int64; another `counter` is another, independent stream."""
    streams = mix(seeds + _signed(counter * GOLDEN % (1 << 64)))
    return mix(streams[:, None] + torch.arange(1, n + 1, device=seeds.device) * GOLDEN)


def uniform(seeds: Tensor, counter: int, n: int) -> Tensor:
    """(N,) seeds -> (N, n) float32 uniform in [0, 1), multiples of 2^-24."""
    return _shift(integers(seeds, counter, n), 40).to(torch.float32) * 2.0**-24


def normal(seeds: Tensor, counter: int, n: int) -> Tensor:
    """(N,) seeds -> (N, n) float32 standard normal (Box-Muller)."""
    u, v = uniform(seeds, counter, 2 * n).chunk(2, dim=1)
    return (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()


def signs(seeds: Tensor, counter: int, n: int) -> Tensor:
    """(N,) seeds -> (N, n) float32, -1 or 1."""
    return (integers(seeds, counter, n) < 0).to(torch.float32) * 2 - 1


def permutations(seeds: Tensor, counter: int, n: int) -> Tensor:
    """(N,) seeds -> (N, n) int64, one random order of 0 .. n-1 per image."""
    return integers(seeds, counter, n).argsort(dim=1, stable=True)
