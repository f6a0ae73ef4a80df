"""Intervals cover what they say: simulated studies whose means are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from agent.analysis.intervals import MANY, grouped_mean_interval, mean_intervals

STUDIES = 2000
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
SEEDS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(0.6, 0.02, shape), 0.6),
    "uniform": (lambda rng, shape: rng.uniform(0.5, 0.7, shape), 0.6),
    "near one": (lambda rng, shape: rng.beta(20, 5, shape), 0.8),  # skewed, as an SSIM near 1
}


def coverage(draw: Draw, truth: float, seeds: int) -> float:
    """The part of the studies of so many seeds whose interval has the true mean in it."""
    samples = draw(np.random.default_rng(seeds), (STUDIES, seeds))
    low, high = mean_intervals(list(samples))
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("kind", SEEDS)
def test_five_seeds_cover_the_known_mean(kind: str) -> None:
    assert 0.93 <= coverage(*SEEDS[kind], seeds=5) <= 0.97


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.92), (3, 0.92), (10, 0.93)])
def test_other_numbers_of_seeds_come_near_it(seeds: int, least: float) -> None:
    assert least <= coverage(*SEEDS["normal"], seeds=seeds) <= 0.975


def test_percentiles_of_resampled_means_would_not() -> None:
    """Why it is not the plain bootstrap."""
    samples = np.random.default_rng(5).normal(size=(STUDIES, 5))
    drawn = np.random.default_rng(6).integers(0, 5, (1000, 5))
    low, high = np.quantile(samples[:, drawn].mean(axis=2), [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.87


def test_an_interval_depends_on_its_own_numbers_only() -> None:
    one, other = np.array([0.1, 0.2, 0.4]), np.array([5.0, 7.0])
    low, high = mean_intervals([one, other, np.array([]), np.array([3.0]), one])
    assert (low[0], high[0]) == (low[4], high[4]) == tuple(v[0] for v in mean_intervals([one]))
    assert np.isnan(low[2:4]).all() and np.isnan(high[2:4]).all()
    scaled = mean_intervals([1000 * one + 7])
    assert scaled[0] == pytest.approx(1000 * low[0] + 7)
    assert scaled[1] == pytest.approx(1000 * high[0] + 7)


def test_equal_seeds_leave_no_room() -> None:
    low, high = mean_intervals([np.full(4, 0.7)])
    assert low[0] == pytest.approx(0.7) and high[0] == pytest.approx(0.7)


def test_a_mean_of_configurations_is_covered_too_and_knows_more_than_each() -> None:
    rng = np.random.default_rng(0)
    hits, narrower = 0, 0
    for _ in range(60):
        samples = [rng.normal(mean, 0.02, 3) for mean in (0.4, 0.5, 0.9)]
        low, high = grouped_mean_interval(samples)
        hits += low <= 0.6 <= high
        own_low, own_high = mean_intervals(samples)
        narrower += high - low < float(np.mean(own_high - own_low))
    assert hits >= 52 and narrower == 60
    assert np.isnan(grouped_mean_interval([np.array([1.0]), np.array([1.0, 2.0])])).all()


def test_the_interval_of_many_goes_on_from_that_of_few() -> None:
    samples = list(np.random.default_rng(1).normal(0.5, 0.1, (MANY, 3)))
    reach = [np.diff(grouped_mean_interval(some))[0] for some in (samples[:-1], samples)]
    assert reach[1] == pytest.approx(reach[0], rel=0.05) and reach[0] != reach[1]
