"""Tables of runs as CSV that a spreadsheet shows and never runs, and that reads back as written."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

FORMULA = ("=", "+", "-", "@")
"""How a text begins that a spreadsheet takes for a formula: the message of an error, or whatever a
server says, must not run on the machine of who opens the table."""
MARK = "'"
"""Before such a text, and before one that begins with it: what spreadsheets show as plain text."""


def as_csv(table: pd.DataFrame) -> str:
    """A table as text: a missing number is NaN, and a text, a column's name too, is marked where
    it needs it."""
    # Not by DataFrame.map, which makes 1000 to 1000.0 in a column with a gap.
    cells = [[_marked(cell) for cell in row] for row in table.astype(object).to_numpy().tolist()]
    marked = pd.DataFrame(cells, columns=[_marked(name) for name in table], dtype=object)
    return marked.to_csv(index=False, na_rep="NaN", lineterminator="\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `as_csv` wrote, every cell a text, as it was before it was marked.

    Raises:
        OSError, UnicodeDecodeError, csv.Error: it cannot be read, or is no such table.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [
        {str(key).removeprefix(MARK): (cell or "").removeprefix(MARK) for key, cell in row.items()}
        for row in rows
    ]


def _marked(cell: object) -> object:
    return MARK + cell if isinstance(cell, str) and cell.startswith((*FORMULA, MARK)) else cell
