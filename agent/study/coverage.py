"""Which points of a grid are done, and which runs the others had."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from agent.study.quality import by_key
from agent.study.sweepfile import Point, Sweep, points
from fno_runner.config import PATHS
from fno_runner.result import SETTLED

NO_PART_OF_A_POINT = ("output_dir", "data_dir", "device")
"""Keys that a run may have otherwise than its point says and still be that point's run."""


@dataclass(frozen=True)
class Attempts:
    """A point of a grid and the rows of its runs, by position in the table, in its order.

    done: one of the runs finished, or was stopped on purpose: nobody wants it run again.
    """

    point: Point
    rows: list[int]
    done: bool


def attempts(sweep: Sweep, table: pd.DataFrame) -> list[Attempts]:
    """The points of a grid, in its order, each with its runs in a table of `agent.study.records`.

    Compared by value: a point's run_id would need the data files, which may be on another machine.
    But a run with the run_id of a point's run is the point's as well, whatever it has logged.

    Raises:
        UserError: the sweep's method is not grid.
    """
    # A fixed path does not tell whose run it is: it is all runs', and few log it.
    told = [key for key in sweep.parameters if key in sweep.swept or key not in PATHS]
    keys = [key for key in told if key not in NO_PART_OF_A_POINT]
    run_ids, statuses = table["run_id"].tolist(), table["status"].tolist()
    by_value = by_key(map(tuple, table.reindex(columns=keys).to_numpy().tolist()))
    by_name = by_key(run_ids)
    every_point = []
    for point in points(sweep):
        rows = set(by_value.get(tuple(point[key] for key in keys), ()))
        rows = rows.union(*(by_name[run_ids[row]] for row in rows if run_ids[row]))
        done = any(statuses[row] in SETTLED for row in rows)
        every_point.append(Attempts(point, sorted(rows), done))
    return every_point
