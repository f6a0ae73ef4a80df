"""Agents for every GPU of a box: `python -m agent.launch ENTITY/PROJECT/SWEEP_ID`."""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C waits for the end of the imports, which take a second
    from fno_runner.stop import StopSignals

    with StopSignals() as starting:
        import agent.launch

        starting.release()
    raise SystemExit(agent.launch.main())  # type: ignore[has-type]  # it stands below

import argparse
import io
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import wandb
from rich.console import Console
from rich.text import Text

from agent.scheduling.mps import shared_by_mps
from agent.scheduling.per_gpu import points_per_gpu
from agent.scheduling.slots import (
    ALL,
    AUTO,
    MAX_UNFIT,
    NONE,
    Slot,
    count_or_auto,
    plan_slots,
    usable_gpus,
)
from agent.server.client import Server, parse_sweep_place
from agent.server.supervisor import (
    AT_END,
    DIED,
    MAX_DEATHS,
    STOP_GRACE_S,
    UNFIT,
    Supervisor,
)
from fno_runner.cli import Parser, command, count_of, lines_to
from fno_runner.stop import heard

STAGGER_S = 2.0
"""Between the starts of two agents [s], so that they do not read the data all at once."""
POLL_S = 0.1
SCORING_S = 300.0
"""How long a run that is stopped at the server may score what it has reached before its agent kills
it [s]; half a minute by the agent's own choice."""

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")

HELP = f"""\
Run the points of a sweep on all GPUs of this machine. The command starts as many `wandb agent`s as
fit, and watches them.

The sweep is on a Weights & Biases server: `wandb sweep sweep.yaml` puts it there and prints its
name. Any number of machines may work on it at once. Without a GPU, the agents share the cores of
the CPU.

An agent that dies, as it does when the server is away for long, is started again after a while.
After {MAX_DEATHS} deaths in a row its slot (its place on a GPU) is stopped. A slot is also stopped
after {MAX_UNFIT} runs in a row for which the GPU, the disk or the data could not be used. Their
points go back to the sweep, for other slots and other machines.
"""

MORE = f"""\
examples:
  python -m agent.launch TEAM/study/x7k2p9qa                  every GPU of this box
  python -m agent.launch TEAM/study/x7k2p9qa --gpus 0,2       these two
  python -m agent.launch TEAM/study/x7k2p9qa --per-gpu 2      small networks: two agents a GPU
  python -m agent.launch TEAM/study/x7k2p9qa --gpus none --per-gpu 4    four agents on the CPU
  python -m agent.launch TEAM/study/x7k2p9qa --count 1        one point a slot, then stop

Ctrl-C (or SIGTERM, SIGHUP) stops the agents, and their runs give their points back to the sweep.
This takes a few seconds, or {STOP_GRACE_S:.0f} s if the server does not answer. A second Ctrl-C
kills the runs, and the sweep does not get their points back.

environment: CUDA_VISIBLE_DEVICES (as a scheduler sets it) limits the GPUs, and --gpus counts among
those it leaves; OMP_NUM_THREADS (default: the cores shared out among the slots); WANDB_API_KEY,
WANDB_BASE_URL and the like. With WANDB_MODE=offline the runs stay here; the agents need the server.

exit status: 0 every slot is at its end (no more points, or --count) · 1 agents kept dying · 2 bad
input, nothing was started · 3 a slot was stopped, or not started, as this machine is unfit for it ·
128 + signal when stopped
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run a box's agents; the exit status."""
    args = _parser().parse_args(argv)
    place = parse_sweep_place(args.sweep)
    sweep = Server().sweep(place)
    wandb.teardown()  # the client's own process is not needed any more
    console = Console()
    say = lines_to(console)
    gpus = [] if args.gpus == NONE else usable_gpus()
    per_gpu = args.per_gpu
    if per_gpu == AUTO:
        per_gpu = points_per_gpu(sweep, gpus, os.environ, say) if gpus else 1
    slots = plan_slots(args.gpus, per_gpu, gpus, os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # agents say more than ASCII
    with (
        tempfile.TemporaryDirectory(prefix="agent-launch-") as folder,
        shared_by_mps(slots, os.environ, say) as (sharing, watch),
    ):
        launcher = Launcher(str(place), sharing, args.count, Path(folder), console)
        launcher.note(f"{sweep.name}: {place} on {', '.join(slot.name for slot in slots)}")
        stopped = launcher.run(watch)
        status = launcher.summary()
    return status if stopped is None else 128 + stopped


class Launcher:
    """The agents of one box."""

    def __init__(
        self, sweep: str, slots: Sequence[Slot], count: int | None, folder: Path, console: Console
    ) -> None:
        """
        Args:
            count: points a slot; None: as many as there are.
            folder: for the reports of the runs.
        """
        self._console = console
        self._signals: list[int] = []
        variables = environment(os.environ)
        width = max(len(slot.name) for slot in slots)
        self._supervisors = {
            slot.name: Supervisor(
                slot, sweep, count, folder / slot.name, variables, number * STAGGER_S,
                partial(self._say, f"{slot.name:<{width}}", COLOURS[number % len(COLOURS)]),
            )
            for number, slot in enumerate(slots)
        }  # fmt: skip

    def run(self, watch: Callable[[], None]) -> int | None:
        """Work until every slot is over; the signal that ended it early, or None.

        Args:
            watch: called often meanwhile.
        """
        with heard(self._signals.append):
            try:
                while not self._signals and self._at_work():
                    watch()
                    for supervisor in self._supervisors.values():
                        supervisor.step()
                    time.sleep(POLL_S)
            finally:
                # Whatever happened, no agent outlives its launcher.
                self._stop_all()
        return self._signals[0] if self._signals else None

    def summary(self) -> int:
        """Say a line a slot, the unfortunate ones on standard error; the exit status."""
        statuses = []
        for name, supervisor in self._supervisors.items():
            assert supervisor.ending is not None
            statuses.append(supervisor.ending.status)
            runs = f"{supervisor.recorded} run" + ("s" if supervisor.recorded != 1 else "")
            line = f"{name}: {runs}; {supervisor.ending.why}"
            if supervisor.ending.status == AT_END:
                self.note(line)
            else:
                print(f"error: {line}", file=sys.stderr)
        return next((status for status in (UNFIT, DIED) if status in statuses), AT_END)

    def note(self, line: str) -> None:
        """Say something that is no slot's."""
        self._print(Text(line))

    def _at_work(self) -> list[Supervisor]:
        return [
            supervisor for supervisor in self._supervisors.values() if supervisor.ending is None
        ]

    def _stop_all(self) -> None:
        """Stop every agent; a second Ctrl-C does not wait for their runs."""
        for supervisor in self._at_work():
            supervisor.stop()
        if self._at_work():
            self.note("stopping; points in work go back to the sweep")
        while left := self._at_work():
            # Not a second SIGTERM: schedulers, and terminals that close, send several at once.
            if signal.SIGINT in self._signals[1:]:
                for supervisor in left:
                    supervisor.kill()
            for supervisor in left:
                supervisor.step()
            time.sleep(POLL_S)

    def _say(self, name: str, colour: str, line: str) -> None:
        self._print(Text.assemble((f"{name} │ ", colour), line))

    def _print(self, text: Text) -> None:
        try:
            self._console.print(text, soft_wrap=True)
        except (OSError, SystemExit):  # nobody reads it any more: the work goes on
            self._console.quiet = True


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of agents: `given`, with this program's own Python first.

    A sweep's `${interpreter}` is the `python` of PATH.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), given.get("PATH", "")])
    # The client's own; with it, agents would share a process with this one.
    kept = {name: text for name, text in given.items() if name != "WANDB_SERVICE"}
    return {"WANDB_AGENT_KILL_DELAY": f"{SCORING_S:.0f}", **kept, "PATH": path}


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m agent.launch", HELP, MORE)
    add = parser.add_argument
    add("sweep", metavar="ENTITY/PROJECT/SWEEP_ID", help="the sweep, as `wandb sweep` prints it")
    add("--gpus", default=ALL, metavar="all|none|0,2",
        help="which GPUs to use (default: all; the CPU where there is none)")  # fmt: skip
    add("--per-gpu", type=count_or_auto, default=AUTO, metavar="K|auto",
        help="agents a GPU, under CUDA MPS; without a GPU, agents in all (default: auto, by free "
        "memory, need and cores; 1 without a GPU)")  # fmt: skip
    add("--count", type=count_of(), metavar="N",
        help="points a slot at most (default: as many as the sweep has)")  # fmt: skip
    return parser
