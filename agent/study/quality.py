"""The rows of the table of quantities that analyses speak of by name, and columns as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def numbers(table: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """A column as floats; NaN where a number, or the whole column, is missing."""
    if column not in table:
        return np.full(len(table), np.nan)
    return np.asarray(table[column].tolist(), dtype=float)
