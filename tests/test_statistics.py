"""What chance can do: paired tests and tests of variance, against scipy and by enumeration."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, chi2
from scipy.stats import f as f_distribution

from isce import statistics


def right(count: int, n: int = 100, first: int = 0) -> np.ndarray:
    """Outcomes of n images, right from image `first` on, `count` of them."""
    bits = np.zeros(n, dtype=bool)
    bits[first : first + count] = True
    return bits


@pytest.mark.parametrize(
    ("counts", "marks"),
    [
        ({"a": 60, "b": 20, "c": 20}, {"a": "best"}),
        ({"a": 60, "b": 58, "c": 20}, {"a": "tied", "b": "tied"}),
        ({"a": 60, "b": 60, "c": 20}, {"a": "tied", "b": "tied"}),
        ({"a": 20, "b": 60, "c": 54}, {"b": "best"}),  # 6 to 0, p = 0.031, times 1: of two, the other is rejected first
        ({"a": 20, "b": 60, "c": 54, "d": 54}, {"b": "tied", "c": "tied", "d": "tied"}),  # p = 0.031, times 2
        ({"a": 60, "b": 59, "c": 58}, {}),  # nobody can be told apart
        ({"a": 0, "b": 0, "c": 0}, {}),
    ],
)
def test_best_needs_a_paired_test(counts: dict[str, int], marks: dict[str, str]) -> None:
    assert statistics.best({name: {0: right(count)} for name, count in counts.items()}) == marks


def test_best_needs_a_record_of_every_method() -> None:
    assert statistics.best({"a": {0: right(60)}, "b": {0: right(20)}, "c": {}}) == {}


def test_sign_flip_is_mcnemar_for_one_seed_and_exact_for_several() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(500) < 0.6, rng.random(500) < 0.5
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert statistics.sign_flip(a.astype(int) - b) == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    for differences in (np.array([3, -1, 2, 2, 0, 1, 3, -2]), np.array([0, 0]), np.array([4])):
        signs = np.array(list(itertools.product([1, -1], repeat=len(differences))))
        as_far = np.abs(signs @ differences) >= abs(differences.sum())
        assert statistics.sign_flip(differences) == pytest.approx(as_far.mean())


def test_the_paired_test_counts_an_image_once_and_knows_its_direction() -> None:
    high, low = {seed: right(54) for seed in range(3)}, {seed: right(50) for seed in range(3)}
    assert statistics.p_below(high, low) == pytest.approx(
        2 / 2**4
    )  # 4 images to 0; pooled over seeds it would be 12 to 0
    assert statistics.p_below({0: right(54)}, {0: right(50)}) == pytest.approx(2 / 2**4)
    assert statistics.p_below(low, high) == 1.0
    assert statistics.p_below({0: right(54)}, {}) == statistics.p_below({}, {0: right(54)}) == 1.0
    assert statistics.p_below({0: right(54)}, {1: right(0)}) == 1.0  # no seed in common
    assert statistics.p_below({0: right(54), 1: right(0)}, {0: right(50)}) == pytest.approx(2 / 2**4)


def test_a_method_is_above_another_where_it_is_with_every_seed() -> None:
    below = {0: right(50), 1: right(10), 2: right(10)}
    assert statistics.p_below({0: right(60), 1: right(20), 2: right(11)}, below) < 0.01
    assert (
        statistics.p_below({0: right(60), 1: right(60), 2: right(10)}, below) == 1.0
    )  # a fourth training might as well lose


def test_the_same_images_are_compared() -> None:
    """60 against 50 of the same images is significant; of others it is not: the test is paired."""
    assert statistics.best({"a": {0: right(60)}, "b": {0: right(50)}}) == {"a": "best"}
    assert statistics.best({"a": {0: right(60)}, "b": {0: right(50, first=50)}, "c": {0: right(1)}}) == {
        "a": "tied",
        "b": "tied",
    }


def test_the_grid_is_measured_by_the_seeds() -> None:
    """The F test against its own definition, on accuracies of 20 to 80 and of 49 to 51 %; Cochran's Q against McNemar's."""
    images = np.arange(100)
    grid, seeds = (np.stack([images < right for right in ends]) for ends in ([20, 40, 60, 80], [48, 49, 51, 52]))
    words, p = statistics.ablation_test(grid, seeds, (2, 2))
    assert words.startswith("4 settings 20.0 to 80.0 % (sd 25.82, Cochran's Q p = ")
    assert p == pytest.approx(f_distribution.sf(200, 3, 3))  # variances of 2000 / 3 and 10 / 3
    assert "significant from 3.0 times the seeds' sd on, 5.56 points" in words  # the 5 % point of F(3, 3) is 9.28
    assert statistics.ablation_test(seeds, grid, (2, 2))[1] > 0.99
    a, b = images < 60, images < 40
    assert statistics.cochran(np.stack([a, b])) == pytest.approx(
        float(chi2.sf(20**2 / 20, 1))
    )  # McNemar, no correction
    assert statistics.cochran(np.stack([a, a, a])) == 1.0


def test_factors_are_those_of_a_regression() -> None:
    """Two-way analysis of variance against nested least squares: what leaving a factor out adds to the residuals."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 5)) + np.arange(4)[:, None]
    s, m = (np.eye(k)[index.ravel()] for k, index in zip((4, 5), np.indices((4, 5)), strict=True))

    def rest(*parts: np.ndarray) -> float:
        design = np.hstack([np.ones((20, 1)), *parts])
        return float(((table.ravel() - design @ np.linalg.lstsq(design, table.ravel(), rcond=None)[0]) ** 2).sum())

    expected = [
        f_distribution.sf((rest(other) - rest(s, m)) / k / (rest(s, m) / 12), k, 12) for other, k in ((m, 3), (s, 4))
    ]
    assert statistics.factors(table) == pytest.approx(expected)
