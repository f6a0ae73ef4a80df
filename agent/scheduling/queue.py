"""Who runs which point: an optuna study that hands a sweep's points to any number of drivers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import psutil
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from agent.scheduling.claims import SILENT_S, Claims
from agent.scheduling.journal import JOURNAL, Journal
from agent.scheduling.listener import Listener
from agent.scheduling.storage import answering, check_storage, open_database
from agent.study.sweepfile import INT_UNIFORM, LOG_UNIFORM, Point, Range, Sweep, Value
from fno_runner.errors import MachineError
from fno_runner.process import ProcessIdentity

CLAIMS = "claims"
UNCLAIMED_S = 10.0
"""A running trial that names no worker for so long lost it between two writes [s]. Should it only
be slow, it finds its trial ended, and takes another."""
ORPHAN_GRACE_S = 30.0
"""How long the run of a dead driver may take to stop when told to [s]."""
MAX_DRAWS = 200
"""So many draws without a new point, and the space counts as exhausted."""

OVER = (ValueError, UpdateFinishedTrialError)
"""What optuna raises for a trial that somebody else has ended, taking its driver for dead."""
LIVE = (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True)
class Ticket:
    """The right and duty to run one point."""

    run_id: str
    point: Point
    trial: Trial


class Queue:
    """The points of one study. A trial is one attempt at a point; its user attributes are:

    point: the point's run_id.
    after: how many trials there were when it was queued. An attempt of a later number at the same
        point has answered what this one was queued for, so this one is void.
    by: the driver that queued it.
    worker, child: the driver that took it, and the run's process (`ProcessIdentity`).
    beat: where drivers share no folder, changes as long as the worker lives.
    outcome: the status of the record that the attempt left.
    """

    def __init__(
        self,
        storage: BaseStorage,
        sweep: Sweep,
        claims: Claims,
        shares_records: bool,
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Open the sweep's queue in `storage`, or make it.

        Args:
            claims: a point is this driver's only with its claim, whatever the storage says.
            shares_records: all drivers see the same result.json files, which then decide what is
                done; else the attempts' outcomes do as well.
            together: within it the storage need not sync each entry by itself.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        bayes = sweep.method == "bayes"
        sampler = optuna.samplers.TPESampler() if bayes else optuna.samplers.RandomSampler()
        maximize = sweep.metric is not None and sweep.metric.maximize
        self._study = optuna.create_study(
            storage=storage,
            sampler=sampler,
            study_name=sweep.study_id,
            direction="maximize" if maximize else "minimize",
            load_if_exists=True,
        )
        self.shares_records, self._together = shares_records, together
        self._me = ProcessIdentity.of(psutil.Process()).as_mapping()
        self._claims = claims
        self._listener = Listener()
        self._mine: dict[str, Ticket] = {}
        self._refused: set[str] = set()

    def offer(self, wanted: Callable[[], Mapping[str, Point]]) -> int:
        """Queue the points that `wanted` gives and that nobody has queued or runs; how many.

        `wanted` is called after the look at the queue: a point that ends in between was live at
        the look, or is no longer wanted.
        """
        trials = self._trials()
        live = {_point(trial) for trial in trials if trial.state in LIVE}
        new = {run_id: point for run_id, point in wanted().items() if run_id not in live}
        with self._together():
            for run_id, point in new.items():
                told = {"point": run_id, "after": len(trials), "by": self._me}
                self._study.enqueue_trial(point, user_attrs=told)
        return len(new)

    def take(self, known: Mapping[str, Point]) -> Ticket | None:
        """The next queued point, now this process's to run; None where none is left.

        A queued point that is not in `known` (other data, another version) is dropped.
        """
        while any(trial.state == TrialState.WAITING for trial in self._trials()):
            trial = self._study.ask()
            run_id = trial.user_attrs.get("point")
            if run_id is None:  # others emptied the queue first: optuna made a new trial up
                self._fail(trial)
                return None
            try:
                trial.set_user_attr("worker", self._me)
            except OVER:  # another driver took this one for dead
                continue
            if run_id in known and self._is_mine(trial, run_id):
                if self._claims.take(run_id, trial.number):
                    return self._took(Ticket(run_id, known[run_id], trial))
                self._refused.add(run_id)
                if self._claims.attempt(run_id) == trial.number:
                    continue  # handed out twice: it is the other one's to end
            self._fail(trial)
        return None

    def is_of_another(self, ticket: Ticket) -> bool:
        """Whether another driver queued a point, which still waits for it as far as is known."""
        by = ProcessIdentity.read(ticket.trial.user_attrs.get("by"))
        if by is None or by.as_mapping() == self._me:
            return False
        return not by.is_here or by.process() is not None

    def draw(
        self,
        parameters: Mapping[str, tuple[Value, ...] | Range],
        name: Callable[[Point], str],
        done: Iterable[str],
    ) -> Ticket | None:
        """A point that was begun and not finished, else one that the sampler suggests.

        None where it finds none that is new.

        Args:
            name: a point's run_id; a UserError of it ends the draw.
            done: run_ids that are not new.
        """
        done = set(done)
        self._queue_interrupted(done)
        for _ in range(MAX_DRAWS):
            trial = self._study.ask()
            try:
                point = {key: _suggest(trial, key, parameters[key]) for key in sorted(parameters)}
                run_id = name(point)
            except BaseException:
                self._fail(trial)
                raise
            trial.set_user_attr("worker", self._me)
            trial.set_user_attr("point", run_id)
            is_new = run_id not in done and self._is_mine(trial, run_id)
            if is_new and self._claims.take(run_id, trial.number):
                return self._took(Ticket(run_id, point, trial))
            self._fail(trial)
        return None

    def _queue_interrupted(self, done: Container[str]) -> None:
        """Queue the drawn points again whose attempts have ended without a record."""
        trials = self._trials()
        over = {_point(t) for t in trials if t.state in LIVE or "outcome" in t.user_attrs}
        left = {name: t.params for t in trials if (name := _point(t)) not in over}
        for run_id, params in left.items():
            if run_id is not None and run_id not in done:
                self._study.enqueue_trial(params, user_attrs={"point": run_id})

    def started(self, ticket: Ticket, pid: int) -> None:
        """Note the run's process, so that it can be found should this driver die."""
        try:
            child = ProcessIdentity.of(psutil.Process(pid))
        except psutil.NoSuchProcess:  # it is over already
            return
        with suppress(*OVER):
            ticket.trial.set_user_attr("child", child.as_mapping())

    def finish(self, ticket: Ticket, status: str, value: float | None) -> None:
        """The point has a record: its status, and its metric where there is one to learn from."""
        with suppress(*OVER):
            ticket.trial.set_user_attr("outcome", status)
            if status == "finished" and value is not None:
                self._study.tell(ticket.trial, value)
            else:
                self._fail(ticket.trial)
        self._release(ticket)

    def give_back(self, ticket: Ticket) -> None:
        """The point has no record: whoever looks for missing points next will queue it again."""
        self._fail(ticket.trial)
        self._release(ticket)

    def beat(self) -> list[str]:
        """Say that this driver lives; which points others have meanwhile taken from it."""
        lost = set(self._claims.beat())
        if not self.shares_records:
            for run_id, ticket in self._mine.items():
                try:
                    ticket.trial.set_user_attr("beat", time.time())
                except OVER:
                    lost.add(run_id)
        for run_id in lost:
            self._release(self._mine[run_id])
        return sorted(lost)

    def reclaim(self) -> list[str]:
        """Void the attempts whose driver died and stop their runs, if here; which points."""
        dead = []
        self._claims.clear()
        for trial in self._trials():
            if trial.state != TrialState.RUNNING or not self._is_dead(trial):
                continue
            try:
                self._study.tell(trial.number, state=TrialState.FAIL)
            except OVER:  # another driver was quicker
                continue
            _stop_orphan(ProcessIdentity.read(trial.user_attrs.get("child")))
            if "outcome" not in trial.user_attrs and (run_id := _point(trial)) is not None:
                dead.append(run_id)
        return dead

    def outcomes(self) -> dict[str, str]:
        """run_id -> the status of its latest attempt that left a record, by any driver."""
        return {
            str(_point(trial)): str(trial.user_attrs["outcome"])
            for trial in self._trials()
            if "outcome" in trial.user_attrs
        }

    def running_elsewhere(self) -> dict[str, str]:
        """run_id -> host, of the points that other drivers run now, as far as is known."""
        elsewhere = {}
        for trial in self._trials():
            worker = ProcessIdentity.read(trial.user_attrs.get("worker"))
            run_id = _point(trial)
            if trial.state != TrialState.RUNNING or run_id is None or worker is None:
                continue
            is_dead = worker.is_here and worker.process() is None
            if not is_dead and worker.as_mapping() != self._me:
                elsewhere[run_id] = worker.host
        return elsewhere

    def is_unsure(self) -> bool:
        """Whether a driver that has a point may yet turn out dead: nothing was heard of it so far.

        It is on another host, or ended before it said who it is.
        """
        for trial in self._trials():
            worker = ProcessIdentity.read(trial.user_attrs.get("worker"))
            if trial.state != TrialState.RUNNING or (worker is not None and worker.is_here):
                continue
            if worker is None or not self._listen(trial)[1]:
                return True
        return any(self._claims.is_unsure(run_id) for run_id in self._refused)

    def _fail(self, trial: Trial) -> None:
        """End an attempt that left no value, unless somebody else has ended it."""
        with suppress(*OVER):
            self._study.tell(trial, state=TrialState.FAIL)

    def _took(self, ticket: Ticket) -> Ticket:
        self._mine[ticket.run_id] = ticket
        self._refused.discard(ticket.run_id)
        return ticket

    def _release(self, ticket: Ticket) -> None:
        self._mine.pop(ticket.run_id, None)
        self._claims.release(ticket.run_id)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = ProcessIdentity.read(trial.user_attrs.get("worker"))
        if worker is None:
            return self._listener.silence(f"unnamed {trial.number}", None) > UNCLAIMED_S
        if worker.is_here:
            return worker.process() is None
        return self._listen(trial)[0] > SILENT_S

    def _listen(self, trial: FrozenTrial) -> tuple[float, bool]:
        """For how long the trial's far driver is silent [s], and whether it was ever heard."""
        run_id = str(_point(trial))
        silence = self._claims.silence(run_id)
        if self.shares_records:
            return silence, self._claims.has_heard(run_id)
        who = str(trial.number)
        silence = min(silence, self._listener.silence(who, trial.user_attrs.get("beat")))
        return silence, self._listener.has_heard(who)

    def _trials(self) -> list[FrozenTrial]:
        return list(self._study.get_trials(deepcopy=False))

    def _is_mine(self, trial: Trial, run_id: str) -> bool:
        """Of several attempts at one point, the lowest-numbered live one owns it.

        Two drivers that look at the same moment both queue a point; optuna hands out both.
        """
        after = trial.user_attrs.get("after", 0)
        for attempt in self._trials():
            if attempt.number == trial.number or _point(attempt) != run_id:
                continue
            if attempt.state in LIVE and attempt.number < trial.number:
                return False
            if "outcome" in attempt.user_attrs and attempt.number >= after:
                return False
        return True


