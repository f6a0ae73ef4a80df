"""Frames of an HDF5 file that is being written.

Rows are taken once the file's arrays were at least so long at the poll before, and hold something:
frames and positions that are preallocated are waited for.
A file in SWMR mode is read without its lock, as HDF5 allows. Any other is opened only when it has
not changed for a while, so that a writer that opens it again and again never finds it in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from fno_runner.apply.watch import Arrivals, Piece
from fno_runner.data.contents import Contents, state_of
from fno_runner.data.formats import recognise
from fno_runner.data.hdf5 import SIGNATURE, Hdf5File, is_hdf5
from fno_runner.data.hdf5_frames import Hdf5Frames
from fno_runner.data.kept import MIN_FRAMES
from fno_runner.data.measured import Flags, Frames, InMemory, Measured, frames_a_block
from fno_runner.data.source import Hints, Source
from fno_runner.errors import UserError

AT_ONCE = 64
"""Frames a piece, so that a signal is soon heard and the object soon told."""
EMPTY_S = 5.0
"""An empty frame with others behind it is waited for so long, and then left out [s]."""
UNCHANGED_S, CLOSED_S = 1.0, 0.2
"""A file that is not in SWMR mode is opened after so long without a change; one that was [s]."""
FLAGS_AT, SWMR_WRITE = 11, 0x04
"""Of a superblock of version 3: where its file consistency flags are, and that of SWMR writing."""


class GrowingFile(Arrivals):
    """An HDF5 file of any format that is read, whose frames and positions get longer (SWMR).

    Usable are as many frames as the shortest of the arrays has that the format's reader asks for.
    Positions may be there from the start: their number is then that of the frames to come. Lists
    that have their length before their content are as long as what is written in them; those that
    get longer meanwhile have it with their content.
    """

    def __init__(self, path: Path, hints: Hints) -> None:
        super().__init__(path, hints)
        self._taken = self._length = self._stored = 0
        self._empty_since: float | None = None
        self._state: tuple[int, ...] = ()
        self._changed = 0.0
        self._exhausted: tuple[int, ...] | None = None
        self._was_swmr = False
        self._lengths: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        return self.declared is not None and self._taken >= self.declared

    def again(self, keys: Iterable[str]) -> list[Piece]:
        wanted = [_rows(key) for key in keys]
        with self._opened(_is_written(self.path)) as measured:
            if measured is None or max(stop for _, stop in wanted) > measured.frames.shape[0]:
                raise UserError(f"{self.path}: the frames it began with are not there any more")
            section = _section(measured)
            return [self._piece(measured, rows[0], section.read(*rows)) for rows in wanted]

    def go_on(self, keys: Iterable[str]) -> None:
        self._taken = max((_rows(key)[1] for key in keys), default=0)

    def remarks(self) -> list[str]:
        empty = f"{self.path}: {self.left_out} frames were empty and are left out"
        return [empty] if self.left_out else []

    def _pieces(self) -> Iterator[Piece]:
        state = state_of(self.path)
        if state != self._state:
            self._state, self._changed = state, monotonic()
        swmr = _is_written(self.path)
        self._was_swmr = self._was_swmr or swmr
        wait_s = CLOSED_S if self._was_swmr else UNCHANGED_S
        seen = state == self._exhausted and self._empty_since is None
        if not swmr and (seen or monotonic() - self._changed < wait_s):
            return
        with self._opened(swmr) as measured:
            if not swmr:  # whatever is in it, there is no more until it changes
                self._exhausted = state
            if measured is None:
                return
            length = measured.frames.shape[0]
            settled, self._length = (min(length, self._length) if swmr else length), length
            section = _section(measured)
            step = min(AT_ONCE, frames_a_block(section.shape, section.dtype))
            while self._taken < settled:
                frames = section.read(self._taken, min(self._taken + step, settled))
                lit = section.lit(frames)
                full = len(lit) if lit.all() else int(lit.argmin())
                if full > 0:
                    self._empty_since = None
                    yield self._piece(measured, self._taken, frames[:full])
                    self._taken += full
                elif not self._skip_empty(section, lit, settled):
                    self.waits_for = f"frame {self._taken} is empty"
                    return
            self.waits_for = f"it has {length} frames"

    def _skip_empty(self, section: Section, lit: np.ndarray, settled: int) -> bool:
        """Whether the empty frames that come next came no more although others did.

        Args:
            lit: which frames from the next one on hold something; the first does not.
        """
        if not lit.any():
            if self._taken + len(lit) >= settled:
                return False  # those at the end may still come
            if not section.lit(section.read(settled - 1, settled)).any():
                return False
        now = monotonic()
        self._empty_since = now if self._empty_since is None else self._empty_since
        if now - self._empty_since < EMPTY_S:
            return False
        empty = int(lit.argmax()) if lit.any() else len(lit)
        self.left_out += empty
        self._taken += empty
        return True

    def _piece(self, measured: Measured, first: int, frames: np.ndarray) -> Piece:
        """Frames that have been read, the first of this number, with what belongs to them."""
        stop, flags = first + len(frames), measured.flags
        if flags is not None and isinstance(flags.marks, Section):
            flags = Flags(InMemory(flags.marks.read(first, stop)), flags.bad)
        monitor = None if measured.monitor is None else measured.monitor[first:stop]
        indexes = np.arange(stop) if measured.indexes is None else measured.indexes
        part = replace(
            measured,
            frames=InMemory(frames),
            positions=measured.positions[first:stop],
            of_frame=None,
            indexes=indexes[first:stop],
            flags=flags,
            monitor=monitor,
            reference=None,
        )
        return Piece(f"{first}:{stop}", part)

    @contextmanager
    def _opened(self, swmr: bool) -> Iterator[Measured | None]:
        """What the format's reader finds, cut to what has come; None while it finds nothing."""
        measured = None
        with np.errstate(all="ignore"):
            try:
                if not is_hdf5(self.path):
                    raise UserError(f"{self.path}: not an HDF5 file (yet)")
                source = _LiveSource(self.path, self.hints, swmr, self._lengths)
            except UserError as error:
                self.waits_for = str(error)
                yield None
                return
            with source:
                try:
                    measured = self._read(source)
                except UserError as error:
                    self.waits_for = str(error)
                else:
                    self._check_growth(source, measured)
                yield measured

    def _check_growth(self, source: _LiveSource, measured: Measured) -> None:
        """
        Raises:
            UserError: the file's frames cannot get more, or are less than they were.
        """
        if not isinstance(measured.frames, Section):
            raise UserError(
                f"{self.path}: cannot be watched: {source.why_it_cannot_grow(measured)}"
            )
        stored = min(source.live.asked.values())
        if stored < (before := max(self._taken, self._stored)):
            raise UserError(f"{self.path}: has {stored} frames, and had {before} before")
        self._stored = stored

    def _read(self, source: _LiveSource) -> Measured:
        live = source.live
        for _ in range(8):
            live.asked.clear()
            live.written.clear()
            try:
                measured = recognise(source).read(source)
            except UserError:
                if not live.asked or live.usable == live.cut:
                    raise
            else:
                if not isinstance(measured.frames, Section):
                    return measured  # which is told
                # Arrays that are ahead of the others are as long as these only once they are cut.
                count = measured.frames.shape[0]
                if count == len(measured.positions) == live.usable == live.cut:
                    break
            live.cut = live.usable
        else:
            raise UserError(f"{self.path}: its arrays do not get to one length")
        if len(measured.positions) and not (np.ptp(measured.positions, axis=0) > 0).any():
            raise UserError(f"{self.path}: all positions are the same: none may be written yet")
        if not np.isfinite(measured.positions).all():
            # Of a whole file such frames are left out; here a number may come yet.
            raise UserError(f"{self.path}: positions that are no numbers: not all are written yet")
        order = measured.of_frame
        if order is not None and not np.array_equal(order, np.arange(len(order))):
            raise UserError(f"{self.path}: frames and positions are in different orders")
        self.declared = source.live.declared or self.declared
        if self.hints.data is not None:
            measured = replace(measured, kind=self.hints.data, settled=True)
        return measured


