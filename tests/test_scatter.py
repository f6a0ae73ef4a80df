"""Moderated variances: limits worked out by hand, and what they cover in simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from agent.analysis.means import means, seed_correlation
from agent.analysis.scatter import moderated, trend_terms, trigamma_inverse

NO_TERMS = np.empty((54, 0))


def terms_of(k: int) -> np.ndarray:
    return np.empty((k, 0))


def test_the_inverse_of_trigamma() -> None:
    y = np.array([1e-3, 0.5, 1.0, 7.5, 1e4])
    assert trigamma_inverse(special.polygamma(1, y)) == pytest.approx(y, rel=1e-6)


def test_an_even_scatter_is_pooled_and_an_uneven_one_is_not() -> None:
    rng = np.random.default_rng(0)
    even = rng.normal(0, 0.02, (200, 3))
    moderate = means(even, "linear", terms_of(200)).scatter
    assert moderate.std == pytest.approx(0.02, rel=0.15)
    assert np.median(moderate.freedom - 2) > 20
    uneven = even * np.exp(rng.normal(0, 1.2, 200))[:, None]
    shrunk = means(uneven, "linear", terms_of(200)).scatter
    assert np.median(shrunk.freedom - 2) < 3
    # What is left of the shrinking still pulls every variance towards the common one.
    assert np.ptp(np.log(shrunk.std)) < np.ptp(np.log(shrunk.own))


def test_a_moderated_variance_is_the_mean_of_both_by_their_freedom() -> None:
    own = np.array([0.01, 0.02, 0.03, np.nan])
    counts = np.array([2, 3, 5, 1])
    scatter = moderated(own, counts, np.full(4, 0.5), "linear", terms_of(4))
    d = np.array([1, 2, 4, 0])
    d0 = scatter.freedom - d
    expected = (d0 * scatter.expected**2 + d * np.nan_to_num(own) ** 2) / (d0 + d)
    assert scatter.std**2 == pytest.approx(expected)
    assert np.isnan(scatter.own[3]) and np.isfinite(scatter.std[3]), "one seed borrows it all"


def test_the_expected_scatter_follows_architecture_cost_and_level() -> None:
    rng = np.random.default_rng(1)
    cost = np.tile(2.0 ** np.arange(27), 2)
    names = ["fno"] * 27 + ["hybrid"] * 27
    sigma = np.where(np.arange(54) < 27, 0.005, 0.02) * (cost / cost[0]) ** 0.04
    values = 0.6 + sigma[:, None] * rng.standard_normal((54, 5))
    terms = trend_terms(names, cost, np.zeros(54, bool))
    by_trend = means(values, "linear", terms).scatter.expected
    assert by_trend == pytest.approx(sigma, rel=0.35)
    # Even in the logit: what is near one scatters less, without a term that says so.
    level = np.linspace(0.1, 0.95, 54)
    near = level[:, None] + 0.05 * (1 - level**2)[:, None] * rng.standard_normal((54, 3))
    by_trend = means(near, "logit", terms_of(54)).scatter.expected
    assert by_trend == pytest.approx(0.05 * (1 - level**2), rel=0.25)


def test_terms_that_do_not_vary_are_left_out() -> None:
    assert trend_terms(["fno"] * 3, np.full(3, 7.0), np.zeros(3, bool)).shape == (3, 0)
    told = trend_terms(["fno", "hybrid", "fno"], np.array([1, np.nan, 4]), np.array([1, 0, 0]) > 0)
    assert told.shape == (3, 4) and np.isfinite(told).all()
    assert told.mean(axis=0) == pytest.approx(np.zeros(4))
    assert told[1, 2] == pytest.approx(0), "an unknown cost is the mean one"


def test_seeds_that_are_equal_leave_no_room_and_single_ones_tell_nothing() -> None:
    still = means(np.full((3, 4), 0.7), "logit", terms_of(3))
    assert [*still.interval()[0]] == [*still.interval()[1]] == pytest.approx([0.7] * 3)
    single = means(np.array([[0.7], [0.8]]), "logit", terms_of(2))
    assert np.isnan(single.error).all() and np.isnan(single.interval()[0]).all()


def test_one_seed_among_many_has_an_interval_and_two_seeds_no_absurd_one() -> None:
    """What version 0.1 said of two seeds: from 0.81 to 1.00, where 53 others tell the scatter."""
    values = 0.92 + np.random.default_rng(2).normal(0, 0.006, (54, 3))
    values[0, 1:], values[1, 2] = np.nan, np.nan
    low, high = means(values, "logit", NO_TERMS).interval()
    width = high - low
    assert 0.01 < np.median(width) < 0.02 and max(width[:2]) < 0.04


def test_what_is_missing_has_no_mean_and_stands_in_nobodys_way() -> None:
    values = np.array([[0.5, 0.6], [np.nan, np.nan], [0.7, 0.72]])
    estimates = means(values, "logit", terms_of(3))
    assert estimates.counts.tolist() == [2, 0, 2]
    assert np.isnan([estimates.mean[1], estimates.error[1], estimates.freedom[1]]).all()
    assert np.isfinite(estimates.error[[0, 2]]).all()


def test_a_seed_that_moves_all_is_seen_and_noise_is_not_taken_for_one() -> None:
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((40, 54, 3))
    common = noise + rng.standard_normal((40, 1, 3))  # a correlation of 1/2
    correlations = [[seed_correlation(r - r.mean(1, keepdims=True)) for r in some]
             for some in (noise, common)]  # fmt: skip
    assert np.mean(np.array(correlations[0]) > 0.02) < 0.2
    assert 0.1 < np.median(correlations[1]) < 0.6
    assert seed_correlation(np.full((4, 2), np.nan)) == seed_correlation(np.zeros((0, 2))) == 0


@pytest.mark.parametrize(("k", "seeds"), [(2, 2), (2, 3), (4, 2), (4, 3)])
def test_a_few_configurations_do_not_take_their_own_luck_for_what_others_tell(
    k: int, seeds: int
) -> None:
    """The trend of two or four configurations follows each one's own scatter, chance included.

    Counted as knowledge of others, it made intervals of two configurations with two seeds cover
    87 %, and 17 % of the pairs that do not differ look different at the 5 % level.
    """
    rng = np.random.default_rng(k)
    cost = np.geomspace(1e5, 1e7, k)
    terms = trend_terms(["fno", "hybrid"] * (k // 2), cost, np.zeros(k, bool))
    covered, different = [], []
    for _ in range(500):
        few = means(rng.normal(0.9, 0.006, (k, seeds)), "logit", terms)
        low, high = few.interval(-1, 1)
        covered.append((low <= 0.9) & (high >= 0.9))
        gain, error, freedom = few.difference(0, 1)
        different.append(2 * stats.t.sf(abs(gain) / error, freedom) < 0.05)
    assert 0.94 <= np.mean(covered) <= 0.99
    assert np.mean(different) <= 0.1


def test_luck_that_all_share_is_not_in_the_interval_of_a_mean_over_configurations() -> None:
    """What docs/statistics.md says of main effects."""
    rng = np.random.default_rng(5)
    shares = []
    for alike in (0.0, 0.6):
        covered = []
        for _ in range(200):
            shared, own = rng.normal(0, 0.006, (1, 3)), rng.normal(0, 0.006, (16, 3))
            of = means(
                0.9 + np.sqrt(alike) * shared + np.sqrt(1 - alike) * own, "logit", terms_of(16)
            )
            mean, error, freedom = of.together(np.arange(8))
            covered.append(abs(mean - 0.9) <= stats.t.ppf(0.975, freedom) * error)
        shares.append(np.mean(covered))
    assert shares[0] >= 0.9 and shares[1] < 0.9
