"""Fronts against brute force, and the rules of the recommendation on cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pareto import PHASE_SSIM, R_HELD_OUT, Criterion, front, recommend, series
from agent.records import table
from fno_runner.config import RunConfig
from fno_runner.result import RunResult

# Few distinct values, so that ties are common.
COORDINATE = st.one_of(st.integers(0, 5).map(float), st.just(math.nan), st.floats())
POINTS = st.lists(st.tuples(COORDINATE, COORDINATE), max_size=30)


def run(number: int, params: int | None, ssim: float | None, **config: Any) -> RunResult:
    status = config.pop("status", "finished")
    metrics = config.pop("metrics", {"ssim": (0.5, ssim)})
    provenance = config.pop("provenance", {})
    return RunResult(
        run_id=f"{number:012x}",
        status=status,
        config=RunConfig(**({"width": number} | config)).model_dump(),
        metrics=metrics,
        metrics_against="truth" if "ssim" in metrics else None,
        model_params=params,
        inference_time_s=0.1 * number,
        provenance=provenance,
    )


def chosen(runs: list[RunResult], criterion: Criterion = PHASE_SSIM) -> Any:
    return recommend(table(runs), criterion)


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


def test_the_cheapest_within_the_tolerance_is_recommended() -> None:
    found = chosen([run(1, 10, 0.50), run(2, 20, 0.69), run(3, 30, 0.695), run(4, 40, 0.70)])
    assert (found.run, found.runner_up, found.best) == (1, 2, 3)
    assert found.margin == pytest.approx(0.01)
    assert "3 of 4 finished runs" in found.rule and "within 0.02 of the best (0.7)" in found.rule


def test_a_difference_of_exactly_the_tolerance_is_within_it() -> None:
    assert 0.72 - 0.70 > 0.02  # in binary
    assert chosen([run(1, 10, 0.70), run(2, 20, 0.72)]).run == 0


def test_no_tolerance_means_the_best() -> None:
    strict = Criterion("ssim_phase", "phase SSIM", "higher", 0.0)
    found = chosen([run(1, 10, 0.70), run(2, 20, 0.72)], strict)
    assert (found.run, found.runner_up, found.margin) == (1, None, 0.0)


def test_less_is_better_for_r() -> None:
    runs = [
        run(n, 10 * n, None, metrics={"r_factor": {"train": 0.07, "held_out": r}})
        for n, r in ((1, 0.0900), (2, 0.0815), (3, 0.0800))
    ]
    found = chosen(runs, R_HELD_OUT)
    assert (found.run, found.best) == (1, 2)
    assert found.margin == pytest.approx(0.0015)


def test_of_equal_cost_the_better_and_of_equal_runs_the_first_name() -> None:
    assert chosen([run(1, 10, 0.70), run(2, 10, 0.71)]).run == 1
    same = chosen([run(1, 10, 0.7), run(2, 10, 0.7)])
    assert (same.run, same.best, same.runner_up) == (0, 0, 1)


def test_another_seed_of_the_same_configuration_is_no_runner_up() -> None:
    runs = [run(n, 10, 0.7, width=8, seed=n) for n in (1, 2)]
    assert chosen(runs).runner_up is None
    assert chosen([*runs, run(3, 20, 0.7)]).runner_up == 2


def test_one_run_is_recommended_without_a_runner_up() -> None:
    found = chosen([run(1, 10, 0.7)])
    assert (found.run, found.best, found.runner_up, found.margin) == (0, 0, None, 0.0)


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_recommended_run_is_on_the_front_and_near_the_best(
    points: list[tuple[int, float]],
) -> None:
    (one,) = series(table([run(n + 1, *point) for n, point in enumerate(points)]))
    found = one.recommendation
    assert found is not None and found.run in one.front
    assert 0 <= found.margin <= PHASE_SSIM.tolerance + 1e-9
    near = [p for p, q in points if max(q for _, q in points) - q <= PHASE_SSIM.tolerance]
    assert one.runs["model_params"][found.run] <= min(near)


def test_only_finished_runs_with_both_numbers_are_compared() -> None:
    (one,) = series(
        table(
            [
                run(1, 1, 0.99, status="collapsed"),
                run(2, 1, 0.99, status="failed"),
                run(3, 1, 0.99, status="diverged"),
                run(4, None, 0.99),
                run(5, 1, None),
                run(6, 50, 0.6),
            ]
        )
    )
    assert one.runs["run_id"].tolist() == ["000000000006"]
    assert one.collapsed["run_id"].tolist() == ["000000000001"]
    assert one.incomplete == ["000000000004", "000000000005"]
    assert one.recommendation is not None and one.recommendation.run == 0


def test_recommend_itself_passes_over_what_is_not_finished() -> None:
    assert chosen([run(1, 1, 0.99, status="collapsed"), run(2, 9, 0.6)]).run == 1
    assert chosen([run(1, 1, 0.99, status="collapsed")]) is None
    assert recommend(table([]), PHASE_SSIM) is None


def test_no_finished_run_gives_no_series() -> None:
    assert series(table([])) == []
    assert series(table([run(1, 1, 0.9, status="failed")])) == []


def test_one_series_has_no_name() -> None:
    (one,) = series(table([run(1, 10, 0.7), run(2, 20, 0.7)]))
    assert one.name == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        ({"conditioning": "amplitude"}, {}, "conditioning amplitude"),
        ({"epochs": 5}, {}, "epochs 5"),
        ({"provenance": {"dataset": "aa"}}, {"provenance": {"dataset": "bb"}}, "dataset aa"),
        (
            {"nphotons": 1e5, "provenance": {"dataset": "aa"}},
            {"provenance": {"dataset": "bb"}},
            "nphotons 100000.0",
        ),
    ],
)
def test_runs_that_may_not_be_compared_are_not(
    ours: dict[str, Any], theirs: dict[str, Any], name: str
) -> None:
    split = series(table([run(1, 10, 0.4, **ours), run(2, 5, 0.9, **theirs)]))
    assert len(split) == 2
    assert {one.runs["run_id"].item() for one in split} == {f"{n:012x}" for n in (1, 2)}
    assert name in [one.name for one in split]


def test_a_scan_without_reference_is_judged_by_its_held_out_frames() -> None:
    scan = {"r_factor": {"train": 0.07, "held_out": 0.08}}
    (one,) = series(table([run(1, 10, None, metrics=scan)]))
    assert one.criterion == R_HELD_OUT
    (one,) = series(table([run(1, 10, None, metrics=scan | {"ssim": (0.5, 0.6)})]))
    assert one.criterion == PHASE_SSIM


def test_a_given_tolerance_replaces_the_criterions_own() -> None:
    runs = table([run(1, 10, 0.5), run(2, 20, 0.7)])
    assert [one.recommendation.run for one in series(runs) if one.recommendation] == [1]
    assert [one.recommendation.run for one in series(runs, 0.3) if one.recommendation] == [0]


def test_integers_with_a_gap_stay_integers() -> None:
    column = table([run(1, 10, 0.5), run(2, None, 0.7)])["model_params"]
    assert isinstance(column, pd.Series) and column.tolist() == [10, None]
    assert not isinstance(column[0], float | np.floating)
