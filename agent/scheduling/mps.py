"""Several processes on one card at once, by CUDA MPS: a daemon of our own, from first to last.

Without MPS the processes of a card take turns, and several of them gain nothing. The daemon lives
in a private folder, is started by the user whose processes use it, and leaves the card's compute
mode as it is. NVIDIA's program is `nvidia-cuda-mps-control`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil

from agent.scheduling.slots import ORDER, Slot
from fno_runner.errors import MachineError
from fno_runner.files import write_text_atomically
from fno_runner.gpus import VISIBLE
from fno_runner.process import ProcessIdentity

CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
PID_FILE = f"{CONTROL}.pid"
"""In the folder of pipes: the daemon's pid."""
PREFIX = "fno-mps-"
OWNER = "process.json"
"""In our folder: the process that started the daemon."""
MAX_PATH = 107
"""The longest path of a UNIX socket [bytes]: sun_path has 108 with its end (man 7 unix)."""
LONGEST_PIPE = "/pipe/control_privileged"
ANSWER_S = 20.0
"""How long a program of NVIDIA's may take to answer, such as to start or to end the daemon [s]."""
WATCH_S = 1.0
"""How often the daemon is looked for [s]."""
MAX_RESTARTS = 3
"""A daemon that died so often is not started again."""

Say = Callable[[str], None]


class Mps:
    """A daemon in a folder of its own. Processes with `variables` in their environment use it.

    Where it is gone they use the card without it, as CUDA does where there is no daemon.
    """

    def __init__(self, folder: Path, given: Mapping[str, str], say: Say) -> None:
        """
        Args:
            folder: private, short, and removed by `close`.
            given: the environment that the daemon inherits.
            say: is told in a line what happens to the daemon.
        """
        self.variables = {PIPES: str(folder / "pipe"), LOGS: str(folder / "log")}
        self._folder, self._say = folder, say
        self._environment = {**given, **self.variables}
        self._restarts = 0
        self._look_at = time.monotonic() + WATCH_S
        self.runs = False
        """Whether the daemon is there, as far as is known."""

    def start(self) -> None:
        """Start the daemon.

        Raises:
            OSError: its folder cannot be written, or the program does not start it; says why.
        """
        longest = str(self._folder) + LONGEST_PIPE
        if len(os.fsencode(longest)) > MAX_PATH:
            raise OSError(f"too long a path for a socket, TMPDIR names another: {self._folder}")
        for folder in self.variables.values():
            Path(folder).mkdir(mode=0o700, exist_ok=True)
        status, said = self._call(["-d"])
        if status:
            said = " ".join(said.split())
            raise OSError(said or f"{CONTROL} -d ended with exit status {status}")
        self.runs = True

    def watch(self) -> None:
        """See whether the daemon is alive, and start it again where it is not; call it often."""
        if not self.runs or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + WATCH_S
        if self._pid() is None or self._daemon() is not None:
            return  # where it does not say its pid, it is believed
        self.runs = False
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            self._say(f"the MPS daemon died again: {WITHOUT}")
            return
        try:
            shutil.rmtree(self.variables[PIPES], ignore_errors=True)  # its sockets are dead
            self.start()
            self._say("the MPS daemon died and was started again")
        except (OSError, subprocess.SubprocessError) as error:
            self._say(f"the MPS daemon died ({_reason(error)}): {WITHOUT}")

    def close(self) -> None:
        """End the daemon, if it is there, and remove its folder."""
        if self.runs:
            with suppress(OSError, subprocess.SubprocessError):
                self._call([], "quit\n")
        if (daemon := self._daemon()) is not None:
            with suppress(psutil.Error):
                daemon.terminate()
                daemon.wait(ANSWER_S)
        self.runs = False
        shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, arguments: Sequence[str], line: str = "") -> tuple[int, str]:
        """The program's exit status, and all that it said."""
        with tempfile.TemporaryFile("w+") as output:  # a pipe would wait for the daemon's end
            done = subprocess.run(
                [CONTROL, *arguments], input=line, stdout=output, stderr=output, text=True,
                env=self._environment, timeout=ANSWER_S, check=False,
            )  # fmt: skip
            output.seek(0)
            return done.returncode, output.read()

    def _daemon(self) -> psutil.Process | None:
        if (pid := self._pid()) is None:
            return None
        try:
            process = psutil.Process(pid)
            # Its name, as another process may have its pid by now.
            is_it = any(CONTROL in part for part in (process.name(), *process.cmdline()))
            return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.Error, ValueError, OverflowError):
            return None

    def _pid(self) -> int | None:
        with suppress(OSError, ValueError):
            return int((Path(self.variables[PIPES]) / PID_FILE).read_text(errors="replace"))
        return None


WITHOUT = "the points of a card take turns from here on, and several at a time gain nothing"


@contextmanager
def shared_by_mps(
    slots: Sequence[Slot], given: Mapping[str, str], say: Say
) -> Iterator[tuple[list[Slot], Callable[[], None]]]:
    """The slots, those that share a card with MPS, and what is to be called often meanwhile.

    Where no two slots share a card there is no daemon. Where there is no MPS, a line says so, and
    everything goes on without it.
    """
    slots_of = Counter(slot.variables.get(VISIBLE, "") for slot in slots)
    cards = [card for card, count in slots_of.items() if card and count > 1]
    mps = _start(cards, given, say) if cards else None
    if mps is None:
        yield list(slots), lambda: None
        return
    try:
        sharing = [replace(slot, variables={**slot.variables, **mps.variables}) for slot in slots]
        yield sharing, mps.watch
    finally:
        mps.close()


def _start(cards: Sequence[str], given: Mapping[str, str], say: Say) -> Mps | None:
    if PIPES in given:
        return None  # whoever runs the box has a daemon already
    try:
        if any(card.startswith("MIG-") for card in cards):
            raise OSError("a part of a partitioned GPU")
        if shutil.which(CONTROL, path=given.get("PATH")) is None:
            raise OSError(f"no {CONTROL} here")
        _remove_remains(say)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        mps = Mps(folder, _environment(cards, given), say)
        try:
            me = ProcessIdentity.of(psutil.Process()).as_mapping()
            write_text_atomically(folder / OWNER, json.dumps(me) + "\n")
            mps.start()
        except BaseException:
            mps.close()
            raise
    except (OSError, MachineError, subprocess.SubprocessError) as error:
        say(f"no MPS ({_reason(error)}): {WITHOUT}")
        return None
    return mps


def _environment(cards: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The daemon's: it sees the cards by the names that its clients use.

    A number would mean another card to a daemon that has been given a part of them: then it sees
    all. A name that begins with GPU- means the same to everybody.
    """
    environment = {name: value for name, value in given.items() if name != VISIBLE}
    if VISIBLE not in given:
        environment.setdefault(ORDER, "PCI_BUS_ID")
    if all(card.startswith("GPU-") for card in cards):
        environment[VISIBLE] = ",".join(dict.fromkeys(cards))
    return environment


def _remove_remains(say: Say) -> None:
    """End the daemons of killed commands of this user and host."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            owner = ProcessIdentity.read(json.loads((folder / OWNER).read_text()))
        except (OSError, ValueError):
            continue
        if owner is not None and owner.is_here and owner.process() is None:
            remains = Mps(folder, os.environ, say)
            remains.runs = True
            remains.close()


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip()[:200]
