"""The rules of the choice on cases worked out by hand, and which runs may share a series."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.series import Series, series
from agent.report.words import advice, to_json
from agent.study.quality import PHASE_SSIM, R_FROM_OBJECT, R_HELD_OUT
from agent.study.records import table
from fno_runner.config import RunConfig
from fno_runner.result import RunResult


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


def seeds(number: int, params: int, *ssim: float, **config: Any) -> list[RunResult]:
    """One configuration once a seed."""
    return [
        run(10 * number + n, params, one, **({"width": number, "seed": n} | config))
        for n, one in enumerate(ssim)
    ]


def only(runs: list[RunResult], tolerance: float | None = None) -> Series:
    (one,) = series(table(runs), tolerance)
    return one


def chosen(runs: list[RunResult], tolerance: float | None = None) -> Any:
    """The recommendation, its configurations by their width."""
    one = only(runs, tolerance)
    found = one.recommendation
    if found is None:
        return None
    widths = one.configs["width"].tolist()
    return {
        key: None if (i := getattr(found, key)) is None else widths[i]
        for key in ("config", "best", "runner_up", "next_better")
    }


def test_one_seed_the_cheapest_within_the_tolerance_and_that_is_provisional() -> None:
    runs = [run(1, 10, 0.50), run(2, 20, 0.69), run(3, 30, 0.695), run(4, 40, 0.70)]
    assert chosen(runs) == {"config": 2, "best": 4, "runner_up": 3, "next_better": 3}
    one = only(runs)
    found = one.recommendation
    assert found is not None and found.margin == pytest.approx(0.01)
    assert not found.standard_error and (found.near, found.compared) == (3, 4)
    assert "ran with one seed" in found.provisional
    said = dict(advice(one))
    assert "among the 3 of 4 configurations" in said["rule"]
    assert "within 0.02 of the best (0.7)" in said["rule"]
    assert "0.0050 better" in said["for more"] and "1.5 × the parameters" in said["for more"]


def test_seeds_the_cheapest_within_one_standard_error_of_the_best() -> None:
    """The best's seeds 0.68, 0.70, 0.72 have s = 0.02 and a standard error of 0.01155."""
    best = seeds(3, 30, 0.68, 0.70, 0.72)
    near, far = seeds(2, 20, 0.689, 0.689), seeds(1, 10, 0.688, 0.688)
    one = only([*best, *near, *far])
    found = one.recommendation
    assert found is not None and found.standard_error and found.provisional == ""
    assert found.allowance == pytest.approx(0.02 / math.sqrt(3))
    assert chosen([*best, *near, *far])["config"] == 2
    assert "within one standard error (0.012)" in dict(advice(one))["rule"]
    # A tolerance that the user asks for holds whatever the seeds say.
    assert chosen([*best, *near, *far], 0.02)["config"] == 1


def test_a_recommended_configuration_of_one_seed_is_provisional() -> None:
    one = only([*seeds(3, 30, 0.68, 0.73), run(1, 10, 0.70)])
    assert one.recommendation is not None
    assert one.recommendation.provisional.startswith("it ran with one seed")


def test_a_difference_of_exactly_the_tolerance_is_within_it() -> None:
    assert 0.72 - 0.70 > 0.02  # in binary
    assert chosen([run(1, 10, 0.70), run(2, 20, 0.72)])["config"] == 1


def test_no_tolerance_means_the_best() -> None:
    runs = [run(1, 10, 0.70), run(2, 20, 0.72)]
    assert chosen(runs, 0.0) == {"config": 2, "best": 2, "runner_up": None, "next_better": None}
    assert dict(advice(only(runs, 0.0)))["margin"] == "it is the best"


def test_less_is_better_for_r_and_a_scan_has_no_second_object() -> None:
    runs = [
        run(n, 10 * n, None, metrics={"r_factor": {"train": 0.07, "held_out": r}})
        for n, r in ((1, 0.0900), (2, 0.0815), (3, 0.0800))
    ]
    one = only(runs)
    assert chosen(runs)["config"] == 2 and chosen(runs)["best"] == 3
    assert one.criterion == R_HELD_OUT and "held-out frames" in one.choice.caveat
    assert one.recommendation is not None
    assert one.recommendation.margin == pytest.approx(0.0015)


def test_of_equal_cost_the_better_and_of_equal_configurations_the_first_name() -> None:
    assert chosen([run(1, 10, 0.70), run(2, 10, 0.71)])["config"] == 2
    same = chosen([run(1, 10, 0.7), run(2, 10, 0.7)])
    assert (same["config"], same["best"], same["runner_up"]) == (1, 1, 2)


def test_another_seed_of_the_same_configuration_is_no_runner_up() -> None:
    runs = seeds(1, 10, 0.7, 0.7)
    assert chosen(runs)["runner_up"] is None
    assert chosen([*runs, *seeds(2, 20, 0.7, 0.7)])["runner_up"] == 2


def test_one_run_is_recommended_without_a_runner_up() -> None:
    assert chosen([run(1, 10, 0.7)]) == {
        "config": 1, "best": 1, "runner_up": None, "next_better": None
    }  # fmt: skip


