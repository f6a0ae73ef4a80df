"""Points by their names, the run_ids, and what is known of each."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from agent.scheduling.queue import Queue
from agent.study.records import read_record, record_paths
from agent.study.sweepfile import MAX_POINTS, Point, Sweep, Value, points
from fno_runner.config import load_config
from fno_runner.errors import UnbelievableError, UserError
from fno_runner.identity import run_id


def name_of(point: Point) -> str:
    """A point's run_id.

    Raises:
        UserError: a value is not allowed, or a data file that the point names cannot be read.
    """
    return run_id(load_config(point))


def has_lost_its_data(named: str, point: Point) -> bool:
    """Whether the files that a point was `named` after are gone, or others now."""
    try:
        return name_of(point) != named
    except (UserError, OSError):
        return True


def named_grid(sweep: Sweep) -> dict[str, Point]:
    """run_id -> point of a grid, in its order.

    Raises:
        UserError: a data file that a point names cannot be read, or two points are the same run or
            differ only in keys that change nothing about their data.
    """
    named: dict[str, Point] = {}
    decisive: dict[tuple[Value, ...], Point] = {}
    for point in points(sweep):
        idle = load_config(point).without_effect
        counts = tuple(None if key in idle else point[key] for key in sweep.swept)
        if (twin := decisive.setdefault(counts, point)) is not point:
            keys = ", ".join(key for key in idle if point.get(key) != twin.get(key))
            raise UserError(f"{keys}: swept, but no effect on data that are not simulated so: its "
                            "points would be equal trainings")  # fmt: skip
        identifier = name_of(point)
        if identifier in named:
            twin = named[identifier]
            keys = ", ".join(key for key in point if point[key] != twin[key])
            raise UserError(f"{keys}: swept, but decides no result: its points are the same run")
        named[identifier] = point
    return named


def statuses(folder: Path, queue: Queue | None = None) -> dict[str, str]:
    """run_id -> status of every point of a study that has a record.

    A record that cannot be read counts as failed; one that is not believed is none. Where drivers
    do not share a disk, the queue's word counts for the records that lie elsewhere.
    """
    known: dict[str, str] = {}
    for path in record_paths(folder):
        try:
            facts = path.stat()
            status = _status(path, facts.st_ino, facts.st_mtime_ns, facts.st_size)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            status = "failed"
        if status is not None:
            known[path.parent.name] = status
    if queue is not None and not queue.shares_records:
        for identifier, status in queue.outcomes().items():
            if known.get(identifier) != "finished":
                known[identifier] = status
    return known


@lru_cache(maxsize=2 * MAX_POINTS)
def _status(path: Path, *_signature: int) -> str | None:
    """What a record says of its run; None where it is not believed.

    Read once for each signature of the file: a driver with an idle slot looks every few seconds,
    and thousands of records take longer than that.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return read_record(path, path.parent.name).status
    except UnbelievableError:
        return None
