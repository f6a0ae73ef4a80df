"""Who runs which point, as files that every driver of a study's folder sees.

The queue hands points out. These files make sure that a point which it hands out twice is run once,
and their times of change are the heartbeats of drivers on other hosts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock

from agent.scheduling.listener import Listener
from fno_runner.errors import MachineError
from fno_runner.files import make_folder, write_text_atomically
from fno_runner.process import ProcessIdentity

BEAT_S = 10.0
"""A driver says so often that it lives [s]."""
SILENT_S = 120.0
"""A driver on another host that was not heard of for so long is dead [s]."""
LOCK_WAIT_S = 60.0
MAX_BYTES = 4096
"""A larger claim is none [bytes]."""


class Claims:
    """The claims of one study's drivers, `folder`/<run_id>; a claim is held by one of them."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            MachineError: the folder cannot be written.
        """
        self._folder = make_folder(folder)
        self._me = ProcessIdentity.of(psutil.Process())
        self._listener = Listener()
        self._held: dict[str, int] = {}

    def take(self, run_id: str, attempt: int) -> bool:
        """Claim a point for an attempt at it; False where a living driver has it.

        Raises:
            MachineError: the disk refuses.
        """
        with self._lock():
            path = self._folder / run_id
            if path.exists() and not self.is_dead(run_id):
                return False
            content = {**self._me.as_mapping(), "attempt": attempt}
            write_text_atomically(path, json.dumps(content) + "\n")
            self._held[run_id] = attempt
        return True

    def release(self, run_id: str) -> None:
        """Give a point up that this driver holds, if it still does."""
        if self._held.pop(run_id, None) is not None and self._is_mine(run_id):
            with suppress(OSError):
                (self._folder / run_id).unlink()

    def beat(self) -> list[str]:
        """Say that this driver lives; which points others have meanwhile taken from it.

        They may where it was silent for `SILENT_S`: suspended, or cut off from the disk.
        """
        lost = []
        for run_id in list(self._held):
            try:
                if self._is_mine(run_id):
                    os.utime(self._folder / run_id)
                elif (self._folder / run_id).exists() or not self.take(run_id, self._held[run_id]):
                    lost.append(run_id)
                    del self._held[run_id]
            except (OSError, MachineError):  # the disk may be back before the others think so
                continue
        return lost

    def attempt(self, run_id: str) -> int | None:
        """Which attempt at a point its claim is for."""
        return self._read(run_id)[1]

    def is_dead(self, run_id: str) -> bool:
        """Whether whoever has a claim is dead: gone from this host, or silent on another."""
        holder = self._read(run_id)[0]
        if holder is not None and holder.is_here:
            return holder.process() is None
        return self.silence(run_id) > SILENT_S

    def is_unsure(self, run_id: str) -> bool:
        """Whether a point is claimed by a driver elsewhere that was not heard of so far."""
        holder = self._read(run_id)[0]
        claimed = (self._folder / run_id).exists()
        return claimed and (holder is None or not holder.is_here) and not self.has_heard(run_id)

    def clear(self) -> None:
        """Remove what killed drivers of this host have left."""
        with self._lock():
            for path in self._folder.glob("[!.]*"):
                holder = self._read(path.name)[0]
                if holder is not None and holder.is_here and holder.process() is None:
                    path.unlink(missing_ok=True)

    def silence(self, run_id: str) -> float:
        """For how long a claim has not been heard of, as far as this driver has listened [s]."""
        try:
            facts = (self._folder / run_id).stat()
        except OSError:
            return self._listener.silence(run_id, None)
        return self._listener.silence(run_id, (facts.st_ino, facts.st_mtime_ns))

    def has_heard(self, run_id: str) -> bool:
        """Whether a sign of life of a far driver was heard."""
        return self._listener.has_heard(run_id)

    def _is_mine(self, run_id: str) -> bool:
        return self._read(run_id)[0] == self._me

    def _read(self, run_id: str) -> tuple[ProcessIdentity | None, int | None]:
        """A claim's holder and attempt; None for what cannot be read."""
        try:
            with (self._folder / run_id).open("rb") as stream:
                content = json.loads(stream.read(MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return None, None
        attempt = content.get("attempt") if isinstance(content, dict) else None
        return ProcessIdentity.read(content), attempt if isinstance(attempt, int) else None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with FileLock(self._folder / ".lock", timeout=LOCK_WAIT_S):
                yield
        except (OSError, TimeoutError) as error:
            raise MachineError(f"cannot lock {self._folder}: {error}") from error