def test_the_validation_object_chooses_and_the_test_object_is_reported() -> None:
    better_tested = run(1, 10, 0.9).model_dump() | {"metrics": {"ssim": (0.5, 0.9)}}
    rows = table([RunResult(**better_tested), run(2, 20, 0.8)])
    rows["val_ssim_phase"] = [0.6, 0.7]
    (one,) = series(rows)
    assert one.recommendation is not None
    assert one.configs["width"][one.recommendation.config] == 2
    assert one.choice.caveat == "" and one.criterion == PHASE_SSIM
    assert one.fronts[0].quality == PHASE_SSIM
    # Where a run lacks it, nobody is chosen by it, and the recommendation says so.
    rows["val_ssim_phase"] = [None, 0.7]
    (one,) = series(rows)
    assert one.recommendation is not None
    assert one.configs["width"][one.recommendation.config] == 1
    assert "1 of 2 finished runs have no validation metrics" in one.choice.caveat
    assert dict(advice(one))["caveat"] == one.choice.caveat


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 1)), min_size=1, max_size=12))
def test_the_recommended_one_is_on_the_front_and_near_the_best(
    points: list[tuple[int, float]],
) -> None:
    one = only([run(n + 1, *point) for n, point in enumerate(points)])
    found = one.recommendation
    assert found is not None and found.config in one.fronts[0].members
    assert 0 <= found.margin <= PHASE_SSIM.tolerance + 1e-9
    near = [p for p, q in points if max(q for _, q in points) - q <= PHASE_SSIM.tolerance]
    assert one.configs["model_params"][found.config] <= min(near)
    json.loads(to_json("study", [one]), parse_constant=lambda word: pytest.fail(word))


def test_only_finished_runs_with_both_numbers_are_compared() -> None:
    one = only(
        [
            run(1, 1, 0.99, status="collapsed"),
            run(2, 1, 0.99, status="failed"),
            run(3, 1, 0.99, status="diverged"),
            run(4, None, 0.99),
            run(5, 1, None),
            run(6, 50, 0.6),
        ]
    )
    assert one.configs["width"][one.fronts[0].members].tolist() == [6]
    assert one.collapsed["run_id"].tolist() == ["000000000001"]
    assert one.incomplete == ["000000000004", "000000000005"]
    assert one.recommendation is not None and one.recommendation.compared == 1
    counts = one.configs[["n_seeds", "n_failed", "n_collapsed", "n_diverged"]].to_numpy().tolist()
    assert counts == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1], *[[1, 0, 0, 0]] * 3]


def test_no_finished_run_is_a_series_without_a_recommendation() -> None:
    assert series(table([])) == []
    one = only([run(1, 1, 0.9, status="failed"), run(2, 1, 0.9, status="collapsed")])
    assert one.recommendation is None and one.fronts == []
    assert one.configs["n_runs"].tolist() == [1, 1]
    assert json.loads(to_json("study", [one]))["series"][0]["recommended"] is None


def test_one_series_has_no_name() -> None:
    assert only([run(1, 10, 0.7), run(2, 20, 0.7)]).name == ""


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
        (
            {"scan": "/box/a.npz", "provenance": {"dataset": "aa"}},
            {"scan": "b.npz", "provenance": {"dataset": "bb"}},
            "dataset a.npz",
        ),
        (
            {"scan": "/box/a.npz", "provenance": {"dataset": "aa"}},
            {"scan": "a.npz", "provenance": {"dataset": "bb"}},
            "dataset aa",
        ),
    ],
)
def test_runs_that_may_not_be_compared_are_not(
    ours: dict[str, Any], theirs: dict[str, Any], name: str
) -> None:
    failed = run(3, None, None, status="failed", metrics={}, **ours)
    split = series(table([run(1, 10, 0.4, **ours), run(2, 5, 0.9, **theirs), failed]))
    assert len(split) == 2
    mine = next(one for one in split if one.name == name)
    # A failed run is with those that it was to be compared with.
    assert mine.runs["run_id"].tolist() == ["000000000001", "000000000003"]


def test_a_scan_is_judged_by_its_held_out_frames_not_by_a_reference() -> None:
    """Another method's object is no truth: who is most like it is not therefore the best."""
    scan = {"r_factor": {"train": 0.07, "held_out": 0.08}}
    assert only([run(1, 10, None, metrics=scan)]).criterion == R_HELD_OUT
    assert only([run(1, 10, None, metrics=scan | {"ssim": (0.5, 0.6)})]).criterion == R_HELD_OUT


def test_a_scan_is_chosen_by_what_the_object_predicts_and_reported_by_the_frames_own_answers() -> (
    None
):
    runs = [
        run(n, 10, None, metrics={"r_factor": {"held_out": r, "held_out_from_object": o}})
        for n, r, o in ((1, 0.070, 0.090), (2, 0.080, 0.084))
    ]
    one = only(runs)
    assert (one.choice.by, one.choice.reported) == (R_FROM_OBJECT, R_HELD_OUT)
    assert chosen(runs)["config"] == 2


def test_integers_with_a_gap_stay_integers() -> None:
    column = table([run(1, 10, 0.5), run(2, None, 0.7)])["model_params"]
    assert isinstance(column, pd.Series) and column.tolist() == [10, None]
    assert not isinstance(column[0], float | np.floating)
