"""A server's run becomes the row of its record, or a row that says why it has no result."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.analysis.series import series
from agent.report.terminal import ExportResult, Material, print_export
from agent.server.client import ServerRun
from agent.server.rows import MergedTable, is_ours, merge, server_row
from agent.server.tracker import summary
from agent.study.records import COLUMNS, parts, row
from fno_runner.config import PATHS, RunConfig, load_config
from fno_runner.identity import run_id
from fno_runner.result import ErrorInfo, RunResult, SeedResult
from tests.wandb_backend import wire

LEFTOVERS = {"epoch": 3, "train_loss": 0.5, "val_loss": 0.25, "learning_rate": 1e-9, "_runtime": 9}


def result_of(config: RunConfig, **changes: Any) -> RunResult:
    """A finished run, better and dearer with its width."""
    values: dict[str, Any] = {
        "run_id": run_id(config),
        "status": "finished",
        "config": config.model_dump(),
        "metrics": {
            "ssim": (0.8, 0.4 + config.width / 1000),
            "psnr": (20.0, 25.5),
            "mae": (0.1, 0.05),
            "pearson": (0.9, 0.95),
        },
        "metrics_against": "truth",
        "floors": {"flat_phase": {"ssim": (0.4, 0.02)}},
        "model_params": 100 * config.width + config.modes,
        "inference_time_s": 0.25,
        "timing": {
            "train_time_s": 60.5,
            "total_time_s": 70 + config.width / 8,
            "latency_repeats": 100,
            "threads": 2,
            "tf32": False,
            "flops_per_pattern": 7 * 10**8,
        },
        "provenance": {"host": "box1", "device": "cpu", "dataset": "d1", "git_dirty": False},
    }
    return RunResult(**(values | changes))


def failed(config: RunConfig, message: str, **changes: Any) -> RunResult:
    error = ErrorInfo(type="ValueError", message=message)
    return result_of(config, status="failed", error=error, metrics={}, model_params=None, **changes)


def of_server(
    result: RunResult,
    config: Mapping[str, Any] = MappingProxyType({}),
    summary: Mapping[str, Any] | None = MappingProxyType({}),
    **changes: Any,
) -> ServerRun:
    """What the server says of a run.

    Args:
        config, summary: changes to what it logged; a summary of None never came.
    """
    logged = {k: v for k, v in result.config.items() if k not in PATHS}
    arrived = LEFTOVERS if summary is None else {**mirrored_summary(result), **summary}
    values: dict[str, Any] = {
        "id": "abc",
        "state": "finished",
        "sweep": "s1",
        "group": "s1",
        "created": "2026-01-01T00:00:00Z",
        "config": wire({"run_id": result.run_id, **logged, **config}),
        "summary": wire(arrived),
    }
    return ServerRun(**(values | changes))


def mirrored_summary(result: RunResult) -> dict[str, Any]:
    """The summary of a run of `agent.run`, as the client keeps it."""
    return {**LEFTOVERS, **summary(result), "reconstruction": {"path": "a.png"}}


def cells(run: ServerRun) -> dict[str, object]:
    return {key: cell for part in server_row(run).parts for key, cell in part.items()}


@pytest.mark.parametrize(
    "result",
    [
        result_of(RunConfig()),
        result_of(RunConfig(learning_rate=1.0), status="collapsed", metrics={"ssim": (0.5, 1.0)}),
        result_of(
            RunConfig(),
            status="stopped",
            error=ErrorInfo(type="Stopped", message="stopped after 2.5 of 20 epochs"),
            inference_time_s=None,
            schema_version=3,
        ),
        failed(RunConfig(), "boom, <script>\ntwice"),
        result_of(
            RunConfig(),
            metrics={"r_factor": {"train": 0.1, "held_out": 0.2}, "frc50": (None, 0.3)},
            provenance={"device": "cuda:0", "git_commit": None},
        ),
    ],
    ids=["finished", "collapsed", "stopped", "failed", "scan"],
)
def test_a_mirrored_run_has_its_records_row_but_for_the_paths(result: RunResult) -> None:
    recorded = [{k: v for k, v in part.items() if v is not None} for part in parts(result)]
    mirrored = server_row(of_server(result, state="failed")).parts
    assert [{k: v for k, v in part.items() if v is not None} for part in mirrored] == [
        {k: v for k, v in part.items() if k not in PATHS} for part in recorded
    ]
    assert set(mirrored[0]) == set(COLUMNS)


WHOLE = result_of(RunConfig())
NEVER_CAME: dict[str, Any] = {"summary": None}


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"state": "crashed", **NEVER_CAME}, "crashed", "has not heard from it"),
        ({"state": "crashed"}, "finished", ""),  # the result arrived, the end did not
        ({"state": "running"}, "running", "still running"),
        ({"state": "pending"}, "pending", "has not reported"),
        ({"state": "killed", **NEVER_CAME}, "killed", "stopped"),
        ({"state": "preempted", **NEVER_CAME}, "preempted", "stopped"),
        ({"state": "failed", **NEVER_CAME}, "failed", "left no result"),
        ({"state": "<new>", **NEVER_CAME}, "<new>", "no result"),
        (NEVER_CAME, "incomplete", "the server calls it finished, but"),
        ({"summary": {"ssim_phase": math.nan}}, "incomplete", "has no ssim_phase"),
        ({"summary": {"model_params": None}}, "incomplete", "has no model_params"),
        ({"summary": {"inference_time_s": -1}}, "rejected", "inference_time_s is not positive"),
        ({"summary": {"inference_time_s": 0}}, "rejected", "inference_time_s is not positive"),
        ({"summary": {"train_time_s": -3}}, "rejected", "train_time_s is not positive"),
        ({"summary": {"model_params": 12.5}}, "rejected", "model_params is not a count"),
        ({"summary": {"model_params": 10**400}}, "rejected", "model_params is not within"),
        ({"summary": {"ssim_phase": "high"}}, "rejected", "ssim_phase='high' is not a number"),
        ({"summary": {"ssim_phase": 1.5}}, "rejected", "ssim_phase is not within -1 … 1"),
        ({"summary": {"ssim_phase_flat": True}}, "rejected", "is not a number"),
        ({"summary": {"status": "splendid"}}, "rejected", "status='splendid': allowed is"),
        ({"summary": {"status": ["finished"]}}, "rejected", "allowed is finished"),
        ({"config": {"reviewed": {"by": "me"}}}, "finished", ""),  # somebody's note
        *(  # of a later version's run the hash is another one; 0.1 had none
            (
                {"config": {"optimiser": "adam"}, "summary": {"config_hash": other}},
                "rejected",
                "config: unknown key 'optimiser'",
            )
            for other in ("0123456789ab", None)
        ),
        ({"config": {"width": "wide"}}, "rejected", "config: width='wide': allowed is"),
        ({"config": {"width": [8]}}, "rejected", "config: width=[8]: allowed is"),
        ({"config": {"width": 8}}, "rejected", "config: edited at the server"),
        ({"config": {"learning_rate": 0.1}}, "rejected", "config: edited at the server"),
        ({"config": {"learning_rate": 0.1}, "summary": {"config_hash": None}}, "finished", ""),
        ({"config": {"bin": 2, "nphotons": 10}}, "rejected", "config: edited at the server"),
        ({"config": {"bin": 2, "scan": None}}, "rejected", "config: bin=2: sums pixels of a scan"),
    ],
)
def test_what_has_no_result_to_believe_is_a_row_with_the_reason(
    changes: dict[str, Any], status: str, error: str
) -> None:
    run = of_server(WHOLE, **changes)
    told = cells(run)
    assert told["status"] == status
    assert error in str(told["error"])
    assert bool(told["error"]) == (status != "finished")
    numbers = COLUMNS[COLUMNS.index("model_params") : COLUMNS.index("status")]
    assert all((told[key] is None) == (status != "finished") for key in numbers)
    assert told["run_id"] == WHOLE.run_id
    assert told["architecture"] == "fno"


@pytest.mark.parametrize(
    "values",
    [
        {"scan": "a.h5", "bin": 2, "scan_entry": "entry_2", "patch_size": 128, "modes": 100},
        {"probe_file": "a.h5", "scan_data": "intensity", "objects": "stars,discs"},
        {"train_npz": "a.npz", "test_npz": "b.npz", "probe_radius": 60.0, "patch_size": 64},
    ],
)
def test_a_run_on_data_files_is_believed_without_their_paths(values: dict[str, Any]) -> None:
    config = load_config({"patch_size": 64, **values})
    result = result_of(RunConfig()).model_copy(update={"config": config.model_dump()})
    told = cells(of_server(result))
    assert (told["status"], told["error"], told["scan"]) == ("finished", "", None)
    assert all(told[key] == value for key, value in values.items() if key not in PATHS)
    edited = cells(of_server(result, {"width": 9}))
    assert (edited["status"], edited["ssim_phase"]) == ("rejected", None)
    # A sweep may say where to write, and leave the scan to its command.
    assert cells(of_server(result, {"data_dir": "data"}))["status"] == "finished"


def test_a_run_that_never_began_is_named_by_its_sweeps_keys() -> None:
    asked = {"width": 24, "modes": 8}
    never = replace(of_server(WHOLE), config=asked, summary={}, state="crashed")
    assert (cells(never)["run_id"], cells(never)["epochs"]) == (run_id(load_config(asked)), 20)
    # Where the data is not on this machine, nobody knows the name.
    scan = replace(never, config={"width": 24, "scan": "/elsewhere.npz"})
    assert (cells(scan)["run_id"], cells(scan)["scan"]) == ("", "/elsewhere.npz")


# --- whatever the server says ---------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["NaN", "Infinity", "finished", "[red]", 10**400])
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
CONFIG_KEYS = st.sampled_from(["run_id", "optimiser", *RunConfig.model_fields])
SUMMARY_KEYS = st.sampled_from(["status", *row(WHOLE), "loss_phase"]) | st.text(max_size=8)


@given(
    state=st.sampled_from(["finished", "failed", "running", "crashed", "[red]\n"]),
    config=st.dictionaries(CONFIG_KEYS, ANYTHING, max_size=3),
    odd=st.dictionaries(SUMMARY_KEYS, ANYTHING, max_size=3),
)
def test_no_run_is_so_strange_that_the_others_are_lost(
    state: str, config: dict[str, Any], odd: dict[str, Any]
) -> None:
    strange = of_server(WHOLE, config, odd, id="[b]x\n", state=state)
    table_of_both = merged(strange, of_server(result_of(RunConfig(width=8))))
    assert table_of_both.table["status"].tolist().count("finished") >= 1
    assert len(table_of_both.table.to_csv(lineterminator="\n").splitlines()) == 3
    material = Material("sweep s", "s", Path(), None, table_of_both.table, [], [])
    result = ExportResult(material, series(material.counted), Path(), [], None)
    assert any(compared.recommendation for compared in result.series)
    print_export(result, Console(file=io.StringIO(), width=140))


def test_a_foreign_run_has_keys_that_are_not_ours_and_no_run_id() -> None:
    ours = of_server(WHOLE)
    assert is_ours(ours)
    for config, expected in (
        ({}, False),
        ({"epochs": 5, "lr": 0.1}, False),
        ({"epochs": 5}, True),
        ({"run_id": "mine", "lr": 0.1}, False),
        ({"run_id": "0123456789ab", "lr": 0.1}, True),
    ):
        assert is_ours(replace(ours, config=config)) == expected
    asked = replace(ours, config={"epochs": 5, "seed": 1}, summary={"_runtime": 3})
    assert is_ours(asked)
    assert not is_ours(replace(asked, summary={"loss": 1}))
    assert not is_ours(replace(asked, sweep=None))


# --- several runs of one run_id, and local records ------------------------------------------------


def attempt(number: int, state: str = "finished", result: RunResult = WHOLE) -> ServerRun:
    """The n-th run of one configuration; without a result where its state is not an end."""
    arrived: dict[str, Any] | None = {} if state in ("finished", "failed") else None
    created = f"2026-01-0{number}T00:00:00Z"
    return of_server(result, summary=arrived, id=f"w{number}", created=created, state=state)


def merged(*runs: ServerRun, here: tuple[RunResult, ...] = ()) -> MergedTable:
    return merge([server_row(run) for run in runs], {"s1": here})


def shown(merged_table: MergedTable) -> list[tuple[object, ...]]:
    columns = ["wandb_id", "status", "superseded"]
    return [tuple(run) for run in merged_table.table[columns].to_numpy().tolist()]


BROKEN = failed(RunConfig(), "boom", timing={"total_time_s": 2.5})


def test_of_several_runs_the_finished_one_and_of_these_the_newest_counts() -> None:
    assert shown(merged(attempt(3, "failed", BROKEN), attempt(1, "crashed"), attempt(2))) == [
        ("w1", "crashed", True),
        ("w2", "finished", False),
        ("w3", "failed", True),
    ]
    assert shown(merged(attempt(2), attempt(1))) == [
        ("w1", "finished", True),
        ("w2", "finished", False),
    ]
    unnamed = replace(attempt(1), config={}, summary={})
    both = merged(unnamed, replace(unnamed, id="w2"))
    assert both.table["superseded"].tolist() == [False, False]


def test_a_record_is_told_in_place_of_its_mirror() -> None:
    here = result_of(RunConfig(), timing={"total_time_s": 1.5, "train_time_s": 61.0})
    # Late or partial: the newest run is the record's, as far as one can tell.
    both = merged(attempt(1, "crashed"), attempt(2, "crashed"), here=(here,))
    assert shown(both) == [("w1", "crashed", True), ("w2", "finished", False)]
    assert both.table["train_time_s"].tolist() == [None, 61.0]
    assert both.only_here == {"s1": [here.run_id]}
    # A run on its way is no news, if the server does not have it yet.
    on_its_way = merged(attempt(1, "running"), here=(here,))
    assert shown(on_its_way) == [("w1", "finished", False)]
    assert on_its_way.only_here == {}
    # The total time tells whose record it is.
    both = merged(attempt(1, "failed", BROKEN), attempt(2), here=(BROKEN,))
    assert shown(both) == [("w1", "failed", True), ("w2", "finished", False)]
    assert both.only_here == {}
    # One run here, whose end never arrived, and a newer one elsewhere: each keeps its numbers.
    apart = merged(attempt(1, "crashed"), attempt(2), here=(here,))
    assert shown(apart) == [("w1", "finished", True), ("w2", "finished", False)]
    assert apart.table["train_time_s"].tolist() == [61.0, 60.5]
    # Also where what is elsewhere is not believed.
    edited = replace(attempt(2), config={**attempt(2).config, "width": 9})
    doubted = merged(attempt(1, "crashed"), edited, here=(here,))
    assert [status for _, status, _ in shown(doubted)] == ["finished", "rejected"]
    # Paths are in no mirror: they tell where a row is from.
    assert both.table["data_dir"].tolist() == ["outputs/datasets", None]


def test_a_record_of_several_seeds_has_a_row_for_each() -> None:
    seeds = [SeedResult(seed=0, status="diverged"), SeedResult(seed=1, status="finished")]
    here = result_of(RunConfig(replicates=2), seeds=seeds)
    both = merged(attempt(1, "crashed", here), attempt(2, result=here), here=(here,))
    assert shown(both) == [
        ("w1", "crashed", True),
        ("w2", "diverged", False),
        ("w2", "finished", False),
    ]
    assert both.table["seed"].tolist() == [0, 0, 1]
    # Where only the mirror is at hand, the run is one row with the means.
    assert shown(merged(attempt(1, result=here))) == [("w1", "finished", False)]


def test_a_record_that_the_server_lacks_is_a_row_of_its_own() -> None:
    other = result_of(RunConfig(width=8))
    both = merged(attempt(1), here=(other,))
    assert sorted(shown(both)) == [("", "finished", False), ("w1", "finished", False)]
    assert both.only_here == {"s1": [other.run_id]}
    # A failure here hides no success elsewhere.
    late = BROKEN.model_copy(update={"timing": {"total_time_s": 9.5}})
    assert shown(merged(attempt(1), here=(late,))) == [
        ("", "failed", True),
        ("w1", "finished", False),
    ]
    # Another study's record of the same run_id is not that run's.
    apart = merge([server_row(attempt(1))], {"s1": [], "s2": [WHOLE]})
    assert shown(apart) == [("", "finished", True), ("w1", "finished", False)]
