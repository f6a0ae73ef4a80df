"""Sweeps and agents: which point is handed out next, and what an agent is told to do."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from .runs import Run, stamp, wire

Point = dict[str, Any]


@dataclass
class Agent:
    """A registered agent and the runs it was given, oldest first."""

    id: str
    sweep_id: str
    host: str
    given: list[str] = field(default_factory=list)


@dataclass
class Sweep:
    """One sweep. `state` is RUNNING, PAUSED, FINISHED or CANCELED."""

    entity: str
    project: str
    id: str
    number: int
    config_yaml: str
    state: str = "RUNNING"
    requeued: list[str] = field(default_factory=list)
    """Preempted runs, to be given again before any new point."""

    @property
    def config(self) -> dict[str, Any]:
        """The sweep file, as the server parsed it."""
        loaded = yaml.safe_load(self.config_yaml)
        return loaded if isinstance(loaded, dict) else {}

    @property
    def path(self) -> str:
        """entity/project/id, as `wandb agent` takes it."""
        return f"{self.entity}/{self.project}/{self.id}"

    @property
    def storage_id(self) -> str:
        """The server's own name of the sweep."""
        return base64.b64encode(f"Sweep:{self.id}:{self.project}".encode()).decode()

    def grid(self) -> Iterator[Point]:
        """Every point, in the order in which the server hands them out."""
        return grid(self.config.get("parameters") or {})

    def node(self, runs: Iterable[Run]) -> dict[str, Any]:
        """The sweep as queries ask for it."""
        runs = list(runs)
        expected = sum(1 for _ in self.grid()) if self.config.get("method") == "grid" else None
        return {
            "__typename": "Sweep",
            "id": self.storage_id,
            "name": self.id,
            "displayName": None,
            "method": self.config.get("method"),
            "state": self.state,
            "description": self.config.get("description"),
            "config": self.config_yaml,
            "bestLoss": None,
            "createdAt": stamp(self.number),
            "updatedAt": stamp(self.number),
            "heartbeatAt": stamp(self.number),
            "earlyStopJobRunning": False,
            "controller": None,
            "controllerRunName": None,
            "scheduler": None,
            "runCount": len(runs),
            "runCountExpected": expected,
            "runs": {"edges": [{"node": {**run.node(), "sampledHistory": []}} for run in runs]},
        }


def grid(parameters: Mapping[str, Any]) -> Iterator[Point]:
    """The points of a grid: keys in alphabetical order, the last one running fastest."""
    names = sorted(parameters)
    choices = []
    for name in names:
        entry = parameters[name]
        if "values" in entry:
            choices.append(list(entry["values"]))
        elif "value" in entry:
            choices.append([entry["value"]])
        else:
            choices.append(list(range(entry["min"], entry["max"] + 1)))
    for values in itertools.product(*choices):
        yield dict(zip(names, values, strict=True))


def fingerprint(point: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...] | None:
    """What decides whether two points are the same: value and type of every swept key.

    1 and 1.0 are one value, 1 and "1" and true are three. None where a key is missing: such a
    run occupies no point.
    """
    names = sorted(names)
    if any(name not in point for name in names):
        return None
    return tuple(json.dumps(wire(point[name]), sort_keys=True) for name in names)


def swept(parameters: Mapping[str, Any]) -> list[str]:
    """The keys that vary; a key with one fixed `value` does not tell points apart."""
    return [name for name in sorted(parameters) if "value" not in parameters[name]]


def next_point(sweep: Sweep, runs: Iterable[Run]) -> Point | None:
    """The first point of the grid that no run of the sweep occupies, whatever its state.

    A failed or crashed run keeps its point; only deleting the run frees it. What counts is the
    run's configuration as it is now: a program that changes a swept key gives its point back.
    """
    names = swept(sweep.config.get("parameters") or {})
    taken = {fingerprint(run.config, names) for run in runs}
    for point in sweep.grid():
        if fingerprint(point, names) not in taken:
            return point
    return None
