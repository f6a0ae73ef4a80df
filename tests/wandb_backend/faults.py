"""What goes wrong on request, and the log of all requests."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request as the server saw it; headers are left out, they hold the API key."""

    operation: str
    """GraphQL operation name, or file_stream, upload, download."""
    method: str
    path: str
    variables: Mapping[str, Any]
    at: float
    """Seconds since the server was made."""
    fault: Fault | None


@dataclass(eq=False)
class Fault:
    """One kind of misbehaviour for the requests whose operation matches a pattern.

    Exactly one of `status`, `html`, `drop`, `lose_reply` may be set; `delay` may join any of
    them, or stand alone (a slow server that answers well).
    """

    operation: str = "*"
    """Operation name; the wildcards of file names are understood."""
    status: int | None = None
    """Answer with this HTTP status and do nothing."""
    retry_after: float | None = None
    """Value of the Retry-After header [s]; with `status`."""
    html: bool = False
    """Answer 200 with a web page, as a captive portal or a proxy does, and do nothing."""
    drop: bool = False
    """Close the connection without an answer, before anything is done."""
    lose_reply: bool = False
    """Do what was asked, then close the connection without an answer."""
    delay: float = 0.0
    """Wait before anything else [s]."""
    times: int | None = 1
    """How many requests it hits; None: all until it is removed."""
    after: int = 0
    """How many matching requests pass unharmed first."""
    run: str | None = None
    """Only requests about this run id (in the variables or the path)."""
    hits: int = 0

    def __post_init__(self) -> None:
        chosen = [self.status is not None, self.html, self.drop, self.lose_reply]
        if sum(chosen) > 1:
            raise ValueError("a fault is one of status, html, drop, lose_reply")
        if not any(chosen) and not self.delay:
            raise ValueError("a fault without an effect")

    def matches(self, operation: str, path: str, variables: Mapping[str, Any]) -> bool:
        """Whether a request is of the kind this fault is for."""
        if not fnmatchcase(operation, self.operation):
            return False
        return self.run is None or self.run in path.split("/") or self.run in variables.values()


@dataclass
class Faults:
    """The faults in force; the first one that matches a request is used, and used up."""

    active: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, operation: str = "*", **effect: Any) -> Fault:
        """Put a fault in force; see `Fault` for the effects. Its `hits` counts what it hit."""
        fault = Fault(operation, **effect)
        with self._lock:
            self.active.append(fault)
        return fault

    def clear(self) -> None:
        """Behave well again."""
        with self._lock:
            self.active.clear()

    def take(self, operation: str, path: str, variables: Mapping[str, Any]) -> Fault | None:
        """The fault for a request, if there is one."""
        with self._lock:
            for fault in self.active:
                if not fault.matches(operation, path, variables):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.hits += 1
                if fault.times is not None and fault.hits >= fault.times:
                    self.active.remove(fault)
                return fault
        return None
