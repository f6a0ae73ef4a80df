"""One point in its own process: start it, see how it ended, stop it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.scheduling import stop_with_parent
from agent.study.records import one_line, read_record
from agent.study.sweepfile import Point
from fno_runner.config import RunConfig, load_config
from fno_runner.data import patch_size_of
from fno_runner.errors import MachineError
from fno_runner.files import make_folder
from fno_runner.result import RECORD, ErrorInfo, RunResult, run_folder, write_result

TAIL_BYTES = 4096
MAX_CAUSE = 300
"""A longer last line of a run's log is cut in its record [characters]."""


@dataclass(eq=False)
class Child:
    """A point that runs now."""

    process: subprocess.Popen[bytes]
    study: Path
    run_id: str
    point: Point
    log: Path
    log_start: int
    """Where this attempt's part of the log begins [bytes]."""
    record_before: tuple[int, int] | None
    """What an earlier attempt left, so that it is not taken for this one's record."""

    def record(self) -> RunResult | None:
        """The record that this attempt left, or None."""
        if _signature(self.study, self.run_id) == self.record_before:
            return None
        try:
            return read_record(run_folder(self.study, self.run_id) / RECORD, self.run_id)
        except (OSError, ValueError):
            return None

    def last_line(self) -> str:
        """The last line that this attempt wrote to its log, or an empty text."""
        try:
            with self.log.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(self.log_start, size - TAIL_BYTES))
                text = stream.read(TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""
        lines = [one_line(line) for line in text.splitlines() if line.strip()]
        return lines[-1][:MAX_CAUSE] if lines else ""

    def write_death(self) -> RunResult:
        """Write the record that the dead process owes.

        Raises:
            MachineError: the disk refuses it.
        """
        message = death(self.process.returncode)
        if last := self.last_line():
            message += f"; its last line: {last}"
        config = load_config({**self.point, "output_dir": str(self.study)})
        if config.train_npz is None:
            config = config.of_size(patch_size_of(config))
        error = ErrorInfo(type="ProcessDied", message=message)
        return record_failure(config, self.run_id, error, log=str(self.log))

    def kill(self) -> None:
        """End the run at once, with all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def record_failure(
    config: RunConfig, run_id: str, error: ErrorInfo, **provenance: str
) -> RunResult:
    """Write the record of a run that has none of its own making.

    Raises:
        MachineError: the disk refuses it.
    """
    result = RunResult(
        run_id=run_id,
        status="failed",
        error=error,
        config=config.model_dump(),
        provenance={"host": socket.gethostname(), **provenance},
    )
    write_result(result, make_folder(run_folder(Path(config.output_dir), run_id)))
    return result


def arguments(point: Point, study: Path) -> list[str]:
    """A point as options of `python -m agent.run`.

    A null is left out: it means 'as if not given', which is what every key that takes it defaults
    to.
    """
    options = [f"--{key}={value}" for key, value in point.items() if value is not None]
    return [*options, f"--output_dir={study}"]


def environment(study: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run: `given`, else Weights & Biases offline, into the study."""
    return {"WANDB_MODE": "offline", "WANDB_DIR": str(study.resolve()), **given}


def start_point(
    point: Point, study: Path, log: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a point's process, its output appended to `log`.

    It gets a session of its own: Ctrl-C reaches the driver only, which then stops its runs. On
    Linux it is told to stop when its driver is gone.
    """
    with log.open("ab") as stream:
        return subprocess.Popen(
            stop_with_parent.command("-m", "agent.run", *arguments(point, study)),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(variables),
            start_new_session=True,
        )


def start(study: Path, run_id: str, point: Point, variables: Mapping[str, str]) -> Child:
    """Start a point of a study.

    Raises:
        MachineError: its log cannot be written, or no process can be made.
    """
    log = make_folder(study / "logs") / f"{run_id}.log"
    before = _signature(study, run_id)
    try:
        log_start = log.stat().st_size if log.exists() else 0
        process = start_point(point, study, log, variables)
    except OSError as error:
        raise MachineError(f"cannot start {run_id}: {error.strerror or error}") from error
    return Child(process, study, run_id, point, log, log_start, before)


def death(returncode: int) -> str:
    """How a process ended that left no record, in words."""
    if returncode >= 0:
        return f"the run ended with exit status {returncode} and left no record"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = " (often: no memory left)" if name == "SIGKILL" else ""
    return f"the run was killed by {name}{hint}"


def _signature(study: Path, run_id: str) -> tuple[int, int] | None:
    try:
        facts = (run_folder(study, run_id) / RECORD).stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns
