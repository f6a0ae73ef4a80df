"""Fronts against brute force; probabilities, hypervolume and knee against cases worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.means import Means, exact
from agent.analysis.pareto import front, hypervolume, knee
from agent.analysis.probabilities import front_probabilities
from tests.test_choice_rules import told

# Few distinct values, so that ties are common.
COORDINATE = st.one_of(st.integers(0, 5).map(float), st.just(math.nan), st.floats())
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), max_size=30)


@given(POINTS)
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[float, float]]) -> None:
    finite = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]

    def dominates(i: int, j: int) -> bool:
        (a, p), (b, q) = points[i], points[j]
        return a <= b and p >= q and (a, p) != (b, q)

    expected = {j for j in finite if not any(dominates(i, j) for i in finite)}
    members = front([a for a, _ in points], [q for _, q in points])
    assert set(members) == expected and len(members) == len(expected)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_front_rises_and_does_not_depend_on_the_order(
    points: list[tuple[float, float]], random: Any
) -> None:
    def on_front(listed: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [listed[i] for i in front([a for a, _ in listed], [q for _, q in listed])]

    shuffled = random.sample(points, len(points))
    assert on_front(points) == on_front(shuffled) == sorted(on_front(points))


def test_equal_points_are_both_on_the_front() -> None:
    assert front([1, 1, 1, 2, 2], [5, 5, 4, 5, 6]) == [0, 1, 4]


def on_front(quality: Means, cost: list[float] | Means) -> np.ndarray:
    paid = cost if isinstance(cost, Means) else exact(np.array(cost))
    return front_probabilities(quality, paid, 1, np.argsort(paid.mean, kind="stable"))


def test_the_dearer_of_two_is_on_the_front_if_it_is_better() -> None:
    """One error of the difference ahead: Φ(1) = 0.841. The cheaper one always is."""
    error = 0.01 / math.sqrt(2)
    assert on_front(told([0.5, 0.51], [error] * 2), [1, 2]) == pytest.approx([1, 0.841], abs=0.03)


def test_of_equal_cost_the_better_one_is_on_the_front() -> None:
    p = on_front(told([0.5, 0.5, 0.2], [0.01] * 3), [7, 7, 7])
    assert p == pytest.approx([0.5, 0.5, 0], abs=0.03)


def test_the_dearest_of_three_must_beat_both() -> None:
    """Three alike: the second is better than the first in ½, the third the best of all in ⅓."""
    p = on_front(told([0.5] * 3, [0.01] * 3), [1, 2, 3])
    assert p == pytest.approx([1, 1 / 2, 1 / 3], abs=0.03)


def test_times_are_drawn_as_well() -> None:
    """Equal qualities that stand still: whichever is faster. 1 ± 0.1 against 1.1 ± 0.1: Φ(0.71)."""
    p = on_front(told([0.5, 0.5], [0, 0]), told([1.0, 1.1], [0.1, 0.1]))
    assert p == pytest.approx([0.760, 0.240], abs=0.03)


def test_less_is_better_for_r() -> None:
    quality = told([0.08, 0.07], [1e-4, 1e-4])
    cost = exact(np.array([1.0, 2.0]))
    assert front_probabilities(quality, cost, -1, np.array([0, 1])) == pytest.approx([1, 1])
    assert front_probabilities(quality, cost, 1, np.array([0, 1])) == pytest.approx([1, 0])


def test_what_is_not_compared_has_no_probability() -> None:
    p = front_probabilities(told([0.5, 0.6], [0, 0]), exact(np.ones(2)), 1, np.array([0]))
    assert p[0] == 1 and np.isnan(p[1])


def test_the_hypervolume_is_a_staircase_in_decades() -> None:
    """Up to 1000: from 10 two decades of 0.5, from 100 one more decade of 0.2 on top."""
    cost, quality = np.array([10.0, 100.0, 100.0, 2000.0]), np.array([0.5, 0.7, 0.1, 0.9])
    assert hypervolume(cost, quality, (1000.0, 0.0)) == pytest.approx(2 * 0.5 + 0.2)
    assert hypervolume(cost, quality, (1000.0, 0.6)) == pytest.approx(0.1)
    assert hypervolume(cost, quality, (1000.0, 0.95)) == 0


def test_the_knee_is_where_more_cost_begins_to_buy_little() -> None:
    cost, quality = np.array([1e3, 1e4, 1e5]), np.array([0.2, 0.7, 0.8])
    assert knee(cost, quality, [0, 1, 2]) == 1
    assert knee(cost, np.array([0.2, 0.5, 0.8]), [0, 1, 2]) is None  # straight
    assert knee(cost, np.array([0.2, 0.3, 0.8]), [0, 1, 2]) is None  # bent inwards
    assert knee(cost, quality, [0, 1]) is None
