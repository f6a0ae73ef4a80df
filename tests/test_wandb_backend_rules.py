"""The rules of the stand-in for the Weights & Biases server, without a client."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.wandb_backend import Run, Sweep, WandbBackend, wire
from tests.wandb_backend.filters import matches, ordered, page
from tests.wandb_backend.runs import write_lines
from tests.wandb_backend.sweeps import grid, next_point

PROJECT = "study"


def test_grid_is_handed_out_in_alphabetical_order_of_keys_by_value_and_type() -> None:
    parameters = {"b": {"values": ["x", "y"]}, "a": {"values": [1, "1", True]}, "c": {"value": 3}}
    points = list(grid(parameters))
    assert points[:3] == [
        {"a": 1, "b": "x", "c": 3},
        {"a": 1, "b": "y", "c": 3},
        {"a": "1", "b": "x", "c": 3},
    ]
    sweep = Sweep("e", PROJECT, "s", 0, json.dumps({"method": "grid", "parameters": parameters}))

    def taken(number: int, **config: Any) -> Run:
        return Run("e", PROJECT, f"r{number}", number, raw_config=config)

    assert next_point(sweep, []) == points[0]
    # A fixed key and an integral float take nothing away from the match; a changed type does.
    assert next_point(sweep, [taken(0, a={"value": 1.0}, b={"value": "x"})]) == points[1]
    assert next_point(sweep, [taken(0, a={"value": "1"}, b={"value": "x"})]) == points[0]
    assert next_point(sweep, [taken(0, a={"value": True}, b={"value": "x"})]) == points[0]
    everything = [
        taken(n, **{key: {"value": value} for key, value in point.items()})
        for n, point in enumerate(points)
    ]
    assert next_point(sweep, everything) is None


def test_lines_sent_again_change_nothing() -> None:
    lines: list[str] = []
    write_lines(lines, 0, ["a", "b"])
    write_lines(lines, 1, ["b", "c"])
    assert lines == ["a", "b", "c"]


def test_wire_format_knows_no_nan_and_no_integral_floats() -> None:
    value = {"a": math.nan, "b": [math.inf, -math.inf], "c": 2.0, "d": 0.5, "e": True, "f": None}
    expected = {"a": "NaN", "b": ["Infinity", "-Infinity"], "c": 2, "d": 0.5, "e": True, "f": None}
    assert wire(value) == expected
    assert type(wire(2.0)) is int


def test_filters_order_and_pages() -> None:
    runs = [
        Run("e", PROJECT, f"r{n}", n, sweep_id="s" if n % 2 else None, state="finished", tags=["t"])
        for n in range(5)
    ]
    for run in runs:
        run.summary = {"loss": 10 - run.number}
        run.raw_config = {"width": {"value": run.number}}

    def found(filters: dict[str, Any]) -> list[int]:
        return [run.number for run in runs if matches(run, filters)]

    assert found({"sweep": "s"}) == [1, 3]
    assert found({"$and": [{"sweep": "s"}, {"config.width": {"$gt": 1}}]}) == [3]
    assert found({"$or": [{"name": "r0"}, {"summary_metrics.loss": 6}]}) == [0, 4]
    assert found({"tags": {"$in": ["t"]}, "state": {"$ne": "finished"}}) == []
    assert found({"config.depth": {"$exists": True}}) == []
    with pytest.raises(ValueError, match="cannot filter"):
        found({"colour": "red"})
    assert [run.number for run in ordered(runs, "-created_at")] == [4, 3, 2, 1, 0]
    assert [run.number for run in ordered(runs, "+summary_metrics.loss")] == [4, 3, 2, 1, 0]
    second = page(runs, "2", 2)
    assert [edge["node"].number for edge in second["edges"]] == [2, 3]
    assert second["pageInfo"]["hasNextPage"]
    assert not page(runs, "4", 2)["pageInfo"]["hasNextPage"]


def test_points_fail_crash_are_preempted_and_deleted() -> None:
    """The fates of a point, told by heartbeats."""
    backend = WandbBackend()
    store = backend.store
    sweep = backend.add_sweep({"method": "grid", "parameters": {"a": {"values": [1, 2]}}}, PROJECT)
    agent, other = store.new_agent(sweep, "box"), store.new_agent(sweep, "box")

    def beat(*alive: str) -> dict[str, Any]:
        commands = store.heartbeat(agent, dict.fromkeys(alive, True))
        return commands[0] if commands else {}

    first = beat()
    assert (first["type"], first["args"]) == ("run", {"a": {"value": 1}})
    assert beat(first["run_id"]) == {}
    run = backend.run(first["run_id"])
    store.receive(run.entity, run.project, run.id, {"preempting": True})
    assert run.state == "preempting"
    store.receive(run.entity, run.project, run.id, {"complete": True, "exitcode": 1})
    assert run.state == "preempted"
    again = beat()
    assert (again["type"], again["run_id"], again["args"]) == ("resume", run.id, first["args"])
    store.receive(run.entity, run.project, run.id, {"complete": True, "exitcode": 1})
    assert run.state == "failed"  # this time nobody announced a preemption

    second = beat()
    assert second["args"] == {"a": {"value": 2}}
    assert store.heartbeat(other, {}) == [{"type": "exit"}]
    assert beat()["type"] == "exit"  # its process is gone and never reported
    lost = backend.run(second["run_id"])
    assert (lost.state, sweep.state) == ("crashed", "FINISHED")

    store.delete_run(lost)
    sweep.state = "RUNNING"
    assert beat()["args"] == {"a": {"value": 2}}
    backend.give_up_silent()
    assert [r.state for r in backend.runs] == ["failed", "crashed"]


def test_a_fault_has_one_effect_and_counts_its_hits() -> None:
    backend = WandbBackend()
    with pytest.raises(ValueError, match="one of"):
        backend.faults.add("Runs", status=500, drop=True)
    with pytest.raises(ValueError, match="without"):
        backend.faults.add("Runs")
    fault = backend.faults.add("Upsert*", status=429, retry_after=2, times=2, after=1)
    noted = [backend.note("UpsertBucket", "POST", "/graphql", {}) for _ in range(4)]
    assert noted == [None, fault, fault, None]
    assert (fault.hits, backend.count("UpsertBucket")) == (2, 4)


def test_workspaces_are_kept() -> None:
    backend = WandbBackend()

    def ask(operation: str, **variables: Any) -> dict[str, Any]:
        return backend.operations.answer(operation, "", variables)

    made = ask("UpsertView2", name="nw-x-v", displayName="Study", spec="{}")["upsertView"]
    assert made["inserted"]
    again = ask("UpsertView2", id=made["view"]["id"], spec='{"a": 1}')["upsertView"]
    assert not again["inserted"]
    (edge,) = ask("View", viewName="nw-x-v")["project"]["allViews"]["edges"]
    assert (edge["node"]["displayName"], edge["node"]["spec"]) == ("Study", '{"a": 1}')
