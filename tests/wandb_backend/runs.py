"""One run as the server keeps it, and the wire format in which it gives the run back."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

HISTORY = "wandb-history.jsonl"
EVENTS = "wandb-events.jsonl"
SUMMARY = "wandb-summary.json"
CONSOLE = "output.log"

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
"""Creation time of run 0; run n is n seconds younger, so that the order is never a tie."""


def wire(value: Any) -> Any:
    """`value` as the server's JSON gives it back.

    JSON has neither NaN nor infinities: the server sends their names as strings. And a float
    without a fraction comes back as an int.
    """
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(key): wire(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [wire(item) for item in value]
    return value


def stamp(seconds: int) -> str:
    """The ISO time `seconds` after EPOCH, as the server writes it."""
    return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Run:
    """One run. `number` is its place in the order of creation.

    `state` is one of pending (handed to an agent, not heard of yet), running, finished, failed,
    crashed, killed, preempting, preempted.
    """

    entity: str
    project: str
    id: str
    number: int
    sweep_id: str | None = None
    state: str = "pending"
    exit_code: int | None = None
    display_name: str | None = None
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    host: str | None = None
    program: str | None = None
    commit: str | None = None
    tags: list[str] = field(default_factory=list)
    raw_config: dict[str, Any] = field(default_factory=dict)
    """As on the wire: {"key": {"value": …}}, the client's own "_wandb" entry included."""
    summary: dict[str, Any] = field(default_factory=dict)
    history_lines: list[str] = field(default_factory=list)
    event_lines: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    stop_asked: bool = False
    completions: int = 0
    """How many times a client reported the run's end (more than one: it was sent again)."""

    @property
    def path(self) -> str:
        """entity/project/id, as `wandb.Api().run` takes it."""
        return f"{self.entity}/{self.project}/{self.id}"

    @property
    def storage_id(self) -> str:
        """The server's own name of the run, which `id` of the public API is not."""
        return base64.b64encode(f"Run:v1:{self.id}:{self.project}:{self.entity}".encode()).decode()

    @property
    def config(self) -> dict[str, Any]:
        """The user's part of the configuration, as plain values."""
        return {
            key: item["value"] if isinstance(item, dict) and "value" in item else item
            for key, item in self.raw_config.items()
            if key != "_wandb"
        }

    @property
    def history(self) -> list[dict[str, Any]]:
        """The logged rows, oldest first."""
        return [wire(json.loads(line)) for line in self.history_lines if line]

    @property
    def telemetry(self) -> dict[str, Any]:
        """The client's "t" entry; a run without one was never begun, so is not resumed."""
        own = self.raw_config.get("_wandb", {}).get("value", {})
        return {"t": own["t"]} if "t" in own else {}

    def receive(self, message: Mapping[str, Any]) -> None:
        """Apply one message of the file stream: lines at offsets, then the end, if it is one.

        Lines are written *at* their offset, so a message that is sent again (its reply was lost)
        changes nothing.
        """
        for name, chunk in (message.get("files") or {}).items():
            offset, content = int(chunk["offset"]), list(chunk["content"])
            if name == HISTORY:
                write_lines(self.history_lines, offset, content)
            elif name == EVENTS:
                write_lines(self.event_lines, offset, content)
            elif name == CONSOLE:
                write_lines(self.console, offset, content)
            elif name == SUMMARY:
                self.summary = wire(json.loads(content[-1]))
        self.revive()
        if message.get("preempting"):
            self.state = "preempting"
        if message.get("complete"):
            self.completions += 1
            self.end(int(message.get("exitcode") or 0))

    def revive(self) -> None:
        """A program reports this run: that brings it to life, or back to life."""
        if self.state not in ("running", "preempting"):
            self.state = "running"
            self.exit_code = None

    def end(self, exit_code: int) -> None:
        """The program reported its exit status."""
        self.exit_code = exit_code
        if exit_code == 0:
            self.state = "finished"
        else:
            self.state = "preempted" if self.state == "preempting" else "failed"

    def fall_silent(self) -> None:
        """No sign of life for so long that the server gives the run up."""
        if self.state == "preempting":
            self.state = "preempted"
        elif self.state in ("pending", "running"):
            self.state = "crashed"

    def node(self) -> dict[str, Any]:
        """The run as the public API asks for it: more fields than any one query names."""
        rows = self.history
        return {
            "id": self.storage_id,
            "projectId": "1",
            "name": self.id,
            "displayName": self.display_name or self.id,
            "sweepName": self.sweep_id,
            "state": self.state,
            "exitcode": self.exit_code,
            "shouldStop": self.stop_asked,
            "failed": self.state == "failed",
            "stopped": self.stop_asked or self.state == "killed",
            "running": self.state == "running",
            "config": json.dumps(wire(self.raw_config)),
            "summaryMetrics": json.dumps(wire(self.summary)),
            "systemMetrics": self.event_lines[-1] if self.event_lines else "{}",
            "group": self.group,
            "jobType": self.job_type,
            "tags": list(self.tags),
            "commit": self.commit,
            "readOnly": False,
            "createdAt": stamp(self.number),
            "heartbeatAt": stamp(self.number + len(rows)),
            "description": "",
            "notes": self.notes,
            "historyLineCount": len(rows),
            "user": {"name": "Tester", "username": "tester"},
            "historyKeys": history_keys(rows),
        }

    def resume_status(self) -> dict[str, Any]:
        """What the client asks for when it is told to resume the run."""
        return {
            "id": self.storage_id,
            "name": self.id,
            "displayName": self.display_name or self.id,
            "summaryMetrics": json.dumps(wire(self.summary)),
            "config": json.dumps(wire(self.raw_config)),
            "tags": list(self.tags),
            "notes": self.notes,
            "logLineCount": len(self.console),
            "historyLineCount": len(self.history_lines),
            "eventsLineCount": len(self.event_lines),
            "historyTail": json.dumps(self.history_lines[-1:]),
            "eventsTail": json.dumps(self.event_lines[-1:]),
            "wandbConfig": json.dumps(self.telemetry),
        }


def write_lines(lines: list[str], offset: int, content: list[str]) -> None:
    """Put `content` at line `offset` of `lines`, over what is there; a gap is left empty."""
    missing = offset + len(content) - len(lines)
    if missing > 0:
        lines.extend([""] * missing)
    lines[offset : offset + len(content)] = content


def history_keys(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The server's index of a history: its last step and the keys with their types."""
    keys: dict[str, Any] = {}
    for row in rows:
        for key, value in row.items():
            kind = "number" if isinstance(value, int | float) else "string"
            count = keys.setdefault(key, {"typeCounts": [{"type": kind, "count": 0}]})
            count["typeCounts"][0]["count"] += 1
    last = max((int(row.get("_step", n)) for n, row in enumerate(rows)), default=-1)
    return {"lastStep": last, "sets": [], "keys": keys}
