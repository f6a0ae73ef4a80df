"""Which frames of a scan are kept, and what a monitor says of the beam during them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from fno_runner.data import pixels
from fno_runner.data.measured import Measured
from fno_runner.errors import UserError

MIN_FRAMES = 16
"""Fewer frames are no scan."""
LACKING = 0.01
"""A frame that lacks pixels with more than this share of the mean pattern's counts is left out."""
LOST_BEAM, OF_THE_SAMPLE = 0.1, 0.25
"""Frames with less than this share of the median counts had no beam; unless more than that share
of all frames has so few, as then it is the sample's doing."""
STEADIER = 0.8
"""A monitor is believed if it brings the spread of the frames' counts below this of what it was."""
OWN_SUM = 1e-5
"""Counts that follow a monitor this exactly (as 10¹⁰ photons would) are what it was summed of."""
NAMED = 5
"""So many frames are named."""


@dataclass(frozen=True)
class KeptFrames:
    """Which of the stored frames are kept, and what their intensities are multiplied by.

    position: (F',), which of the positions each stored frame belongs to, −1 if it is left out.
    scale: (F',), by what a frame's intensities are multiplied to be of the same beam as others'.
    filling: (H, W), what stands for single values that a frame lacks; None where none lacks any.
    monitor: its median, for which scale is 1; 0 where there is none.
    """

    position: Int64[np.ndarray, " f"]
    scale: Float32[np.ndarray, " f"] | None
    filling: Float32[np.ndarray, "h w"] | None
    monitor: float = 0.0


def kept_frames(
    measured: Measured, counts: np.ndarray, mean: np.ndarray, whole: bool, remarks: list[str]
) -> KeptFrames:
    """Leave out frames that are empty, that lost the beam, or that lack much of their pattern.

    Args:
        counts: (F',), of each stored frame. mean: (H, W), the mean pattern, 0 at bad pixels.
        whole: whether every frame has a value at every good pixel.

    Raises:
        UserError: too few are left.
    """
    stored = measured.frames.shape[0]
    position = np.full(stored, -1)
    of_frame = np.arange(stored) if measured.of_frame is None else measured.of_frame
    position[of_frame] = np.arange(len(of_frame))
    placed = position >= 0

    def leave_out(which: np.ndarray, why: str) -> None:
        which = which & (position >= 0)
        if which.any():
            position[which] = -1
            remarks.append(f"{_named(which)} left out: {why}")

    unplaced = np.zeros(stored, bool)
    unplaced[of_frame] = ~np.isfinite(measured.positions).all(axis=1)
    leave_out(unplaced, "their positions are not finite numbers")
    filling = None
    if not whole:
        share, values = lacked(measured, mean)
        leave_out(share > LACKING, f"without pixels that have over {LACKING:.0%} of the counts")
        counts = counts / np.maximum(1 - share, 1 - LACKING)
        if (replaced := int(values[position >= 0].sum())) > 0:
            filling = mean.astype(np.float32)
            remarks.append(
                f"{replaced} values that single frames lack were set to the pixel's mean"
            )
    leave_out(counts <= 0, "without a single count")
    typical = float(np.median(counts[position >= 0])) if (position >= 0).any() else 0.0
    few = counts < LOST_BEAM * typical
    if few[position >= 0].sum() > OF_THE_SAMPLE * placed.sum():
        remarks.append(
            f"{int(few[position >= 0].sum())} frames have less than {LOST_BEAM:.0%} of the median "
            f"counts; so many are kept, as the sample may be dark there"
        )
    else:
        leave_out(few, f"less than {LOST_BEAM:.0%} of the median counts: no beam?")
    scale, usual = None, 0.0
    if measured.monitor is not None:
        monitor = usable_monitor(measured.monitor)
        known = placed & ~unplaced
        usual = float(np.median(monitor[known])) if known.any() else 0.0
        if usual > 0:
            leave_out(monitor < LOST_BEAM * usual, "the monitor saw no beam")
            scale = _by_monitor(monitor / usual, counts, position >= 0, remarks)
        else:
            remarks.append(f"the monitor is not used: its median is {usual:g}")
    if (left := int((position >= 0).sum())) < MIN_FRAMES:
        reasons = f" ({'; '.join(remarks)})" if left < len(of_frame) else ""
        raise UserError(
            f"{measured.path}: {left} frames{reasons}; at least {MIN_FRAMES} are needed"
        )
    return KeptFrames(position, scale, filling, max(usual, 0.0))


def usable_monitor(monitor: np.ndarray) -> Float64[np.ndarray, " f"]:
    """What fell on the sample during each frame (F,); 0 where the monitor has no number."""
    return np.where(np.isfinite(monitor), monitor, 0).astype(np.float64)


def lacked(measured: Measured, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each stored frame, the share of the mean pattern at pixels that it lacks, and how many."""
    share = np.zeros(measured.frames.shape[0])
    values = np.zeros(measured.frames.shape[0], np.int64)
    # A good pixel without a count in any frame has weight 0 and still lacks a value.
    weight = (mean / mean.sum()).reshape(-1) if mean.any() else mean.reshape(-1)
    for first, block, flagged in pixels.flagged_blocks(measured):
        lacks = pixels.lacking(block, flagged, measured.kind)
        if lacks is not None:
            flat = (lacks & (mean > 0)).reshape(len(block), -1)
            share[first : first + len(block)] = flat @ weight
            values[first : first + len(block)] = flat.sum(axis=1)
    return share, values


def _by_monitor(
    monitor: np.ndarray, counts: np.ndarray, kept: np.ndarray, remarks: list[str]
) -> np.ndarray | None:
    """Factors that take the beam's changes out of the frames; None where it does not help."""
    if not kept.any():
        return None
    before, after = np.std(np.log(counts[kept])), np.std(np.log(counts[kept] / monitor[kept]))
    low, high = monitor[kept].min(), monitor[kept].max()
    if after < OWN_SUM < before:
        remarks.append(
            "the monitor is the frames' own sum, which the sample changes too: it is not used"
        )
        return None
    if after > STEADIER * before:
        if high > low:
            remarks.append("the monitor does not explain how counts vary, and is not used")
        return None
    remarks.append(
        f"intensities are divided by the monitor ({low:.2f} to {high:.2f} of its median)"
    )
    return np.where(kept, 1 / np.where(kept, monitor, 1), 1).astype(np.float32)


def _named(which: np.ndarray) -> str:
    """'3 frames (0, 10, 20)', or '1 frame (5)'."""
    numbers = np.flatnonzero(which)
    shown = ", ".join(str(number) for number in numbers[:NAMED])
    more = ", …" if len(numbers) > NAMED else ""
    return f"{len(numbers)} frame{'s' if len(numbers) > 1 else ''} ({shown}{more})"
