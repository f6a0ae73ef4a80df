"""The folders of runs that Weights & Biases keeps on this disk: whose they are, and who sends them.

Tracking puts files of ours into each: `address.json`, where the run belongs on the server; `.hold`,
which the process that sends the run keeps locked; and, once the run has come to its end, copies of
its record (`files/result.json`) and of its picture, which the client might lose.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.study.records import Rejected, read_record
from fno_runner.errors import MachineError
from fno_runner.files import write_text_atomically
from fno_runner.result import RECORD, RunResult

FOLDER = re.compile(r"(?:offline-)?run-(\d{8}_\d{6})-([^/\\#?%:;,\n]+)")
ADDRESS = "address.json"
PICTURE = "recon.png"
HOLD = ".hold"
MAX_BYTES = 4096
"""A longer address.json is not one [bytes]."""


@dataclass(frozen=True)
class Address:
    """Where a run belongs.

    entity: empty where the account's own is meant.
    project: empty where the default project is meant.
    """

    entity: str = ""
    project: str = ""


@dataclass(frozen=True)
class LocalRun:
    """A run that came to its end, as this disk has it. `id` is the server's."""

    folder: Path
    id: str
    address: Address
    result: RunResult

    @property
    def files(self) -> Path:
        """What the server is to have as files."""
        return self.folder / "files"

    @property
    def picture(self) -> Path | None:
        """The reconstruction, where the run got as far."""
        path = self.folder / PICTURE
        return path if path.exists() else None


@dataclass(frozen=True)
class Runs:
    """What a `wandb` folder holds, each in the order in which the runs started.

    ended: runs with a record.
    unended: id -> folder of the others.
    rejected: runs whose record is not believed.
    """

    ended: list[LocalRun]
    unended: dict[str, Path]
    rejected: list[Rejected]


def write_address(folder: Path, address: Address) -> None:
    """Note where the run of a folder belongs.

    Raises:
        MachineError: the disk refuses it.
    """
    write_text_atomically(folder / ADDRESS, json.dumps(asdict(address)) + "\n")


def read_address(folder: Path) -> Address:
    """Where the run of a folder belongs; the folder of an older run does not say.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    path = folder / ADDRESS
    if not path.exists():
        return Address()
    try:
        return TypeAdapter(Address).validate_json(path.read_bytes()[:MAX_BYTES], strict=True)
    except ValidationError:
        raise ValueError(f"{ADDRESS} is damaged") from None


def find_runs(folder: Path) -> Runs:
    """The runs in a `wandb` folder. One that was resumed has several folders, and is one run.

    Raises:
        MachineError: the folder cannot be listed.
    """
    try:
        paths = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError as error:
        raise MachineError(f"cannot list {folder}: {error.strerror or error}") from error
    named = [(name[1], name[2], path) for path in paths if (name := FOLDER.fullmatch(path.name))]
    lives: dict[str, list[Path]] = {}
    for _, identifier, path in sorted(named):
        lives.setdefault(identifier, []).append(path)
    runs = Runs([], {}, [])
    for identifier, started in lives.items():
        recorded = [path for path in started if os.path.lexists(path / "files" / RECORD)]
        if not recorded:
            runs.unended[identifier] = started[-1]
            continue
        last = recorded[-1]
        try:
            result = read_record(last / "files" / RECORD)
            runs.ended.append(LocalRun(last, identifier, read_address(last), result))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            runs.rejected.append(Rejected(last, reason))
    return runs


def hold(folder: Path) -> int | None:
    """Lock a run's folder for the one who sends the run; None where another one holds it.

    The lock lasts until the descriptor that is returned is closed, in this process and in every
    one that inherited it. So a killed process holds nothing.

    Raises:
        MachineError: the folder cannot be written.
    """
    descriptor = None
    try:
        descriptor = os.open(folder / HOLD, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise MachineError(f"cannot write to {folder}: {error.strerror or error}") from error
    return descriptor


def is_held(folder: Path) -> bool:
    """Whether somebody sends the run of this folder now; nothing is written.

    Raises:
        MachineError: the folder cannot be read.
    """
    try:
        descriptor = os.open(folder / HOLD, os.O_RDONLY)  # the disk may be read-only
    except FileNotFoundError:
        return False
    except OSError as error:
        raise MachineError(f"cannot read {folder}: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
