"""Files of a folder that fills, each with one or more of a scan's frames and their positions.

A file is taken once it has not changed for a moment and can be read whole: an NPZ has its directory
at its end, and HDF5 knows when it is cut short. Files of any format that is read will do; names
that begin with a dot are left to whoever writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np

from fno_runner.apply.watch import Arrivals, Piece
from fno_runner.data.contents import readable, state_of
from fno_runner.data.formats import open_scan
from fno_runner.data.measured import Flags, Frames, InMemory
from fno_runner.data.source import Hints
from fno_runner.errors import UserError

UNCHANGED_S = 0.25
"""A file is opened after so long without a change [s]."""
RETRY_S = 1.0
"""A file that cannot be read and does not change is tried again so often [s]."""
NAMED = 3
"""So many files that cannot be read are named."""


@dataclass
class _Waiting:
    """A file that is not taken yet: how it looked, since when, and why it could not be read."""

    state: tuple[int, ...]
    since: float
    tried: float = -RETRY_S
    why: str | None = None


class Folder(Arrivals):
    """A folder of scan files, in the order in which they came; by name, where at the same time."""

    def __init__(self, path: Path, hints: Hints) -> None:
        super().__init__(path, hints)
        self._taken: dict[str, tuple[int, ...] | None] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._changed: set[str] = set()

    @property
    def complete(self) -> bool:
        return False

    def again(self, keys: Iterable[str]) -> list[Piece]:
        pieces = []
        for name in keys:
            try:
                pieces.append(self._read(name))
            except UserError as error:
                raise UserError(f"the files it began with are needed to go on: {error}") from None
        return pieces

    def go_on(self, keys: Iterable[str]) -> None:
        self._taken = dict.fromkeys(keys)

    def remarks(self) -> list[str]:
        unreadable = [waiting.why for waiting in self._waiting.values() if waiting.why is not None]
        said = [f"left out: {why}" for why in unreadable[:NAMED]]
        if len(unreadable) > NAMED:
            said.append(f"and {len(unreadable) - NAMED} more files that cannot be read")
        if self._changed:
            names = ", ".join(sorted(self._changed)[:NAMED])
            said.append(
                f"{self.path}: {len(self._changed)} files were replaced or written again after "
                f"they had been read ({names}); the object has their first frames"
            )
        return said

    def _pieces(self) -> Iterator[Piece]:
        with readable(self.path):
            names = sorted(entry.name for entry in self.path.iterdir())
        for name in names:
            if name.startswith("."):
                continue
            try:
                state = state_of(self.path / name)
            except UserError:
                continue  # renamed meanwhile
            if name in self._taken:
                before = self._taken[name]
                self._taken[name] = state
                if before not in (None, state):
                    self._changed.add(name)
            elif self._is_ripe(name, state):
                try:
                    piece = self._read(name)
                except UserError as error:
                    waiting = self._waiting[name]
                    waiting.tried, waiting.why = monotonic(), str(error)
                    continue
                yield piece
                del self._waiting[name]
                self._taken[name] = state
        for name in self._waiting.keys() - set(names):
            del self._waiting[name]
        whys = (waiting.why for waiting in self._waiting.values() if waiting.why is not None)
        self.waits_for = next(whys, f"{len(self._taken)} files have come")

    def _is_ripe(self, name: str, state: tuple[int, ...]) -> bool:
        """Whether a file has been as it is for long enough, and is to be tried now."""
        now = monotonic()
        waiting = self._waiting.get(name)
        if waiting is None or waiting.state != state:
            why = None if waiting is None else waiting.why
            self._waiting[name] = _Waiting(state, now, why=why)
            return False
        return now - waiting.since >= UNCHANGED_S and now - waiting.tried >= RETRY_S

    def _read(self, name: str) -> Piece:
        with open_scan(self.path / name, self.hints) as opened:
            measured = opened.measured
            if measured.of_frame is not None or measured.frames.shape[0] != len(measured.positions):
                raise UserError(f"{self.path / name}: has not one position for each of its frames")
            flags = measured.flags
            if flags is not None:
                flags = Flags(_in_memory(flags.marks), flags.bad)
            frames = _in_memory(measured.frames)
            part = replace(measured, frames=frames, flags=flags, reference=None)
        return Piece(name, part)


def _in_memory(frames: Frames) -> InMemory:
    return InMemory(np.concatenate([block for _, block in frames.blocks()]))
