"""Fronts against brute force; probabilities, hypervolume and knee against cases worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.intervals import front_probabilities
from agent.analysis.pareto import front, hypervolume, knee

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
    found = front([a for a, _ in points], [q for _, q in points])
    assert set(found) == expected and len(found) == len(expected)


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


def arrays(*samples: list[float]) -> list[np.ndarray]:
    return [np.array(sample) for sample in samples]


def test_two_seeds_that_overlap_are_on_the_front_in_three_of_four_resamples() -> None:
    """The dearer one's mean is 1, 2 or 3 with weights ¼, ½, ¼; the cheaper one's is always 2.

    The dearer is on the front where it is strictly better: ¼. The cheaper always is.
    """
    found = front_probabilities(arrays([1], [2]), arrays([2, 2], [1, 3]))
    assert found == pytest.approx([1, 1 / 4], abs=0.03)


def test_of_equal_cost_both_are_on_the_front_where_they_are_equal() -> None:
    """Means 0, 1, 2 with ¼, ½, ¼ each, at one cost: the better one, or both where equal.

    P(equal) = 1/16 + 4/16 + 1/16 = 3/8; each is strictly better in half of the rest: 3/8 + 5/16.
    """
    found = front_probabilities(arrays([7], [7]), arrays([0, 2], [0, 2]))
    assert found == pytest.approx([11 / 16, 11 / 16], abs=0.03)


def test_three_configurations_of_which_the_middle_one_must_beat_and_the_last_both() -> None:
    """Costs 1, 2, 3. Qualities: a is 3; b's mean of three seeds (0, 0, 9) is 0, 3, 6, 9 with
    8/27, 12/27, 6/27, 1/27; c's of two seeds (2, 8) is 2, 5, 8 with ¼, ½, ¼.

    b is on the front if it is above 3: 7/27. c if it is above max(3, b): where b ≤ 3 (20/27), c in
    {5, 8}: ¾; where b = 6 (6/27), c = 8: ¼; where b = 9: never. 15/27 + 1.5/27 = 16.5/27.
    """
    found = front_probabilities(arrays([1], [2], [3]), arrays([3], [0, 0, 9], [2, 8]))
    assert found == pytest.approx([1, 7 / 27, 16.5 / 27], abs=0.03)


def test_times_are_drawn_anew_as_well() -> None:
    """Equal qualities; times 1 or 3 (means 1, 2, 3 with ¼, ½, ¼) against always 2.

    The first is on the front unless it is slower (¾), the second unless the first is faster (¾).
    """
    found = front_probabilities(arrays([1, 3], [2, 2]), arrays([5, 5], [5, 5]))
    assert found == pytest.approx([3 / 4, 3 / 4], abs=0.03)


def test_what_has_no_number_has_no_probability_and_stands_in_nobodys_way() -> None:
    found = front_probabilities(arrays([], [2], [3]), arrays([9, 9], [1, 1], []))
    assert found[1] == 1 and np.isnan(found[[0, 2]]).all()
    assert np.isnan(front_probabilities(arrays([]), arrays([]))).all()


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
