"""Which seed settling asks for next, without processes: the cap, other series, runs under way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from agent.analysis.choice_options import ChoiceOptions
from agent.analysis.settle import Settling
from agent.study.records import table
from agent.study.sweepfile import Point, parse_sweep
from fno_runner.config import RunConfig, load_config
from fno_runner.identity import run_id
from fno_runner.result import RunResult
from tests.studies import result

MOST = 4


def settling(runs: list[RunResult], **parameters: Any) -> Settling:
    """Of a sweep whose networks are too alike to be told apart."""
    swept = {"width": {"values": [31, 32, 33]}, **parameters}
    sweep = parse_sweep({"method": "grid", "parameters": swept}, "")
    return Settling(sweep, ChoiceOptions(price=0.0), 0.999999, MOST, lambda: table(runs))


def ran(config: RunConfig, **changes: Any) -> RunResult:
    ssim = 0.9 + 0.01 * np.random.default_rng([config.seed, config.width]).standard_normal()
    record = result(**config.model_dump(), **changes)
    record.metrics.pairs["ssim"] = (0.9, float(ssim))
    return record


def all_asked(runs: list[RunResult], adding: Settling) -> list[Point]:
    """Everything that is asked for, each recorded as it would be; a name comes once."""
    asked: list[Point] = []
    while wanted := adding.more(()):
        ((name, point),) = wanted.items()
        config = load_config(point)
        assert name == run_id(config) and name not in {run.run_id for run in runs}
        runs.append(ran(config))
        asked.append(point)
        assert len(asked) < 50
    return asked


def seeds(runs: list[RunResult]) -> pd.Series:
    return table(runs).groupby("width")["seed"].nunique()


def test_no_configuration_gets_more_than_the_cap() -> None:
    runs = [ran(RunConfig(width=width)) for width in (31, 32, 33)]
    all_asked(runs, settling(runs))
    assert seeds(runs).max() == MOST, "not sure, so the budget is spent"


@pytest.mark.parametrize("changes", [{"metrics_against": "reference"}, {"dataset": "other"}])
def test_seeds_of_another_series_count_and_are_not_run_again(changes: dict[str, Any]) -> None:
    """Seeds 1 and 2 of a width ran where the data were others: their names are taken."""
    runs = [ran(RunConfig(width=width)) for width in (31, 32, 33)]
    if "dataset" in changes:
        changes = {"provenance": {**runs[0].provenance, **changes}}
    runs += [ran(RunConfig(width=32, seed=seed), **changes) for seed in (1, 2)]
    asked = all_asked(runs, settling(runs))
    assert seeds(runs).max() <= MOST
    assert all(point["seed"] not in (1, 2) for point in asked if point["width"] == 32)


def test_two_data_seeds_are_two_series_and_each_is_settled_with_its_own() -> None:
    runs = [
        ran(RunConfig(width=width, data_seed=data)) for width in (31, 32, 33) for data in (5, 6)
    ]
    asked = all_asked(runs, settling(runs, data_seed={"values": [5, 6]}))
    assert {point["data_seed"] for point in asked} == {5, 6}
    counts = table(runs).groupby(["width", "data_seed"])["seed"].nunique()
    assert counts.max() == MOST


def test_runs_under_way_count_whatever_their_seed() -> None:
    """Others have begun seed 3 of every width: beside the two recorded, one is left, seed 2."""
    widths = (31, 32, 33)
    runs = [ran(RunConfig(width=width, seed=seed)) for width in widths for seed in (0, 1)]
    begun = {run_id(RunConfig(width=width, seed=3)) for width in widths}
    adding = settling(runs)
    asked: list[Point] = []
    while wanted := adding.more(begun):
        begun |= wanted.keys()
        asked += wanted.values()
        assert len(asked) <= len(widths)
    assert asked and all(point["seed"] == 2 for point in asked)


def test_a_grid_of_its_own_seeds_gets_others_up_to_the_cap() -> None:
    runs = [ran(RunConfig(width=width, seed=seed)) for width in (31, 32, 33) for seed in (7, 9)]
    all_asked(runs, settling(runs, seed={"values": [7, 9]}))
    recorded = table(runs)
    assert set(recorded["seed"]) == {0, 1, 7, 9} and seeds(runs).max() == MOST
