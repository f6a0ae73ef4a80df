"""Points by their names, the run_ids, and what is known of each."""

from __future__ import annotations

from pathlib import Path

from agent.scheduling.queue import Queue
from agent.study.records import read_records
from agent.study.sweepfile import Point, Sweep, Value, points
from fno_runner.config import load_config
from fno_runner.errors import UserError
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
    records = read_records(folder)
    unread = [rejected for rejected in records.rejected if rejected.kind is None]
    known = {rejected.path.parent.name: "failed" for rejected in unread}
    known |= {result.run_id: result.status for result in records.results}
    if queue is not None and not queue.shares_records:
        for identifier, status in queue.outcomes().items():
            if known.get(identifier) != "finished":
                known[identifier] = status
    return known
