"""The folder that a run works in, which gets its final name when the run is over."""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from fno_runner.errors import MachineError
from fno_runner.files import TAKEN, make_folder, number_aside, write_text_atomically
from fno_runner.process import ProcessIdentity
from fno_runner.result import RECORD, run_folder

log = logging.getLogger("fno_runner")

OWNER = "process.json"
"""In a working folder: the process that works there."""
MAX_BYTES = 4096
"""A longer process.json is none [bytes]."""


@contextmanager
def working_folder(output_dir: Path, identifier: str) -> Iterator[tuple[Path, Callable[[], Path]]]:
    """A folder to work in, with a log; `publish` gives it its final name in one rename.

    A run that is interrupted leaves no folder under its final name. A result that the disk does not
    let be published stays where it is.
    """
    final = run_folder(output_dir, identifier)
    me = ProcessIdentity.of(psutil.Process())
    folder = final.with_name(f"{identifier}.{me.host}-{me.pid}-{me.started:.0f}.partial")
    make_folder(folder)
    made = folder.stat()
    write_text_atomically(folder / OWNER, json.dumps(me.as_mapping()) + "\n")
    _remove_remains(folder)
    handler = logging.FileHandler(folder / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    is_complete = False

    def publish() -> Path:
        nonlocal is_complete
        now = folder.stat() if folder.exists() else None
        if now is None or (now.st_dev, now.st_ino) != (made.st_dev, made.st_ino):
            # What was written before is gone, and what came after would be half a run.
            raise MachineError(f"{folder}: vanished while the run was in progress")
        is_complete = True
        try:
            (folder / OWNER).unlink(missing_ok=True)
            _give_name(folder, final, output_dir / "superseded" / identifier)
        except OSError as error:
            reason = error.strerror or error
            raise MachineError(f"{folder}: holds the result; cannot rename it: {reason}") from error
        return final

    try:
        yield folder, publish
    finally:
        log.removeHandler(handler)
        handler.close()
        if folder.exists() and not is_complete:
            shutil.rmtree(folder, ignore_errors=True)


def _give_name(folder: Path, final: Path, superseded: Path) -> None:
    """Rename a folder to its final name; what has that name becomes `<superseded>-<n>`.

    Other processes may do so with the same run at the same moment: each result stays.
    """
    while True:
        if final.exists():
            make_folder(superseded.parent)
            with suppress(FileNotFoundError):  # another process was sooner
                number_aside(final, superseded)
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
        else:
            return


def _remove_remains(folder: Path) -> None:
    """Remove what killed processes of this host left of the same run."""
    identifier = folder.name.split(".")[0]
    for remains in folder.parent.glob(f"{identifier}.*.partial"):
        if (remains / RECORD).exists() and not (remains / OWNER).exists():
            continue  # a whole result, that the disk refused to rename
        if remains != folder and _is_abandoned(remains):
            shutil.rmtree(remains, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody works in a working folder any more, as far as this host can tell."""
    try:
        with (folder / OWNER).open("rb") as stream:
            owner = ProcessIdentity.read(json.loads(stream.read(MAX_BYTES)))
    except (OSError, ValueError, RecursionError):
        owner = None
    if owner is not None:
        return owner.is_here and owner.process() is None
    # A folder of version 0.1, or one whose process died at once: its name has host and pid.
    host = re.escape(socket.gethostname())
    named = re.fullmatch(rf"[^.]+\.{host}-(\d+)(-\d+)?\.partial", folder.name)
    return named is not None and not psutil.pid_exists(int(named[1]))
