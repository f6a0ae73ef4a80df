"""A study's folder: which sweep it answers, and whether a folder is one at all."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from agent.study.sweepfile import Sweep, parse_sweep
from fno_runner.errors import UserError
from fno_runner.files import make_folder, write_text_atomically
from fno_runner.result import RECORD

STUDIES = Path("outputs/fno_hyperparam_study")
"""Where studies lie unless told otherwise."""
MARKER = "study.json"
SCHEMA_VERSION = 1
MAX_BYTES = 4 * 2**20
"""A larger study.json is refused unread [bytes]."""


@dataclass(frozen=True)
class StudyInfo:
    """What a study's folder says of it.

    sweep: what the study asks, or None where the folder holds single runs of no sweep.
    """

    study_id: str
    sweep: Sweep | None


def read_study(folder: Path) -> StudyInfo:
    """What study a folder holds; nothing is written.

    A folder with `study.json` is a sweep's study. One without, but with `runs/` (single runs of
    `python -m fno_runner`), is a study of no sweep.

    Raises:
        UserError: the folder is missing or is no study, or its study.json cannot be used.
    """
    marker = folder / MARKER
    try:
        if not folder.is_dir():
            what = "not a folder" if folder.exists() else "no such study folder"
            raise UserError(f"{folder}: {what}")
        if not marker.exists():
            if (folder / "runs").is_dir():
                return StudyInfo(folder.resolve().name, None)
            raise UserError(f"{folder}: not a study (neither {MARKER} nor runs/ is in it)")
        if not marker.is_file() or marker.stat().st_size > MAX_BYTES:
            raise UserError(f"{marker}: not a study's {MARKER}")
        content = json.loads(marker.read_bytes())
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from None
    except (ValueError, RecursionError):  # not JSON, or not UTF-8
        raise UserError(f"{marker}: damaged; it is not JSON") from None
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{marker}: not of schema_version {SCHEMA_VERSION}")
    sweep = parse_sweep(content.get("sweep"), str(marker))
    return StudyInfo(sweep.study_id, sweep)


def server_study(sweep_id: str) -> Path:
    """The study of a server's sweep, to which every agent on this disk brings its runs."""
    return STUDIES / re.sub(r"[^A-Za-z0-9_-]", "_", sweep_id)


def newest_study(root: Path = STUDIES) -> Path:
    """The study in `root` whose latest sign of life (a record, else its start) is the newest.

    Raises:
        UserError: there is none.
    """
    try:
        folders = [folder for folder in root.iterdir() if folder.is_dir()]
        studies = [f for f in folders if (f / MARKER).is_file() or (f / "runs").is_dir()]
        if studies:
            return max(studies, key=_last_change)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"cannot list {root}: {error.strerror or error}") from None
    raise UserError(f"{root}: no study in it yet; python -m agent.local SWEEP.yaml makes one")


def check_study(folder: Path, sweep: Sweep) -> None:
    """Refuse a folder that `sweep` may not use; nothing is written.

    A folder that is missing or empty (but for hidden files) may become the sweep's study.

    Raises:
        UserError: the folder belongs to another sweep, or holds something that is not a study.
    """
    try:
        if not (folder / MARKER).exists() and _is_free(folder):
            return
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from None
    # Read again: another driver may have put its marker there since.
    study = read_study(folder)
    if study.sweep is None:
        raise UserError(f"{folder}: holds single runs, not a sweep's study; give another folder")
    if study.study_id != sweep.study_id:
        raise UserError(
            f"{folder}: is the study {study.study_id} of another sweep; this one is "
            f"{sweep.study_id}: give another folder, or leave --study out"
        )


def open_study(folder: Path, sweep: Sweep) -> None:
    """Make `folder` the study of `sweep`, or find that it already is.

    Raises:
        UserError: the folder belongs to another sweep, or holds something that is not a study.
        MachineError: the folder cannot be written.
    """
    check_study(folder, sweep)
    make_folder(folder)
    if not (folder / MARKER).exists():
        # Several drivers may do this at once: each writes the same text, whole.
        write_text_atomically(folder / MARKER, _marker(sweep))


def adopt_study(folder: Path, sweep: Sweep) -> None:
    """Note a server's sweep in its `server_study`, to which its agents brought nothing but runs.

    The server's word goes before that of an earlier note: a sweep's file can be changed there.

    Raises:
        MachineError: the folder cannot be written.
    """
    make_folder(folder)
    text = _marker(sweep)
    try:
        known = (folder / MARKER).read_text() == text
    except (OSError, ValueError):
        known = False
    if not known:
        write_text_atomically(folder / MARKER, text)


def _marker(sweep: Sweep) -> str:
    content = {"schema_version": SCHEMA_VERSION, "study_id": sweep.study_id}
    text = json.dumps({**content, "sweep": sweep.as_mapping()}, indent=1, allow_nan=False)
    return text + "\n"


def _is_free(folder: Path) -> bool:
    try:
        return all(path.name.startswith(".") for path in folder.iterdir())
    except FileNotFoundError:
        return True


def _last_change(study: Path) -> float:
    """When the newest record, or the study itself, was written [s since the epoch]."""
    signs = [study / MARKER, study / "runs", *study.glob(f"runs/*/{RECORD}")]
    times = []
    for path in signs:
        try:
            times.append(path.stat().st_mtime)
        except OSError:  # not there, or moved aside at this moment
            continue
    return max(times, default=0.0)