def _is_written(path: Path) -> bool:
    """Whether a process writes the file in SWMR mode, as its superblock says."""
    try:
        with path.open("rb") as stream:
            head = stream.read(FLAGS_AT + 1)
    except OSError:
        return False
    if len(head) <= FLAGS_AT or not head.startswith(SIGNATURE) or head[len(SIGNATURE)] < 3:
        return False
    return bool(head[FLAGS_AT] & SWMR_WRITE)


def _section(measured: Measured) -> Section:
    """A file's frames so far, which `_check_growth` has seen."""
    assert isinstance(measured.frames, Section)
    return measured.frames


def _rows(key: str) -> tuple[int, int]:
    first, stop = key.split(":")
    return int(first), int(stop)


class Section(Frames):
    """The first frames of an HDF5 dataset (F, H, W) that is growing."""

    def __init__(self, dataset: Any, count: int, whole: Hdf5Frames) -> None:
        self._dataset = dataset
        self.shape = (count, *whole.shape[1:])
        self.leading, self.dtype = self.shape[:1], whole.dtype

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        yield 0, self.read(0, self.shape[0])

    def read(self, first: int, stop: int) -> np.ndarray:
        """Frames `first` to `stop`.

        Raises:
            UserError: HDF5 cannot read them.
        """
        try:
            return np.asarray(self._dataset[first:stop])
        except Exception as error:  # whatever HDF5 says of a file that another process changes
            raise UserError(f"{self._dataset.file.filename}: cannot be read: {error}") from error

    def lit(self, frames: np.ndarray) -> np.ndarray:
        """Which of these frames hold something else than what stands where nothing was written."""
        nothing = (frames == self._dataset.fillvalue) | (frames != frames)
        return np.asarray(~nothing.all(axis=(1, 2)))