def open_queue(url: str | None, folder: Path, sweep: Sweep) -> Queue:
    """The queue of a study: a journal in its folder, or a PostgreSQL database.

    Raises:
        UserError: the URL is of no storage that this can use.
        MachineError: the storage does not answer, or its file is damaged.
    """
    claims = Claims(folder / CLAIMS)
    if url is not None:
        with answering(database := check_storage(url)):
            return Queue(open_database(database), sweep, claims, shares_records=False)
    path = folder / JOURNAL
    try:
        journal = Journal(path)
        return Queue(JournalStorage(journal), sweep, claims, True, journal.together)
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise MachineError(
            f"{path}: damaged; remove it and start again (finished points are kept: their "
            "records are not in it)"
        ) from None


def _suggest(trial: Trial, key: str, values: tuple[Value, ...] | Range) -> Value:
    if not isinstance(values, Range):
        return values[0] if len(values) == 1 else trial.suggest_categorical(key, values)
    if values.distribution == INT_UNIFORM:
        return trial.suggest_int(key, int(values.low), int(values.high))
    log = values.distribution == LOG_UNIFORM
    return trial.suggest_float(key, values.low, values.high, log=log)


def _point(trial: FrozenTrial) -> str | None:
    point = trial.user_attrs.get("point")
    return None if point is None else str(point)


def _stop_orphan(run: ProcessIdentity | None) -> None:
    """Stop the run of a dead driver: nobody would read its end, and it may not run beside ours."""
    process = run.process() if run is not None else None
    if process is None or process.pid == os.getpid():
        return
    process.terminate()
    try:
        process.wait(timeout=ORPHAN_GRACE_S)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(timeout=ORPHAN_GRACE_S)
