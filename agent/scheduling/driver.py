"""Work through a study's points: N processes at a time, until none is left for this driver."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from agent.scheduling import child
from agent.scheduling.child import Child
from agent.scheduling.claims import BEAT_S
from agent.scheduling.display import Display
from agent.scheduling.grid import has_lost_its_data, name_of, statuses
from agent.scheduling.mps import shared_by_mps
from agent.scheduling.queue import Queue, Ticket
from agent.scheduling.slots import MAX_BREAKS, MAX_UNFIT, Slot
from agent.study.records import one_line, read_record, row
from agent.study.sweepfile import USUAL_METRIC, Point, Sweep, point_name
from fno_runner.cli import lines_to, refuse
from fno_runner.errors import GPU_FAILED, MachineError, UnbelievableError, UserError
from fno_runner.files import set_aside
from fno_runner.result import RECORD, SETTLED, RunResult, run_folder
from fno_runner.stop import SIGNALS, heard

POLL_S = 0.1
IDLE_S = 1.0
LOOK_AGAIN_S = 5.0
"""How often a driver with idle workers looks for points that others left [s]."""
STOP_GRACE_S = 30.0
"""How long a run may take to stop when told to [s]."""
MAX_STOPS = 3
"""A point whose run was stopped so often, and not by its driver, has failed."""
NO_MACHINE = MachineError.exit_status
"""The exit status of a run that found this machine, not its point, unfit."""
UNUSABLE = UserError.exit_status
"""That of a run which cannot use its input: the values of its point, or the data here."""


class Driver:
    """One `agent.local` at work on a study, perhaps beside others."""

    def __init__(
        self,
        folder: Path,
        sweep: Sweep,
        grid: Mapping[str, Point] | None,
        queue: Queue,
        slots: Sequence[Slot],
        *,
        limit: int | None = None,
        given: Mapping[str, str] = os.environ,
        more: Callable[[Collection[str]], Mapping[str, Point]] | None = None,
    ) -> None:
        """
        Args:
            grid: run_id -> point of a grid; None where a sampler draws the points.
            slots: where to run points, one at a time in each.
            limit: start at most so many points, or all there are.
            given: the environment that the runs inherit.
            more: what to run once none of the grid's points runs any more, here or elsewhere: asked
                again and again with the run_ids that are under way, until it has no more.
        """
        self._folder, self._sweep = folder, sweep
        self._grid = None if grid is None else dict(grid)
        self._asked, self._more = frozenset(grid or ()), more
        self._queue, self._free, self._limit = queue, list(slots), limit
        self._variables = child.environment(folder, given)
        self._running: dict[Child, tuple[Ticket, Slot]] = {}
        self._ask_again = self._beat_at = -math.inf
        self._signals: list[int] = []
        self._lost: set[str] = set()  # points that other drivers have taken from this one
        self._stopped: Counter[str] = Counter()  # how often others stopped a point's run
        self._unfit: Counter[str] = Counter()  # runs in a row that found a slot unfit
        self._broke: Counter[str] = Counter()  # how often the card failed under a point
        self._proven: set[str] = set()  # slots in which a point has finished
        self._owed: set[str] = set()  # points that were given back and are to be run again
        self._dataless: set[str] = set()
        """Points whose data were lost while this driver worked."""
        self.ended: dict[str, str] = {}
        """run_id -> status, of the points that this driver ran."""
        self.is_exhausted = False
        """Whether the sampler found no point that is new."""
        self._broken: str | None = None
        """Why the last slot that was given up was."""

    def run(
        self,
        console: Console,
        points_done_failed: tuple[int, int, int],
        retry_failed: bool = False,
    ) -> None:
        """Work until nothing is left to take, under MPS where slots share a card.

        Args:
            points_done_failed: what the display on `console` begins with.
            retry_failed: queue the points again whose record says that they failed, diverged or
                collapsed; what was stopped on purpose stays as it is.

        Raises:
            UserError: a drawn point is not allowed.
            MachineError: a process or a record cannot be made.
        """
        with (
            shared_by_mps(self._free, self._variables, lines_to(console)) as (self._free, watch),
            Display(console, *points_done_failed, len(self._free)) as self._display,
            heard(self._signals.append),
        ):
            try:
                self._retries = retry_failed
                self._look(retry_failed)
                while not self._signals:
                    self._beat()
                    watch()
                    self._collect()
                    waits = bool(self._running) or self._may_get_more()
                    if not waits and self._grid is not None:
                        self._ask_again = -math.inf  # the last look is after what was waited for
                    while self._has_room() and not self._signals and (ticket := self._next()):
                        self._start(ticket)
                    if not waits and not self._running:
                        break
                    time.sleep(POLL_S if self._running else IDLE_S)
            finally:
                # Whatever happened, no run outlives its driver.
                self._stop_all()

    def early_end(self) -> int | None:
        """The exit status of work that a signal or an unfit machine ended; None for other work."""
        if self._signals:
            return 128 + self._signals[0]
        return None if self._broken is None else refuse(MachineError(self._broken))

    def _has_room(self) -> bool:
        used = len(self._running) + len(self.ended)
        return bool(self._free) and (self._limit is None or used < self._limit)

    def _may_get_more(self) -> bool:
        """Whether to wait for other drivers.

        One on another host may turn out dead, whose points nobody else would do. And what comes
        after the grid begins when it is done.
        """
        if self._grid is None or not self._has_room():
            return False
        grid_runs = self._asked & self._queue.running_elsewhere().keys()
        return self._queue.is_unsure() or (self._more is not None and bool(grid_runs))

    def _beat(self) -> None:
        """Say now and then that this driver lives, and stop what others have taken from it."""
        if time.monotonic() < self._beat_at:
            return
        self._beat_at = time.monotonic() + BEAT_S
        for lost in self._queue.beat():
            self._lost.add(lost)
            self._display.note(f"{lost}: another driver has taken it, which took this one for dead")
            for run in self._running:
                if run.run_id == lost:
                    run.process.terminate()

    def _next(self) -> Ticket | None:
        # With something to wait for, an empty queue is not asked again at every poll.
        if time.monotonic() < self._ask_again:
            return None
        if self._grid is None:
            return self._draw()
        ticket = self._take()
        if ticket is None:
            self._look()
            ticket = self._take() or self._take_more()
        if ticket is None:
            self._ask_again = time.monotonic() + LOOK_AGAIN_S
        return ticket

    def _take_more(self) -> Ticket | None:
        """A point beyond the grid; None where there is none, or the grid is not done."""
        if self._grid is None or self._more is None:
            return None
        here = {run.run_id for run in self._running}
        under_way = here | self._queue.running_elsewhere().keys()
        if under_way & self._asked:
            return None
        wanted = self._more(under_way)
        new = {name: point for name, point in wanted.items() if name not in self._grid}
        self._grid |= wanted
        self._display.grow(len(new))
        self._look()
        return self._take()

    def _take(self) -> Ticket | None:
        assert self._grid is not None
        if self._dataless:  # what is as those is not started to find that out
            self._dataless |= {
                i for i, point in self._wanted(False).items() if has_lost_its_data(i, point)
            }
        return self._queue.take({i: p for i, p in self._grid.items() if i not in self._dataless})

    def _draw(self) -> Ticket | None:
        self._look()  # a driver that died since may have held one
        done = statuses(self._folder, self._queue)
        ticket = self._queue.draw(self._sweep.parameters, name_of, done)
        if ticket is None:
            self._ask_again, self.is_exhausted = math.inf, True
            self._display.note("the sampler finds no point that is new")
        return ticket

    def _look(self, retry_failed: bool = False) -> None:
        """Queue what is missing and nobody's, what a dead driver held included."""
        for dead in self._queue.reclaim():
            self._display.note(f"{dead}: its driver died; the point is free again")
        if self._grid is not None:
            self._queue.offer(lambda: self._wanted(retry_failed))

    def _wanted(self, retry_failed: bool) -> dict[str, Point]:
        assert self._grid is not None
        known = statuses(self._folder, self._queue)
        return {
            i: point
            for i, point in self._grid.items()
            if i not in self._dataless
            and (i not in known or (known[i] not in SETTLED and (retry_failed or i in self._owed)))
        }

    def _start(self, ticket: Ticket) -> None:
        slot = self._free[0]
        variables = {**self._variables, **slot.variables}
        try:
            if self._is_answered(ticket):
                self._queue.give_back(ticket)
                return
            run = child.start(self._folder, ticket.run_id, ticket.point, variables)
        except BaseException:
            self._queue.give_back(ticket)
            raise
        self._free.remove(slot)
        self._owed.discard(ticket.run_id)
        self._running[run] = ticket, slot
        self._queue.started(ticket, run.process.pid)
        self._display.started(ticket.run_id, point_name(self._sweep, ticket.point))

    def _is_answered(self, ticket: Ticket) -> bool:
        """Whether a point has the record that it was queued for: by another, or by an earlier call.

        A record that is not believed is kept under another name, and the point is run again.
        """
        run_id = ticket.run_id
        path = run_folder(self._folder, run_id) / RECORD
        try:
            status = read_record(path, run_id).status
        except UnbelievableError as error:
            aside = set_aside(path, error.kind)
            self._display.note(f"{run_id}: {RECORD} is not believed ({error}): now {aside.name}")
            return False
        except OSError:  # there is none
            return False
        asked = self._retries or run_id in self._owed or self._queue.is_of_another(ticket)
        return status in SETTLED or not asked

    def _collect(self) -> None:
        """See which runs have ended, and how."""
        for run in [run for run in self._running if run.process.poll() is not None]:
            name, status = run.run_id, run.process.returncode
            record = run.record()
            if name in self._lost:
                self._forget(run)
            elif record is not None:
                self._settle(run, record)
            elif status == NO_MACHINE:
                self._blame(run)
            elif status == UNUSABLE and has_lost_its_data(name, run.point):
                self._leave(run)
            elif status - 128 in SIGNALS and self._stopped[name] + 1 < MAX_STOPS:
                # It was stopped, by somebody else than this driver.
                self._stopped[name] += 1
                self._give_back(run)
            else:
                self._settle(run, run.write_death())

    def _settle(self, run: Child, record: RunResult) -> None:
        """The point has its record."""
        ticket, slot = self._running.pop(run)
        self._free.append(slot)
        if self._more is not None:  # it knows more now
            self._ask_again = -math.inf
        self._unfit[slot.name] = 0
        if record.status in SETTLED:
            self._proven.add(slot.name)
        metric = self._sweep.metric or USUAL_METRIC
        cell = row(record).get(metric.name)
        score = cell if isinstance(cell, int | float) else None
        self._queue.finish(ticket, record.status, score if self._sweep.metric else None)
        self.ended[record.run_id] = record.status
        headline = "" if score is None else f"{metric.name} {score:.4g}"
        if record.error is not None:
            headline = one_line(record.error.message)
        self._display.ended(record.run_id, record.status, headline)

    def _blame(self, run: Child) -> None:
        """A run found the machine unfit: its point goes back, unless the point itself is to blame.

        A card that was busy for a moment, or whose MPS daemon is starting again, is not lost: its
        slot gets no more only after `MAX_UNFIT` such runs in a row. Where others finish, a point
        that makes the card fail again is suspected in its slot's place, and after `MAX_BREAKS` such
        runs it has failed: it would stop one slot after the other.
        """
        name, slot = run.run_id, self._running[run][1]
        reason = run.last_line().removeprefix("error: ") or "the run found this machine unfit"
        breaks = 0
        if reason.startswith(GPU_FAILED):
            self._broke[name] += 1
            breaks = self._broke[name] if slot.name in self._proven else 0
        if breaks >= MAX_BREAKS:
            self._settle(run, run.write_death())
            return
        self._give_back(run)
        if breaks <= 1:
            self._unfit[slot.name] += 1
        if self._unfit[slot.name] < MAX_UNFIT:
            self._display.note(f"{slot.name}: {reason}; the point goes back")
        else:
            self._free.remove(slot)
            self._broken = reason
            self._display.note(f"{slot.name} stops after {MAX_UNFIT} such runs in a row: {reason}")

    def _leave(self, run: Child) -> None:
        """The point's data are gone, which is no fault of its slot: it stays to be done."""
        reason = run.last_line().removeprefix("error: ")
        self._dataless.add(run.run_id)
        self._give_back(run)
        self._broken = f"a point has lost its data: {reason}"
        self._display.note(f"{run.run_id}: {reason}; the point goes back")

    def _forget(self, run: Child) -> None:
        """Another driver has the point: this one's attempt at it leaves nothing but its slot."""
        ticket, slot = self._running.pop(run)
        self._free.append(slot)
        self._lost.discard(ticket.run_id)
        self._display.returned(ticket.run_id)

    def _give_back(self, run: Child) -> None:
        """The point goes back to the queue."""
        ticket, slot = self._running.pop(run)
        self._free.append(slot)
        self._queue.give_back(ticket)
        self._owed.add(ticket.run_id)
        self._ask_again = -math.inf
        self._display.returned(ticket.run_id)

    def _stop_all(self) -> None:
        """Stop every run; a second signal, or the end of the grace, kills."""
        if not self._running:
            return
        signals = len(self._signals)
        self._display.note(f"stopping {len(self._running)} runs; their points stay to be done")
        for run in self._running:
            run.process.terminate()
        deadline = time.monotonic() + STOP_GRACE_S
        while any(run.process.poll() is None for run in self._running):
            if time.monotonic() > deadline or len(self._signals) > signals:
                break
            time.sleep(POLL_S)
        # First no process is left, then the queue hears of it: that may fail, this may not.
        for run in self._running:
            run.kill()
        for run in list(self._running):
            record = run.record()
            if run.run_id in self._lost:
                self._forget(run)
            elif record is not None:  # it was over before the signal came
                self._settle(run, record)
            else:
                self._give_back(run)
