"""The quantities that analyses speak of by name; columns of a table as numbers, cells, words."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from fno_runner.score.quantities import QUANTITIES, VALIDATION

if TYPE_CHECKING:  # takes a second to import, and a run only makes a row
    import pandas as pd

PHASE_SSIM = QUANTITIES["ssim_phase"]
PHASE_PSNR = QUANTITIES["psnr_phase"]
VALIDATED_SSIM = QUANTITIES[VALIDATION + PHASE_SSIM.column]
R_HELD_OUT = QUANTITIES["r_held_out"]
"""For a scan: a reference object is another method's answer, no truth to choose by."""
R_FROM_OBJECT = QUANTITIES["r_held_out_from_object"]
"""What the object of the training frames predicts: no frame's own pattern helps its answer."""
R_TRAIN = QUANTITIES["r_train"]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int_]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]
"""Positions in a table."""

Key = TypeVar("Key", bound=Hashable)


def numbers(table: pd.DataFrame, column: str) -> Array:
    """A column as floats; NaN where a number, or the whole column, is missing."""
    return np.array(cells(table, column), dtype=float)


def cells(table: pd.DataFrame, column: str) -> list[Any]:
    """A column; None where the whole column is missing."""
    return table[column].tolist() if column in table else [None] * len(table)


def words(table: pd.DataFrame, columns: Iterable[str]) -> list[tuple[str, ...]]:
    """What each row has in these columns, as texts that can be compared."""
    told = table.reindex(columns=list(columns)).to_numpy().tolist()
    return [tuple(map(str, values)) for values in told]


def by_key(keys: Iterable[Key]) -> dict[Key, list[int]]:
    """The rows of each key, in their order, of a key a row."""
    rows: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows
