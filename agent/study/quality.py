"""What configurations are judged by: the column, which way is better, how near is near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # takes a second to import, and a run only makes a row
    import pandas as pd

VALIDATION = "val_"
"""Before a metric's name: the same metric of the validation object, which no training has seen.
Configurations are chosen by it and reported by the test object's."""


@dataclass(frozen=True)
class Criterion:
    """A quality.

    column: its column in a table of runs; in one of configurations, `<column>_mean` and so on.
    tolerance: what counts as near enough where no seeds tell; absolute, in the number's own unit.
    """

    column: str
    name: str
    better: Literal["higher", "lower"]
    tolerance: float

    @property
    def sign(self) -> int:
        """What the number is multiplied by so that more is better."""
        return 1 if self.better == "higher" else -1


PHASE_SSIM = Criterion("ssim_phase", "phase SSIM", "higher", 0.02)
PHASE_PSNR = Criterion("psnr_phase", "phase PSNR [dB]", "higher", 0.5)
VALIDATED_SSIM = Criterion(
    VALIDATION + PHASE_SSIM.column, "validation phase SSIM", "higher", PHASE_SSIM.tolerance
)
R_HELD_OUT = Criterion("r_held_out", "R on held-out frames", "lower", 0.002)
"""For a scan: a reference object is another method's answer, no truth to choose by."""
R_FROM_OBJECT = Criterion(
    "r_held_out_from_object", "R of held-out frames, from the object", "lower", 0.002
)
"""What the object of the training frames predicts: no frame's own pattern helps its answer."""
R_TRAIN = Criterion("r_train", "R on training frames", "lower", 0.002)


def numbers(table: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """A column as floats; NaN where a number, or the whole column, is missing."""
    if column not in table:
        return np.full(len(table), np.nan)
    return np.asarray(table[column].tolist(), dtype=float)
