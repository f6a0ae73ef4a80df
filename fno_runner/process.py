"""What tells a process from all others, on any host and at any time; and whether it is alive."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """Which process, among all of all hosts and times.

    host: for people.
    place: within it a pid means one process: a boot of a host, and its space of pids (containers
        that share a host's name have their own).
    started: [s since the epoch]; tells it from a later process of the same pid.
    """

    host: str
    place: str
    pid: int
    started: float

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessIdentity:
        """
        Raises:
            psutil.NoSuchProcess: it is over.
        """
        return cls(socket.gethostname(), _place(), process.pid, process.create_time())

    @classmethod
    def read(cls, content: object) -> ProcessIdentity | None:
        """What `as_mapping` gave; None where it is nothing of the kind."""
        if not isinstance(content, Mapping):
            return None
        try:
            return cls(
                str(content["host"]),
                str(content["place"]),
                int(content["pid"]),
                float(content["started"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    def as_mapping(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_here(self) -> bool:
        """Whether this process could see it."""
        return self.place == _place()

    def process(self) -> psutil.Process | None:
        """The process, if it is here and alive."""
        if not self.is_here:
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 2.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.NoSuchProcess, ValueError, OverflowError):  # a pid that none can have
            return None


@cache
def _place() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):  # Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)
