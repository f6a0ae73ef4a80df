"""Which runs are a point's: by the values they logged, or by the run_id of one that logged them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from agent.study.coverage import attempts
from agent.study.sweepfile import Sweep, parse_sweep
from fno_runner.errors import UserError


def grid(**parameters: list[Any]) -> Sweep:
    listed = {key: {"values": values} for key, values in parameters.items()}
    return parse_sweep({"method": "grid", "parameters": listed}, "test")


def table(*runs: dict[str, object]) -> pd.DataFrame:
    rows = [{"run_id": "", "status": "finished", **run} for run in runs]
    return pd.DataFrame(rows, columns=["run_id", "status", "width", "scan", "device"], dtype=object)


def covered(sweep: Sweep, *runs: dict[str, object]) -> list[tuple[list[int], bool]]:
    return [(attempt.rows, attempt.done) for attempt in attempts(sweep, table(*runs))]


def test_a_point_has_the_runs_with_its_values() -> None:
    sweep = grid(width=[8, 16, 24])
    runs: list[dict[str, object]] = [
        {"width": 16, "status": "failed"},
        {"width": 8, "status": "failed", "device": "cuda"},
        {"width": 16},
        {"width": 99},
    ]
    assert covered(sweep, *runs) == [([1], False), ([0, 2], True), ([], False)]
    assert covered(sweep) == [([], False)] * 3


def test_a_run_that_logged_no_paths_is_told_by_its_run_id() -> None:
    # A fixed path is every run's of the sweep.
    fixed = grid(width=[8, 16], scan=["a.npz"])
    assert covered(fixed, {"width": 8}, {"width": 16, "scan": "a.npz"}) == [
        ([0], True),
        ([1], True),
    ]
    # Swept, it tells the points apart, and a retry by hand logs none.
    swept = grid(width=[8], scan=["a.npz", "b.npz"])
    begun = {"width": 8, "scan": "a.npz", "run_id": "one", "status": "crashed"}
    assert covered(swept, begun, {"width": 8, "run_id": "one"}) == [([0, 1], True), ([], False)]
    nameless = {"width": 8, "scan": "a.npz", "status": "crashed"}
    assert covered(swept, nameless, {"width": 8}) == [([0], False), ([], False)]


def test_only_a_grid_has_points() -> None:
    sweep = parse_sweep({"method": "random", "parameters": {"width": {"min": 8, "max": 9}}}, "test")
    with pytest.raises(UserError, match="only grid has"):
        attempts(sweep, table())
