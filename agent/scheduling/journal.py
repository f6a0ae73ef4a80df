"""The queue's journal and its lock, which a killed process leaves in order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

JOURNAL = "queue.journal"
LONGEST_LINE = 2**20
"""Longer ones are none [bytes]."""


class JournalLock(JournalFileOpenLock):  # type: ignore[misc]  # optuna is untyped here
    """Held by the kernel for its process: a killed one holds nothing.

    Whoever has it first cuts off the line in which a writer died, or ran out of disk: the next line
    would otherwise be written behind it, and the journal would be damaged for good.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        try:
            self._mend()
        except BaseException:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        self._lock.release()

    def _mend(self) -> None:
        with self._journal.open("r+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            if stream.read() in (b"", b"\n"):  # as it nearly always is
                return
            start = stream.seek(max(0, size - LONGEST_LINE))
            stream.truncate(start + stream.read().rfind(b"\n") + 1)


class Journal(JournalFileBackend):  # type: ignore[misc]  # optuna is untyped here
    """The file in which the queue's entries are, each synced to the disk unless told otherwise."""

    def __init__(self, path: Path) -> None:
        self._path, self._own_lock, self._is_put_off = path, JournalLock(path), False
        super().__init__(str(path), lock_obj=self._own_lock)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Sync what is queued meanwhile once, at the end.

        Thousands of points, each synced by itself, take minutes before the first one starts.
        """
        self._is_put_off = True
        try:
            yield
        finally:
            self._is_put_off = False
            with self._path.open("rb") as stream:
                os.fsync(stream.fileno())

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries, a line each."""
        if not self._is_put_off:
            super().append_logs(logs)
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._own_lock.acquire()
        try:
            with self._path.open("ab") as stream:
                stream.write(lines.encode())
        finally:
            self._own_lock.release()
