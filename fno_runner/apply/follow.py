"""`--watch`: frames are taken as they come, the object is written as it grows, the end is seen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic

from filelock import FileLock, Timeout

from fno_runner.apply.live import STATE, Live, Opening, WatchState
from fno_runner.apply.live_page import PAGE, write_page
from fno_runner.apply.outputs import draw, numbered, write_object, write_product, write_record
from fno_runner.apply.watch import Arrivals, Piece
from fno_runner.apply.watch_file import GrowingFile
from fno_runner.apply.watch_folder import Folder
from fno_runner.data.source import Hints
from fno_runner.errors import DivergedError, UserError
from fno_runner.files import make_folder, set_aside
from fno_runner.stop import heard

log = logging.getLogger("fno_runner")

OPENING = 32
"""Frames from which mask, centre and scale are found."""
POLL_S, WRITE_S, SHOW_S, SAVE_S = 0.1, 0.3, 2.0, 5.0
"""How often is looked for frames, the object written, a picture with its page, and what a restart
goes on from [s]."""
LOCK = ".watch.lock"


@dataclass(frozen=True)
class Limits:
    """wait_s: for the first frame. idle_s: without a new one, after which the scan has ended.
    frames: the scan has so many; None where it says so itself, or nobody knows."""

    wait_s: float
    idle_s: float
    frames: int | None = None


@dataclass(frozen=True)
class Watched:
    """How a watch ended. signal: that which ended it, or 0. frames: in the object."""

    signal: int
    frames: int
    r_own: float | None
    state: str
    left_out: Sequence[str] = ()


def arrivals(path: Path, hints: Hints) -> Arrivals:
    """Whatever is, or will be, at a path: a name without an ending is a folder's."""
    is_folder = path.is_dir() if path.exists() else not path.suffix
    return Folder(path, hints) if is_folder else GrowingFile(path, hints)


