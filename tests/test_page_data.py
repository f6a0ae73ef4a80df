"""What report.html draws: runs that were lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.analysis.series import series
from agent.report.page_data import page_data
from agent.study.records import table
from fno_runner.result import RunResult, SeedResult
from tests.studies import result


def data_of(runs: list[RunResult]) -> dict[str, Any]:
    return page_data(series(table(runs)), [], Path())


def test_a_seed_that_ran_twice_is_not_lost() -> None:
    """Alone, and again as one of three replicates: four runs finished, none did not."""
    three = result(width=32, replicates=3)
    three.seeds = [
        SeedResult(seed=seed, status="finished", metrics=three.metrics, validation=three.validation)
        for seed in range(3)
    ]
    runs = [result(width=32), three, result(width=48)]
    rows = data_of(runs)["rows"]
    assert rows["n_seeds"] == [3, 1] and "n_lost" not in rows
    runs += [result(width=48, seed=1), result(width=48, seed=2)]
    runs[-1].status, runs[-2].status = "collapsed", "failed"
    assert data_of(runs)["rows"]["n_lost"] == [0, 2]
