"""The lock of the queue's journal, which a killed process leaves in order."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock
from optuna.storages.journal import JournalFileOpenLock

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
            start = stream.seek(max(0, size - LONGEST_LINE))
            tail = stream.read()
            if tail and not tail.endswith(b"\n"):
                stream.truncate(start + tail.rfind(b"\n") + 1)
