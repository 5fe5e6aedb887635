"""What chance can do: accuracies over seeds, and paired tests of outcomes, which images each network is right on."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binom, chi2
from scipy.stats import f as f_distribution

from isce import record

LEVEL = 0.05  # of every test


def spread(values: Sequence[float], n: int) -> dict[str, Any]:
    """Accuracies in %, one per seed, each over n images -> accuracy, low, high, std, n, seeds.

    low, high: Wilson's 95 % interval over images, of the mean where there are several seeds. It counts n images, not
    n x seeds, since models of several seeds fail on the same images: never too narrow, and too wide where they do not.
    std: the standard deviation over several seeds, the other source of doubt, which no count of images makes smaller.
    """
    mean = sum(values) / len(values)
    low, high = record.wilson(mean * n / 100, n)
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else math.nan
    return {"accuracy": mean, "low": low, "high": high, "std": std, "n": n, "seeds": len(values)}


def nested(found: Sequence[dict[int, np.ndarray]]) -> list[dict[int, np.ndarray]]:
    """Outcomes by seed -> the same on the images that all of them have: every n is the first n of one permutation."""
    n = min((len(right) for seeds in found for right in seeds.values()), default=0)
    return [{seed: right[:n] for seed, right in seeds.items()} for seeds in found]


def shared(found: Sequence[dict[int, np.ndarray]]) -> list[dict[int, np.ndarray]]:
    """Outcomes by seed, of the seeds that all have, and `nested`: what another seed lacks costs none of these images."""
    seeds = sorted(set.intersection(*map(set, found)))
    return nested([{seed: right[seed] for seed in seeds} for right in found])


def sign_flip(differences: np.ndarray) -> float:
    """Exact two-sided randomisation test that paired differences (n,), whole numbers, lie around 0: the p-value.

    Under the null hypothesis each difference would as soon have the other sign. Where all are -1, 0 or 1 it is McNemar's.
    """
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    sums = np.ones(1)  # the probabilities of the sum: -total, 2 - total, ..., total
    for size, count in zip(sizes[sizes > 0], counts[sizes > 0], strict=True):
        own = np.zeros(size * count + 1)
        own[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        sums = np.convolve(sums, own)
    total = len(sums) - 1
    as_far = np.abs(2 * np.arange(total + 1) - total) >= abs(differences.sum())
    return min(1.0, float(sums[as_far].sum()))


def p_below(ours: dict[int, np.ndarray], theirs: dict[int, np.ndarray]) -> float:
    """The p-value for `theirs` being below `ours`, outcomes by seed as from `outcomes`: `sign_flip` of the seeds that are right
    on an image, ours less theirs. An image counts once: its outcomes under several seeds are not independent.

    1.0 unless ours is above with every seed that both have (a seed is one start and one order of batches for all methods), or
    where they share none: a test over images knows nothing of other trainings.
    """
    ours, theirs = shared([ours, theirs])
    lead = [ours[seed].astype(int) - theirs[seed] for seed in ours]
    return sign_flip(np.sum(lead, axis=0)) if lead and all(one.sum() > 0 for one in lead) else 1.0


def not_rejected(p: dict[str, float]) -> list[str]:
    """The names whose hypothesis Holm's step-down procedure keeps at LEVEL (Holm 1979)."""
    order = sorted(p, key=lambda name: p[name])
    kept = (k for k, name in enumerate(order) if p[name] * (len(order) - k) >= LEVEL)
    return order[next(kept, len(order)) :]


def best(found: dict[str, dict[int, np.ndarray]]) -> dict[str, str]:
    """A column's marks, from each method's outcomes by seed: "best" for one significantly above every other; where none
    is, "tied" for the highest and all that are not significantly below it.

    No mark where a method has no record ("best" would be untested), nor where all would be tied.
    """
    if not all(found.values()):
        return {}
    found = dict(zip(found, nested(list(found.values())), strict=True))
    means = {method: np.mean([right.mean() for right in seeds.values()]) for method, seeds in found.items()}
    top = max(means, key=lambda method: means[method])
    tied = not_rejected({method: p_below(found[top], seeds) for method, seeds in found.items() if method != top})
    if len(tied) == len(found) - 1:
        return {}
    return dict.fromkeys([top, *tied], "tied") if tied else {top: "best"}


def ablation_test(grid: np.ndarray, seeds: np.ndarray, sides: tuple[int, int]) -> tuple[str, float]:
    """Do accuracies vary more over settings than over trainings of one setting? In words, and the p-value of an F test.

    grid (S * M, n), row by row of `sides`; seeds (R, n): which of the same n images each network is right on. That the networks of
    a grid differ at all (`cochran`) says little, where those of one setting do, too. In the words stand as well how wide
    a grid the test would see, in points, and `factors`, which asks the grid alone.
    """
    over_grid, over_seeds = (100 * right.mean(1) for right in (grid, seeds))
    ratio, freedom = over_grid.var(ddof=1) / max(over_seeds.var(ddof=1), 1e-9), (len(grid) - 1, len(seeds) - 1)
    words = [
        f"{len(right)} {what} {a.min():.1f} to {a.max():.1f} % (sd {a.std(ddof=1):.2f}, Cochran's Q p = {cochran(right):.1g})"
        for right, a, what in ((grid, over_grid, "settings"), (seeds, over_seeds, "seeds of one"))
    ]
    of_s, of_m = factors(over_grid.reshape(sides))
    least = math.sqrt(f_distribution.isf(LEVEL, *freedom))
    words += [
        f"significant from {least:.1f} times the seeds' sd on, {least * over_seeds.std(ddof=1):.2f} points",
        f"within the grid, additively: s p = {of_s:.2g}, m p = {of_m:.2g}",
    ]
    return ", ".join(words), float(f_distribution.sf(ratio, *freedom))


def factors(accuracies: np.ndarray) -> tuple[float, float]:
    """Two-way analysis of variance of accuracies (S, M), one per cell: the p-values that rows, and that columns, play no part."""
    rows, columns = accuracies.mean(1, keepdims=True), accuracies.mean(0, keepdims=True)
    rest = accuracies - rows - columns + accuracies.mean()
    free = [side - 1 for side in accuracies.shape]
    noise = max(float((rest**2).sum()) / (free[0] * free[1]), 1e-9)
    effects = [
        float(((means - accuracies.mean()) ** 2).sum()) * other
        for means, other in zip((rows, columns), accuracies.shape[::-1], strict=True)
    ]
    p = [
        float(f_distribution.sf(effect / k / noise, k, free[0] * free[1]))
        for effect, k in zip(effects, free, strict=True)
    ]
    return p[0], p[1]


def cochran(right: np.ndarray) -> float:
    """Cochran's Q test that k networks, (k, n) booleans over the same images, have one accuracy: the p-value (Cochran 1950)."""
    of_network, of_image, k = right.sum(1), right.sum(0), len(right)
    unlike = (of_image * (k - of_image)).sum()  # images on which the networks differ
    q = k * (k - 1) * ((of_network - of_network.mean()) ** 2).sum() / max(unlike, 1)
    return float(chi2.sf(q, k - 1))
