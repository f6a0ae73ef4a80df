"""The table of quantities: what it says of a number holds for every kind of record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.study.records import read_record, row
from agent.study.retimes import Times
from agent.study.sweepfile import parse_sweep
from fno_runner.config import RunConfig
from fno_runner.errors import UnbelievableError
from fno_runner.result import RunResult
from fno_runner.score.metrics import METRICS
from fno_runner.score.quantities import FLOORS, QUANTITIES, VALIDATION, Quantity, floor_of
from tests.test_mirrored import cells, failed, of_server, result_of

COLUMNS = [*QUANTITIES, *(f"{c}_{f}" for c in QUANTITIES for f in FLOORS if floor_of(f"{c}_{f}"))]


def quantity_of(column: str) -> Quantity:
    quantity = QUANTITIES.get(column) or floor_of(column)
    assert quantity is not None
    return quantity


def at_the_bounds(quantity: Quantity) -> Iterator[float]:
    if not quantity.logarithmic and math.isfinite(quantity.low):
        yield quantity.low
    if math.isfinite(quantity.high):
        yield quantity.high


def impossible(quantity: Quantity) -> Iterator[Any]:
    """What no run can have measured."""
    yield from ("hello", True, 10**400)
    if math.isfinite(quantity.low):
        yield quantity.low - 0.01
    if math.isfinite(quantity.high):
        yield quantity.high + 0.01
    if quantity.logarithmic:
        yield 0


def place(record: dict[str, Any], column: str) -> tuple[Any, str | int]:
    """Where a record keeps what its row has under that name."""
    quantity = quantity_of(column)
    if quantity.of == "cost":
        return (record if column in record else record["timing"]), column
    if column.startswith("r_"):
        return record["metrics"].setdefault("r_factor", {}), column.removeprefix("r_")
    for name in ("deviance", "resolution"):
        if column.startswith(name):
            return record["metrics"].setdefault(name, {}), column.removeprefix(f"{name}_")
    pairs = record["metrics"]
    if quantity.of == "validation":
        pairs = record["validation"]
    for floor in FLOORS:
        if column.endswith(f"_{floor}"):
            pairs = record["floors"].setdefault("flat_phase" if floor == "flat" else floor, {})
            column = column.removesuffix(f"_{floor}")
    name, _, part = column.removeprefix(VALIDATION).rpartition("_")
    return pairs.setdefault(name, [None, None]), ("amp", "phase").index(part)


def read_with(folder: Path, column: str, value: object, of_seed: bool = False) -> RunResult:
    """Write a record with that value in it, and read it."""
    record = json.loads(result_of(RunConfig(replicates=2 if of_seed else 1)).to_json())
    target = record
    if of_seed:
        record["seeds"] = [{"seed": 0, "status": "finished", "metrics": {}, "validation": {}}]
        target = record["seeds"][0]
    group, key = place(target, column)
    group[key] = value
    path = folder / "result.json"
    path.write_text(json.dumps(record))
    return read_record(path)


def test_the_table_has_every_metric_once() -> None:
    pairs = {f"{name}_{part}" for name in (*METRICS, "ssim_2pi") for part in ("amp", "phase")}
    of_object = {column for column, quantity in QUANTITIES.items() if quantity.of == "object"}
    assert pairs == of_object
    assert {f"{VALIDATION}{column}" for column in pairs} < set(QUANTITIES)
    assert all(quantity.column == column for column, quantity in QUANTITIES.items())


def test_a_sweep_may_aim_at_every_quantity() -> None:
    for column in QUANTITIES:
        goal = {"name": column, "goal": "maximize"}
        asked = {"method": "bayes", "metric": goal, "parameters": {"modes": {"values": [8, 16]}}}
        metric = parse_sweep(asked, "test").metric
        assert metric is not None and metric.name == column


def test_a_record_is_believed_within_the_bounds_only(tmp_path: Path) -> None:
    for column in COLUMNS:
        _check_record(tmp_path, column)


def _check_record(tmp_path: Path, column: str) -> None:
    quantity = quantity_of(column)
    for value in at_the_bounds(quantity):
        assert row(read_with(tmp_path, column, value))[column] == value
    for value in impossible(quantity):
        with pytest.raises(UnbelievableError):
            read_with(tmp_path, column, value)
        if quantity.of != "cost" and floor_of(column) is None:
            with pytest.raises(UnbelievableError):
                read_with(tmp_path, column, value, of_seed=True)


def test_a_servers_run_is_believed_within_the_bounds_only() -> None:
    for column in COLUMNS:
        _check_run_of_server(column)


def _check_run_of_server(column: str) -> None:
    quantity = quantity_of(column)
    whole, broken = result_of(RunConfig()), failed(RunConfig(), "boom")
    for value in at_the_bounds(quantity):
        assert cells(of_server(whole, summary={column: value}))[column] == value
    for value in impossible(quantity):
        for result in (whole, broken):
            told = cells(of_server(result, summary={column: value}))
            assert told["status"] == "rejected" and column in str(told["error"])
            assert told.get(column) is None
    if quantity.of in ("object", "validation", "scan") and floor_of(column) is None:
        # What failed has measured nothing, whatever is left of an earlier attempt.
        low = quantity.low if math.isfinite(quantity.low) else 0.0
        assert cells(of_server(broken, summary={column: low})).get(column) is None


TIMES: dict[str, Any] = {
    **dict.fromkeys((f for f in Times.model_fields if f.endswith("_s")), 0.5),
    **dict.fromkeys((f for f in Times.model_fields if f.endswith("_repeats")), 3),
    **{"infer_batch_size": 8, "threads": 1, "tf32": False, "flops_per_pattern": 10**6},
    "device_name": "a device",
}


@pytest.mark.parametrize("column", sorted(Times.model_fields.keys() & QUANTITIES.keys()))
def test_a_time_taken_again_is_believed_within_the_bounds_only(column: str) -> None:
    Times(**TIMES)
    for value in impossible(QUANTITIES[column]):
        with pytest.raises(ValidationError):
            Times(**TIMES | {column: value})