@contextmanager
def output_folder(wanted: Path) -> Iterator[tuple[Path, WatchState | None]]:
    """The folder that a watch writes into, held by it alone, and what is there to go on from.

    It is the first of `numbered` that is not there, is empty, or is a watch's.

    Raises:
        UserError: another watch writes there at this moment. MachineError: the disk refuses.
    """
    folder = next(name for name in numbered(wanted) if not name.exists() or _is_a_watchs(name))
    make_folder(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: another watch writes there; -o names another folder") from None
    try:
        try:
            kept = WatchState.read(folder)
        except UserError as error:
            aside = set_aside(folder / STATE, "torn")
            log.warning("%s; kept as %s, and begun anew", error, aside.name)
            kept = None
        yield folder, kept
    finally:
        if {path.name for path in folder.iterdir()} <= {LOCK, PAGE}:  # nothing came
            for name in (LOCK, PAGE):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
        lock.release()


def _is_a_watchs(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or bool(names & {LOCK, STATE})


def follow(
    source: Arrivals,
    begin: Callable[[list[Piece]], Opening],
    folder: Path,
    kept: WatchState | None,
    limits: Limits,
    title: str,
) -> Watched:
    """Take frames until the scan ends or a signal comes; a whole result is left in either case.

    Args:
        begin: finds out what the first pieces tell.

    Raises:
        UserError: nothing came in time, it cannot be used, or it was deleted or replaced.
        DivergedError: a prediction is not a finite number.
    """
    stop, signals = Event(), []

    def on_signal(number: int) -> None:
        signals.append(number)
        stop.set()

    with heard(on_signal):
        if kept is None:
            write_page(folder, title, "waiting for frames", declared=limits.frames)
            pieces = _first(source, limits, stop)
            if stop.is_set():
                return Watched(signals[0], 0, None, "stopped before there were enough frames")
            live = Live(begin(pieces), title)
        else:
            live = Live(begin(source.again(kept.about.opening)), title)
            live.go_on(kept)
            source.go_on(live.keys)
            source.left_out = kept.about.empty
            log.info("going on after %d frames", len(live))
            pieces = []
        writer = _Writer(source, live, folder, limits)
        try:
            state = _take(source, live, writer, pieces, limits, stop)
        except (UserError, DivergedError) as error:
            if len(live):
                writer.finish(f"ended: {error}")
            raise
        if not len(live):
            raise UserError(f"{source.path}: no frame can be used")
        left_out = writer.finish(state)
    return Watched(signals[0] if signals else 0, len(live), live.r_own, state, left_out)


def _first(source: Arrivals, limits: Limits, stop: Event) -> list[Piece]:
    """The pieces of the first `OPENING` frames, or of as many as there are when no more come.

    Raises:
        UserError: nothing came in time.
    """
    pieces: list[Piece] = []
    since = monotonic()
    while not stop.is_set():
        if arrived := list(source.poll()):
            pieces += arrived
            since = monotonic()
        count = sum(map(len, pieces))
        if count >= min(OPENING, limits.frames or OPENING) or source.complete:
            return pieces
        waited = monotonic() - since
        if not pieces and waited > limits.wait_s:
            raise UserError(
                f"{source.path}: no frame came in {limits.wait_s:g} s ({source.waits_for}); "
                f"--wait says how long to wait"
            )
        if pieces and waited > limits.idle_s:
            return pieces
        stop.wait(POLL_S)
    return pieces


def _take(
    source: Arrivals,
    live: Live,
    writer: _Writer,
    pieces: list[Piece],
    limits: Limits,
    stop: Event,
) -> str:
    """Take pieces, those that are here first, until the end; how it ended, in words."""
    for piece in pieces:
        live.take(piece)
    writer.update()
    since = monotonic()
    while True:
        looked = monotonic()
        for piece in source.poll():
            live.take(piece)
            since = monotonic()
            writer.update()
            if stop.is_set():
                return "stopped by a signal; the same command goes on"
        if limits.frames is not None and len(live) + live.left_out >= limits.frames:
            return "ended: all frames that --frames says have come"
        if source.complete:
            return "ended: all frames that the scan declares have come"
        if monotonic() - since > limits.idle_s:
            return f"ended: no frame came for {limits.idle_s:g} s"
        writer.update()
        if stop.wait(looked + POLL_S - monotonic()):
            return "stopped by a signal; the same command goes on"


class _Writer:
    """Writes the object as it grows, more often than what a person looks at."""

    def __init__(self, source: Arrivals, live: Live, folder: Path, limits: Limits) -> None:
        self._source, self._live, self._folder, self._limits = source, live, folder, limits
        self._due = {WRITE_S: 0.0, SHOW_S: 0.0, SAVE_S: monotonic() + SAVE_S}
        self._done = dict.fromkeys(self._due, 0)

    def update(self) -> None:
        """Write what is new, each kind of file if the last time is long enough ago.

        Raises:
            MachineError: the disk refuses.
        """
        if self._is_due(WRITE_S):
            write_object(self._live.product("arriving"), self._folder)
        if self._is_due(SHOW_S):
            product = self._live.product("arriving")
            write_record(product, self._folder)
            draw(product, self._folder)
            self._page("arriving", True)
        if self._is_due(SAVE_S):
            self._live.save(self._folder, self._source.left_out)

    def _is_due(self, every: float) -> bool:
        """Whether there is something new, and the last time is so long ago [s]."""
        if self._done[every] == len(self._live) or monotonic() < self._due[every]:
            return False
        self._done[every], self._due[every] = len(self._live), monotonic() + every
        return True

    def finish(self, state: str) -> list[str]:
        """Write everything; the files that were left out."""
        product = self._live.product(state)
        self._live.save(self._folder, self._source.left_out)
        left_out = write_product(product, self._folder)
        self._page(state, False)
        return left_out

    def _page(self, state: str, arriving: bool) -> None:
        live, source = self._live, self._source
        said = [*source.remarks(), *live.refused.values()]
        if live.left_out:
            said.append(f"{live.left_out} frames without a beam are left out")
        write_page(
            self._folder,
            live.title,
            state,
            frames=len(live),
            declared=self._limits.frames or source.declared,
            r_own=live.r_own,
            arriving=arriving,
            remarks=said,
        )
        if not arriving:
            for remark in said:
                log.warning("%s", remark)
