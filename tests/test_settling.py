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


def settling(runs: list[RunResult], target: float = 0.999999, **parameters: Any) -> Settling:
    """Of a sweep whose networks are too alike to be told apart."""
    swept = {"width": {"values": [31, 32, 33]}, **parameters}
    sweep = parse_sweep({"method": "grid", "parameters": swept}, "")
    return Settling(sweep, ChoiceOptions(price=0.0), target, MOST, lambda: table(runs))


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


def test_no_probability_is_told_before_the_most_promising_have_a_second_seed() -> None:
    """However clear the choice seems with the first pair of seeds: nothing is known of scatter."""
    widths = (4, 8, 12, 16, 24, 64)

    def clear(width: int, seed: int) -> RunResult:
        record = result(width=width, seed=seed)
        record.metrics.pairs["ssim"] = (0.9, width / 100 + 0.001 * seed)
        return record

    runs = [clear(width, 0) for width in widths]
    adding = settling(runs, 0.9, width={"values": list(widths)})
    asked: list[tuple[int, int]] = []
    while wanted := adding.more(()):
        assert not adding.is_settled
        config = load_config(*wanted.values())
        asked.append((config.width, config.seed))
        runs.append(clear(*asked[-1]))
    assert asked == [(width, 1) for width in (64, 24, 16, 12, 8)]
    assert adding.is_settled


def test_a_series_without_a_choice_does_not_hold_up_the_others() -> None:
    """Of data_seed 6 every run collapsed: no seed can change that, and none is asked for."""
    widths = (8, 64)
    swept: dict[str, Any] = {"width": {"values": [8, 64]}, "data_seed": {"values": [5, 6]}}
    runs = [ran(RunConfig(width=w, data_seed=5, seed=s)) for w in widths for s in range(3)]
    collapsed = [ran(RunConfig(width=w, data_seed=6), status="collapsed") for w in widths]
    both = settling([*runs, *collapsed], 0.01, **swept)
    assert both.more(()) == {} and both.is_settled and len(both.standings) == 2
    unsure = settling([*runs, *collapsed], **swept)
    assert unsure.more(()) and not unsure.is_settled
    none = settling(collapsed, 0.01, **swept)
    assert none.more(()) == {} and not none.is_settled


def test_records_of_replaced_data_ask_for_no_seed_and_need_none() -> None:
    """They are the first series, with one seed each, and under names that no point has now."""
    before = [
        ran(RunConfig(width=w), run_id=f"{w:012x}", provenance={"dataset": "replaced"})
        for w in (31, 32, 33)
    ]
    runs = [ran(RunConfig(width=w, seed=s)) for w in (31, 32, 33) for s in range(MOST)]
    adding = settling(before + runs, 0.01)
    assert adding.more(()) == {} and adding.is_settled
    assert len(adding.standings) == 1


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