class _LiveHdf5(Hdf5File):
    """An HDF5 file whose growing arrays look as if they all had `cut` entries.

    asked: the length of each growing array that was asked for, and of the frames.
    written: the length of each list that was asked for, and how many entries it has up to the last
        one that is written.
    declared: how many entries there will be, as a list of its full length says from the start.
    """

    def __init__(self, path: Path, *, swmr: bool, lengths: dict[str, int]) -> None:
        """`lengths`: of lists when they were first seen; what is seen first is entered."""
        super().__init__(path, swmr=swmr)
        self._lengths = lengths
        self._in_writing = swmr
        self.cut: int | None = None
        self.asked: dict[str, int] = {}
        self.written: dict[str, tuple[int, int]] = {}
        self.declared: int | None = None

    def shape(self, name: str) -> tuple[int, ...]:
        whole = super().shape(name)
        return (self._cut_to(name), *whole[1:]) if self._grows(name) else whole

    @property
    def usable(self) -> int:
        """How many entries all arrays that were asked for have, and have written."""
        shortest = min(self.asked.values())
        lists = [count for length, count in self.written.values() if length >= shortest]
        return min(shortest, *lists) if lists else shortest

    def read(self, name: str) -> np.ndarray:
        values = super().read(name)
        self._see_what_is_written(name, values)
        return values[: self._cut_to(name)] if self._grows(name) else values

    def _see_what_is_written(self, name: str, values: np.ndarray) -> None:
        """Note up to where a list is written that has its length before its content.

        Behind that all is what stands where nothing was written. Amid the list that is an entry
        like any other, as a motor may be at 0; so it is where the whole list is nothing else.
        """
        dataset = self._find(name)
        if not self._in_writing or not _is_list(dataset) or values.dtype.kind not in "fiu":
            return
        if len(values) > self._lengths.setdefault(name, len(values)):
            return
        something = (values != dataset.fillvalue) & (values == values)
        rows = np.flatnonzero(something.reshape(len(values), -1).any(axis=1))
        if len(rows):
            self.written[name] = len(values), int(rows[-1]) + 1

    def frames(self, name: str, *, last: bool = False) -> Frames:
        frames = super().frames(name, last=last)
        dataset = self._find(name)
        if not isinstance(frames, Hdf5Frames) or len(frames.leading) != 1:
            return frames
        if not self._grows(name) and dataset.shape[0] < MIN_FRAMES:
            return frames  # a mask (1, H, W)
        if self._is_matlabs(dataset):
            return frames
        self.asked[name] = int(dataset.shape[0])
        if dataset.maxshape[0] is not None:
            self.declared = int(dataset.maxshape[0])
        return Section(dataset, self._cut_to(name), frames)

    def _cut_to(self, name: str) -> int:
        length = int(super().shape(name)[0])
        return length if self.cut is None else min(length, self.cut)

    def _grows(self, name: str) -> bool:
        """Whether an array has an entry a frame: it can get longer, or is a list longer than cut.

        Lists of fixed length that are longer than what has come are positions that were there from
        the start, or what belongs to them.
        """
        dataset = self._find(name)
        if dataset is None or not dataset.shape:
            return False
        length, most = dataset.shape[0], dataset.maxshape[0]
        if most is None or most > length:
            self.asked[name] = int(length)
            return True
        if _is_list(dataset) and self.cut is not None and length > max(self.cut, MIN_FRAMES):
            self.declared = int(length)
            return True
        return False


def _is_list(dataset: Any) -> bool:
    """Whether a dataset may have a number, or a position, for each frame."""
    return dataset.ndim == 1 or (dataset.ndim == 2 and dataset.shape[1] in (2, 3))


class _LiveSource(Source):
    """A source whose files are read while they are written."""

    live: _LiveHdf5

    def __init__(self, path: Path, hints: Hints, swmr: bool, lengths: dict[str, int]) -> None:
        self._swmr, self._lengths = swmr, lengths
        super().__init__(path, hints)

    def _opened(self, path: Path) -> Contents:
        if path != self.path:
            return super()._opened(path)
        self.live = _LiveHdf5(path, swmr=self._swmr, lengths=self._lengths)
        self._open.callback(self.live.close)
        self._files[path] = self.live
        return self.live

    def why_it_cannot_grow(self, measured: Measured) -> str:
        """What is wrong with frames that are no `Section`, in words."""
        name = measured.frames_name
        why = f"'{name}' is not (frames, rows, columns) in the order of arrival"
        for path in self._files:
            if path != self.path:
                why = f"its frames are in another file, {path}"
        return f"{why}; such a file can only be read when it is whole"
