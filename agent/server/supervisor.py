"""One slot's `wandb agent`: start it, listen to it, start it again, and say why it is over."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.scheduling import stop_with_parent
from agent.scheduling.slots import MAX_UNFIT, Slot
from agent.server.output import LineReader
from agent.server.slot_report import SLOT_REPORT, read_report
from agent.server.tracker import FINISH_WAIT_S
from fno_runner.errors import MachineError

MAX_DEATHS = 8
"""A slot stops after its agent has died so often with no point recorded in between."""
AGAIN_S, AGAIN_MOST_S = 10.0, 600.0
"""How long an agent that died stays dead [s]: twice as long every time, up to the second number."""
SILENT_S = 300.0
"""An agent that says nothing for so long and has no run is replaced [s]. Its sweep is paused, or it
hangs, as one did that the server's return caught while it was dying."""
STOP_GRACE_S = FINISH_WAIT_S + 10.0
"""How long an agent may take to stop when told to [s]: its run gives its point back."""

GAVE_UP = re.compile(r"Detected \d+ .*failed runs")
"""What `wandb agent` says before it ends, with status 0, because its runs fail."""

AT_END, DIED, UNFIT = 0, 1, MachineError.exit_status


@dataclass(frozen=True)
class Ending:
    """Why a slot is over; its `status` is AT_END, DIED (its agents did), or UNFIT (its machine)."""

    status: int
    why: str


class Supervisor:
    """Keeps an agent at work in a slot, until there is nothing more to do or no way to do it."""

    def __init__(
        self,
        slot: Slot,
        sweep: str,
        count: int | None,
        report: Path,
        variables: Mapping[str, str],
        wait_s: float,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            count: points that the slot may take; None: as many as there are.
            report: where its runs report; it is this slot's alone.
            variables: the environment, the slot's own variables aside.
            wait_s: time until its first start [s].
            say: is given every line of the agent's output, and what else there is to say.
        """
        self._sweep, self._count, self._report = sweep, count, report
        self._variables = {**variables, **slot.variables, SLOT_REPORT: str(report)}
        self._say = say
        self._start_at = time.monotonic() + wait_s
        self._agent: subprocess.Popen[bytes] | None = None
        self._lines = LineReader()
        self._gave_up = self._stopped = self._idle = False
        self._heard = 0.0
        self._deadline: float | None = None
        self._told: set[int] = set()
        self._deaths = self._recorded_before = self._handed_back_before = 0
        self.ending: Ending | None = None
        """None while the slot is at work."""

    @property
    def recorded(self) -> int:
        """Points that were recorded in this slot."""
        return read_report(self._report).recorded

    def step(self) -> None:
        """See what happened since the last call, and do what is due."""
        if self._agent is None:
            if self.ending is None and time.monotonic() >= self._start_at:
                self._start()
            return
        gone = self._agent.poll() is not None
        self._listen()
        if gone:
            # A run may outlive an agent that was killed, and no other shall begin beside it.
            self._tell(left := self._left_behind())
            if not left:
                self._conclude()
                return
        elif len(read_report(self._report).unfit) >= MAX_UNFIT:
            self._tell([self._agent.pid])
        elif time.monotonic() > self._heard + SILENT_S:
            self._heard = time.monotonic()
            if not self._left_behind():
                self._idle = True
                self._tell([self._agent.pid])
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.kill()

    def stop(self) -> None:
        """Tell the agent to stop; it tells its run, which gives its point back."""
        self._stopped = True
        if self._agent is None:
            self.ending = self.ending or Ending(AT_END, "stopped")
        elif self._agent.poll() is None:
            self._tell([self._agent.pid])

    def kill(self) -> None:
        """End the agent and its run at once; the sweep does not get back a point in work."""
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
            _signal(self._left_behind(), signal.SIGKILL)

    def _start(self) -> None:
        report = read_report(self._report)
        count = () if self._count is None else ("--count", str(self._count - report.recorded))
        self._handed_back_before = report.handed_back
        try:
            self._agent = subprocess.Popen(
                stop_with_parent.command(
                    "-m", "wandb", "agent", "--forward-signals", *count, self._sweep
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._variables,
                # Ctrl-C reaches the launcher only, and by its session what it leaves is found.
                start_new_session=True,
            )
        except OSError as error:
            self.ending = Ending(UNFIT, f"no agent can be started: {error.strerror or error}")
            return
        self._heard = time.monotonic()
        assert self._agent.stdout is not None
        os.set_blocking(self._agent.stdout.fileno(), False)

    def _listen(self, last: bool = False) -> None:
        assert self._agent is not None and self._agent.stdout is not None
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._agent.stdout.fileno(), 65536):
                data += piece
                self._heard = time.monotonic()
        for line in self._lines.feed(data, last=last):
            self._gave_up |= GAVE_UP.search(line) is not None
            self._say(line)

    def _tell(self, pids: list[int]) -> None:
        """Ask processes to stop, each of them once: an agent that is asked twice kills its run."""
        _signal(new := [pid for pid in pids if pid not in self._told], signal.SIGTERM)
        self._told.update(new)
        if new and self._deadline is None:
            self._deadline = time.monotonic() + STOP_GRACE_S

    def _left_behind(self) -> list[int]:
        """What is alive of the session that the agent began."""
        assert self._agent is not None
        alive = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == self._agent.pid and process.pid != self._agent.pid:
                    alive += [process.pid] if process.status() != psutil.STATUS_ZOMBIE else []
        return alive

    def _conclude(self) -> None:
        """The agent and all that it started are gone: that was all, or another one follows."""
        assert self._agent is not None and self._agent.stdout is not None
        self._listen(last=True)
        self._agent.stdout.close()
        status = self._agent.returncode
        self._agent, self._deadline, self._told = None, None, set()
        self.ending = self._why(status)
        if self.ending is None:
            how = "was idle" if self._idle else _how(status)
            wait_s = min(AGAIN_S * 2 ** max(0, self._deaths - 1), AGAIN_MOST_S)
            self._start_at = time.monotonic() + wait_s
            self._say(f"the agent {how}; another one starts in {wait_s:.0f} s")
        self._idle = False

    def _why(self, status: int) -> Ending | None:
        """Why the slot is over, or None where another agent is to follow."""
        report = read_report(self._report)
        last = report.unfit[-1] if report.unfit else ""
        if self._stopped:
            return Ending(AT_END, "stopped")
        if len(report.unfit) >= MAX_UNFIT:
            return Ending(UNFIT, f"{len(report.unfit)} runs in a row could not begin here: {last}")
        if self._gave_up:
            said = last or "the lines above say why"
            return Ending(UNFIT, f"its agent gave up, as its runs fail at once: {said}")
        if self._count is not None and report.recorded >= self._count:
            return Ending(AT_END, "as many as asked")
        if self._idle:
            return None
        if status == 0 and self._count is not None and report.unfit:
            # To the agent they counted; they were handed back.
            return Ending(UNFIT, f"its last run could not begin here: {last}")
        handed_back = report.handed_back - self._handed_back_before
        if status == 0 and self._count is not None and handed_back:
            # Those it counted as well: another agent takes what is left of the slot's points.
            return None
        if status == 0:
            return Ending(AT_END, "the server has no more points for it")
        self._deaths = 1 if report.recorded > self._recorded_before else self._deaths + 1
        self._recorded_before = report.recorded
        if self._deaths < MAX_DEATHS:
            return None
        return Ending(
            DIED, f"its agent died {self._deaths} times in a row; the last {_how(status)}"
        )


def _how(status: int) -> str:
    return f"ended with exit status {status}" if status >= 0 else f"was killed by signal {-status}"


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
