"""The price rule, its ladder and its probabilities, on cases that are worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agent.analysis.allocation import FIRST, next_seed
from agent.analysis.choice_options import Limit
from agent.analysis.differences import differences, holm
from agent.analysis.means import Means, exact, means
from agent.analysis.price import Price, Tolerance, ladder
from agent.analysis.probabilities import choice_probabilities
from agent.analysis.scatter import Scatter


def told(
    mean: list[float], error: list[float], freedom: float = 1e9, correlation: float = 0.0
) -> Means:
    """Means of one seed each, all of the same one, with known errors."""
    k = len(mean)
    sigma = np.array(error)
    scatter = Scatter(sigma, sigma, sigma, np.full(k, freedom))
    return Means(
        np.array(mean), sigma, np.full(k, freedom), np.ones(k, int), scatter,
        np.ones((k, 1), bool), correlation,
    )  # fmt: skip


def probability(quality: Means, cost: list[float] | Means, price: float) -> np.ndarray:
    paid = cost if isinstance(cost, Means) else exact(np.array(cost))
    rows = np.argsort(paid.mean, kind="stable")
    return choice_probabilities(quality, paid, 1, Price(price), rows)


def test_a_doubling_must_gain_the_price() -> None:
    gain, cost = np.array([0.80, 0.83, 0.84]), np.array([1e6, 4e6, 8e6])
    chosen = {price: int(Price(price).choose(gain, cost)) for price in (0, 0.009, 0.011, 0.016)}
    assert chosen == {0: 2, 0.009: 2, 0.011: 1, 0.016: 0}
    # At exactly the price of a step the cheaper one is the choice, whatever the binary digits say.
    assert Price(0.01).choose(gain, cost) == 1 and Price(0.015).choose(gain, cost) == 0
    assert Price(0).choose(np.array([0.7, 0.7]), np.array([1, 2])) == 0


def test_the_tolerance_of_version_0_1() -> None:
    gain, cost = np.array([0.70, 0.71, 0.72]), np.array([1.0, 1.0, 3.0])
    assert [int(Tolerance(t).choose(gain, cost)) for t in (0, 0.01, 0.02)] == [2, 1, 1]


def test_the_ladder_is_the_upper_hull() -> None:
    """Doublings 0, 2, 3, 4 gain 0, 0.03, 0.04, 0.041: steps at 0.015, 0.01 and 0.001 a doubling."""
    gain = np.array([0.84, 0.80, 0.83, 0.841, 0.79, math.nan])
    cost = np.array([8e6, 1e6, 4e6, 16e6, 2e6, 1.0])
    steps = [(r.config, round(r.low, 9), round(r.high, 9)) for r in ladder(gain, cost)]
    assert steps == [(3, 0, 0.001), (0, 0.001, 0.01), (2, 0.01, 0.015), (1, 0.015, math.inf)]
    assert ladder(np.array([math.nan]), np.array([1.0])) == []


POINT = st.tuples(st.floats(0, 1), st.integers(1, 10**8).map(float))


@given(st.lists(POINT, min_size=1, max_size=12), st.floats(0, 0.2))
def test_the_ladder_says_what_the_price_chooses(
    points: list[tuple[float, float]], price: float
) -> None:
    points.sort(key=lambda point: (point[1], -point[0]))
    gain, cost = (np.array(column) for column in zip(*points, strict=True))
    rungs = ladder(gain, cost)
    assert rungs[0].low == 0 and rungs[-1].high == math.inf
    assert all(a.high == b.low for a, b in pairwise(rungs))
    (rung,) = [r for r in rungs if r.low <= price < r.high]
    value = gain - price * np.log2(cost)
    assert value[rung.config] == pytest.approx(value[Price(price).choose(gain, cost)], abs=1e-7)


def test_two_that_differ_by_one_error_of_their_difference() -> None:
    """0.03 better at four times the cost is 0.01 more value; its error is 0.01: Φ(1) = 0.841."""
    error = 0.01 / math.sqrt(2)
    p = probability(told([0.90, 0.93], [error, error]), [1e6, 4e6], 0.01)
    assert p == pytest.approx([0.159, 0.841], abs=0.03)


def test_two_seeds_have_one_degree_of_freedom() -> None:
    """Cauchy: one error above a rival that stands still is 1/2 + arctan(1)/π = 3/4."""
    p = probability(told([0.90, 0.91], [0.0, 0.01], freedom=1), [1, 1], 0.0)
    assert p == pytest.approx([0.25, 0.75], abs=0.03)


def test_three_alike_share_and_a_fourth_has_no_chance() -> None:
    p = probability(told([0.9, 0.9, 0.9, 0.6], [0.01] * 4), [1, 1, 1, 1], 0.0)
    assert p == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=0.03)


def test_a_shared_seed_moves_both_and_decides_nothing() -> None:
    """With a correlation of 3/4 the error of the difference is halved: Φ(2 · 0.5) for Φ(0.5)."""
    mean, error = [0.90, 0.90 + 0.005 * math.sqrt(2)], [0.01, 0.01]
    apart = probability(told(mean, error), [1, 1], 0.0)
    paired = probability(told(mean, error, correlation=0.75), [1, 1], 0.0)
    assert apart[1] == pytest.approx(stats.norm.cdf(0.5), abs=0.03)
    assert paired[1] == pytest.approx(stats.norm.cdf(1.0), abs=0.03)


def test_times_are_drawn_as_well() -> None:
    """Equal qualities, times 1 ± 0.1 and 1.1 ± 0.1: the first is faster with Φ(0.1 / 0.1414)."""
    p = probability(told([0.9, 0.9], [0, 0]), told([1.0, 1.1], [0.1, 0.1]), 0.01)
    assert p[0] == pytest.approx(stats.norm.cdf(0.1 / math.hypot(0.1, 0.1)), abs=0.03)


def test_what_is_not_compared_has_no_probability() -> None:
    quality = told([0.9, 0.8], [0.01, 0.01])
    p = choice_probabilities(quality, exact(np.ones(2)), 1, Price(0), np.array([1]))
    assert math.isnan(p[0]) and p[1] == 1


def test_a_difference_by_shared_seeds_is_surer() -> None:
    apart, paired = (told([0.90, 0.93], [0.01, 0.01], 20, rho) for rho in (0, 0.5))
    assert apart.difference(1, 0) == pytest.approx((0.03, 0.01 * math.sqrt(2), 40))
    assert paired.difference(1, 0)[:2] == pytest.approx((0.03, 0.01))


def test_better_equal_and_undecided() -> None:
    mean = [0.90, 0.930, 0.901, 0.906, 0.86]
    error = [0.001, 0.001, 0.001, 0.01, 0.001]
    told_apart = differences(told(mean, error), 1, 0, [1, 2, 3, 4], 0.005)
    assert [d.verdict for d in told_apart] == ["better", "equal", "undecided", "worse"]
    assert [d.gain for d in told_apart] == pytest.approx([0.03, 0.001, 0.006, -0.04])
    assert all(d.low < d.gain < d.high for d in told_apart)
    # Less is better: the same numbers the other way round.
    assert differences(told(mean, error), -1, 0, [1], 0.005)[0].verdict == "worse"
    assert differences(told(mean, error), 1, 0, [], 0.005) == []


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])


def test_of_many_alike_holm_finds_none_better() -> None:
    """Twenty contenders that are no better: one in twenty would look so without it."""
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(100):
        quality = means(rng.normal(0.9, 0.01, (21, 3)), "linear", np.empty((21, 0)))
        told_apart = differences(quality, 1, 0, range(1, 21), 0.001)
        wrong += any(d.verdict in ("better", "worse") for d in told_apart)
    assert wrong <= 12


def test_the_next_seed_goes_where_it_may_change_the_choice() -> None:
    value, may = np.array([0.9, 0.89, 0.5]), np.ones(3, bool)
    sure = np.array([0.6, 0.4, 0.0])
    assert next_seed(sure, value, np.array([3, 3, 3]), may) == 0
    assert next_seed(sure, value, np.array([9, 3, 3]), may) == 1
    assert next_seed(sure, value, np.array([9, 9, 3]), np.array([0, 0, 1]) > 0) is None


def test_without_any_scatter_the_most_promising_get_a_second_seed() -> None:
    value, counts = np.linspace(0, 1, 9), np.ones(9, int)
    taken = []
    while (row := next_seed(np.full(9, np.nan), value, counts, counts < 2)) is not None:
        counts[row] += 1
        taken.append(row)
    assert taken == [8, 7, 6, 5, 4] and len(taken) == FIRST


def test_a_limit_that_seeds_leave_open_leaves_the_choice_open() -> None:
    """The cheap one's mean is one error above the limit: it meets it with Φ(1) = 0.841.

    Where it does not, the dear one is the choice, which surely does; without it, none is.
    """
    quality, limit = told([0.91, 0.95], [0.01, 0.0]), Limit("ssim_phase", 0.90, least=True)
    cost, rows = exact(np.array([1.0, 64.0])), np.arange(2)
    p = choice_probabilities(quality, cost, 1, Price(0.02), rows, [(limit, quality)])
    assert p == pytest.approx([0.841, 0.159], abs=0.03)
    alone = choice_probabilities(quality, cost, 1, Price(0.02), rows[:1], [(limit, quality)])
    assert alone[0] == pytest.approx(0.841, abs=0.03)
    # One error below it by its mean it may meet it all the same, and a time at most as well.
    times = told([1.0, 1.2], [0.1, 0.1])
    slow = Limit("inference_time_s", 1.1, least=False)
    p = choice_probabilities(quality, times, 1, Price(0.0), rows, [(slow, times)])
    assert p == pytest.approx([0.841 * 0.841, 0.159], abs=0.03)


def test_a_probability_under_a_limit_is_how_often_the_choice_is_the_true_one() -> None:
    """Without draws of the limit it said 99 %, and 83 % were right."""
    rng = np.random.default_rng(0)
    cost, bound, rows = np.geomspace(1, 128, 8), 0.88, np.arange(8)
    says, right = [], []
    for _ in range(300):
        truth = 0.85 + 0.01 * np.arange(8) + rng.normal(0, 0.01, 8)
        quality = means(truth[:, None] + rng.normal(0, 0.006, (8, 3)), "linear", np.empty((8, 0)))
        seen, true = (np.flatnonzero(m >= bound) for m in (quality.mean, truth))
        limits = [(Limit("ssim_phase", bound, least=True), quality)]
        p = choice_probabilities(quality, exact(cost), 1, Price(0.04), rows, limits)
        chosen, wanted = (int(some[Price(0.04).choose(of[some], cost[some])])
                          for some, of in ((seen, quality.mean), (true, truth)))  # fmt: skip
        says.append(p[chosen])
        right.append(chosen == wanted)
    assert np.mean(says) == pytest.approx(np.mean(right), abs=0.06)
