"""What report.html draws: keys by their own values, runs that were lost, the export's options."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import pytest

from agent.analysis.choice_options import (
    ChoiceOptions,
    Limit,
    add_choice_options,
    add_more_choice_options,
    choice_options,
)
from agent.analysis.series import series
from agent.report.page_data import page_data
from agent.report.picks import export_options
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


def test_keys_keep_their_values_and_only_a_wide_range_is_logarithmic() -> None:
    rates = (1e-4, 3e-4, 1e-3, 0.00345678912)
    runs = [result(width=width, learning_rate=rate) for width in (8, 16) for rate in rates]
    data = data_of(runs)
    assert sorted(set(data["rows"]["learning_rate"])) == [1e-4, 3e-4, 1e-3, 0.003457]
    assert set(data["rows"]["width"]) == {8, 16}
    assert data["columns"]["learning_rate"]["log"] and not data["columns"]["width"]["log"]
    assert not data["columns"]["architecture"]["log"]


def test_main_effects_of_many_numbers_have_their_places() -> None:
    runs = [result(width=width, learning_rate=1e-4 * width**2) for width in range(8, 18)]
    (effects,) = data_of(runs)["effects"]
    factors = {factor["name"]: factor for factor in effects["factors"]}
    assert factors["width"]["numbers"] == [*range(8, 18)] and not factors["width"]["log"]
    few = data_of(runs[:3])["effects"][0]["factors"]
    assert {factor["numbers"] for factor in few} == {None}


@pytest.mark.parametrize(
    "options",
    [
        ChoiceOptions(),
        ChoiceOptions(price=0.02, cost="latency_s", allow_collapse=True),
        ChoiceOptions(tolerance=0.0, equal=1e-7, best_over="learning_rate"),
        ChoiceOptions(
            limits=(Limit("ssim_phase", 0.9300001, True), Limit("model_params", 1234567.0, False))
        ),
    ],
    ids=["none", "price", "tolerance", "limits"],
)
def test_an_exports_options_can_be_asked_again(options: ChoiceOptions) -> None:
    parser = argparse.ArgumentParser()
    add_choice_options(parser)
    add_more_choice_options(parser)
    asked = parser.parse_args(shlex.split(export_options(options)))
    assert choice_options(asked) == options
