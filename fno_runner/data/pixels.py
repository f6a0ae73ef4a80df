"""What the values of every pixel and of every frame look like, found out in one reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int64

from fno_runner.data.measured import Frames, Kind, Measured

LARGEST = {"intensity": 1e38, "amplitude": 1e19}
"""Beyond these a value, or its square, is no number in 32 bits."""
OVERFLOW = 2.0**32 - 1
"""What 32-bit counters write where a pixel has nothing, also once it was made a float."""
NOTHING = (2.0**8 - 1, 2.0**15 - 1, 2.0**16 - 1, 2.0**20 - 1, 2.0**31 - 1, OVERFLOW)
"""The highest values of the types and counters of detectors: constant, they are no counts."""
HOT, NEIGHBOURHOOD = 30.0, 5
"""A pixel so many times as bright as the median of the so many × so many pixels around it …"""
HOT_SPREAD = 0.05
"""… whose standard deviation over the frames is at most this share of it, is hot."""
BRIGHT_SHARE = 1e-3
"""A single pixel with a larger share of all counts could move a pattern's centre."""
DEAD = 200.0
"""A pixel without a count amid pixels with so many photons is dead: where a tenth of them is
expected, none comes with a chance of e⁻²⁰."""
BLANK = 0.05
"""A frame with fewer than this share of the values that others have was never measured; a mask of
its own leaves it more."""
GAP_SHARE = 0.03
"""Rows beside a gap hold at least this share of the counts of the brightest row."""


@dataclass(frozen=True)
class Statistics:
    """Of all frames of a recording, in the detector's size.

    valid: how many frames have a value, at each pixel.
    lowest, highest: of a pixel's values as they are stored; at_highest: how many have the latter.
    negative: how many of a pixel's values are below 0.
    total, squares: sums over a pixel's intensities, less the background, and over their squares.
    flagged: how many frames' flags mark a pixel as bad; hidden: the sum over what they mark.
    counts: of each frame, at pixels that have a value in it; values: how many have.
    """

    valid: Int64[np.ndarray, "h w"]
    lowest: Float64[np.ndarray, "h w"]
    highest: Float64[np.ndarray, "h w"]
    at_highest: Int64[np.ndarray, "h w"]
    negative: Int64[np.ndarray, "h w"]
    total: Float64[np.ndarray, "h w"]
    squares: Float64[np.ndarray, "h w"]
    flagged: Int64[np.ndarray, "h w"]
    hidden: Float64[np.ndarray, "h w"]
    counts: Float64[np.ndarray, " f"]
    values: Int64[np.ndarray, " f"]

    @property
    def blank(self) -> Bool[np.ndarray, " f"]:
        """Frames that lack nearly all values that others have: nothing was measured."""
        return self.values < BLANK * self.values.max()

    @property
    def mean(self) -> Float64[np.ndarray, "h w"]:
        """Of the intensities that a pixel has."""
        return self.total / np.maximum(self.valid, 1)


def survey(measured: Measured) -> Statistics:
    """Read all frames once.

    Raises:
        UserError: the file is damaged, or has changed.
    """
    count, height, width = measured.frames.shape
    shape = (height, width)
    valid, at_highest, negative, marked = (np.zeros(shape, np.int64) for _ in range(4))
    total, squares, hidden = (np.zeros(shape) for _ in range(3))
    lowest, highest = np.full(shape, np.inf), np.full(shape, -np.inf)
    counts, values = np.zeros(count), np.full(count, height * width)
    for first, block, flagged in flagged_blocks(measured):
        with_value = _has_value(block, measured.kind)
        intensity = intensities(block, measured)
        if with_value is not None:
            intensity = np.where(with_value, intensity, 0)
        if flagged is not None:
            marked += flagged.sum(axis=0)
            hidden += np.where(flagged, intensity, 0).sum(axis=0, dtype=np.float64)
            intensity = np.where(flagged, 0, intensity)
            with_value = ~flagged if with_value is None else with_value & ~flagged
        if with_value is None:
            low, high = block.min(axis=0), block.max(axis=0)
            valid += len(block)
        else:
            low = np.where(with_value, block, np.inf).min(axis=0)
            high = np.where(with_value, block, -np.inf).max(axis=0)
            valid += with_value.sum(axis=0)
            values[first : first + len(block)] = with_value.sum(axis=(1, 2))
        times = (block == high).sum(axis=0)
        at_highest = np.where(
            high > highest, times, at_highest + np.where(high == highest, times, 0)
        )
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
        if low.min() < 0:
            negative += (block < 0).sum(axis=0)
        total += intensity.sum(axis=0, dtype=np.float64)
        squares += np.einsum("fhw,fhw->hw", intensity, intensity, dtype=np.float64)
        counts[first : first + len(block)] = intensity.sum(axis=(1, 2), dtype=np.float64)
    return Statistics(
        valid, lowest, highest, at_highest, negative, total, squares, marked, hidden, counts, values
    )


def intensities(block: np.ndarray, measured: Measured) -> np.ndarray:
    """Float32 intensities of a block of frames, less their background, none below 0."""
    with np.errstate(over="ignore", invalid="ignore"):  # what `_has_value` finds
        values = block.astype(np.float32)
        if measured.kind == "amplitude":
            np.square(values, out=values)
    if measured.background is not None:
        values -= measured.background
    return np.maximum(values, 0, out=values)


def _has_value(block: np.ndarray, kind: Kind) -> np.ndarray | None:
    """Where a block's values are numbers of counts; None where all are.

    Neither NaN nor infinity is, nor what a 32-bit counter writes where it has nothing, nor any
    value but 0 that a whole frame has: a virtual dataset fills frames with it that were lost.
    """
    bad = _no_count(block, kind)
    filled = _filled(block)
    if filled.any():
        bad = np.broadcast_to(bad, block.shape) | filled[:, None, None]
    return ~bad if bad.any() else None


def _no_count(block: np.ndarray, kind: Kind) -> Bool[np.ndarray, "..."]:
    """Where values by themselves are no counts; broadcasts to the block's shape."""
    if block.dtype.kind not in "iu":
        overflow = OVERFLOW if kind == "intensity" else np.sqrt(OVERFLOW)
        return ~(np.abs(block) < LARGEST[kind]) | (np.abs(block - overflow) <= 1e-6 * overflow)
    if block.dtype.itemsize < 4:
        return np.zeros((), bool)
    return np.asarray((block == np.iinfo(block.dtype).max) | (block == OVERFLOW))


def dark_has_value(block: np.ndarray) -> Bool[np.ndarray, "b h w"]:
    """Where values of dark frames are numbers; a dark may be the same everywhere."""
    first = block[:, 0, 0]
    lost = _filled(block) & ((first < 0) | np.isin(first, NOTHING))
    return ~(np.broadcast_to(_no_count(block, "intensity"), block.shape) | lost[:, None, None])


def never_above_background(measured: Measured, statistics: Statistics) -> Bool[np.ndarray, "h w"]:
    """Pixels that even at their brightest have a count less than the background has there."""
    if measured.background is None:
        return np.zeros(statistics.highest.shape, bool)
    power = 1 if measured.kind == "intensity" else 2
    return np.asarray(statistics.highest**power + 1 < measured.background)


def _filled(block: np.ndarray) -> Bool[np.ndarray, " b"]:
    """Frames whose every value is the same, and not 0."""
    first = block[:, 0, 0]
    filled = np.asarray((first != 0) & (block[:, -1, -1] == first))
    for frame in np.flatnonzero(filled):  # hardly any
        filled[frame] = (block[frame] == first[frame]).all()
    return filled


def lacking(block: np.ndarray, flagged: np.ndarray | None, kind: Kind) -> np.ndarray | None:
    """Where a block has no value, by itself or by the file's flags; None where it has all."""
    with_value = _has_value(block, kind)
    if with_value is None:
        return flagged
    return ~with_value if flagged is None else ~with_value | flagged


def flagged_blocks(measured: Measured) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Blocks of frames with the first one's number, and what the file's flags mark bad in them."""
    if measured.flags is None:
        for first, block in measured.frames.blocks():
            yield first, block, None
        return
    bad, marks = measured.flags.bad, measured.flags.marks.blocks()
    of_all = measured.flags.marks.shape[0] == 1
    flagged = np.empty((0, *measured.frames.shape[1:]), bool)  # of this block and those to come
    for first, block in measured.frames.blocks():
        while len(flagged) < (1 if of_all else len(block)):
            flagged = np.concatenate([flagged, bad(next(marks)[1])])
        if of_all:
            yield first, block, np.broadcast_to(flagged, block.shape)
        else:
            yield first, block, flagged[: len(block)]
            flagged = flagged[len(block) :]


# --- pixels that measured nothing -----------------------------------------------------------------


def without_value(statistics: Statistics, kind: Kind) -> Bool[np.ndarray, "h w"]:
    """Pixels that hold the same mark of having nothing in every frame.

    A negative whole number, or the highest value of a type.
    """
    measured = statistics.valid > 0
    lowest, highest = (np.where(measured, of, 0) for of in (statistics.lowest, statistics.highest))
    value = highest if kind == "intensity" else np.square(highest)
    marks = np.isclose(value[..., None], NOTHING, rtol=1e-6, atol=0).any(axis=-1)
    whole = (highest == np.rint(highest)) & (lowest == np.rint(lowest))
    return ((lowest == highest) & marks) | ((highest < 0) & whole)


def gaps(statistics: Statistics, good: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Whole rows and columns without a single count between rows and columns that have many.

    What a file has where its detector has no sensor, if it marks it at all.
    """
    gap = np.zeros(good.shape, bool)
    for axis in (0, 1):
        lines = np.where(good, statistics.total, 0).sum(axis=1 - axis)
        lit = np.flatnonzero(lines > 0)
        for before, after in pairwise(lit):
            if after - before > 1 and min(lines[before], lines[after]) > GAP_SHARE * lines.max():
                index = (slice(before + 1, after), slice(None))
                gap[index if axis == 0 else index[::-1]] = True
    return gap & good


def dead(statistics: Statistics, good: np.ndarray, in_the_corner: bool) -> Bool[np.ndarray, "h w"]:
    """Areas without a single count that are lit from all sides: dead, or behind a beam stop.

    Up, down, left and right of each pixel the next pixel with a count has many photons, and none
    beside the area has few. With zero frequency in the corner, the next pixel beyond the frame's
    edge is at the other one; else nothing is known of what is beyond. Where light does not come,
    some are dim, as it ends by degrees. Should it end sharply, so that the pixels beside what is
    dark without a doubt are bright, too, nothing is called dead.
    """
    total = np.where(good, statistics.total, 0)
    lit = total > 0
    none = np.zeros(good.shape, bool)
    if lit.all() or not lit.any():
        return none
    # No photon is more than this: of x photons a frame Σx² ≥ Σx, and equal where x is 0 or 1.
    photon = np.quantile(statistics.squares[lit] / total[lit], 0.01)
    dimmest = np.full(good.shape, np.inf)
    for axis in (0, 1):
        for turned in (False, True):
            seen = np.flip(total, axis) if turned else total
            seen = _next_lit(seen, axis, in_the_corner)
            np.minimum(dimmest, np.flip(seen, axis) if turned else seen, out=dimmest)
    doubtful = (dimmest <= DEAD * photon) | _beside(lit & (total <= DEAD * photon))
    if (lit | doubtful).all():
        return none
    from scipy.ndimage import label

    areas, _ = label(~lit, np.ones((3, 3)))
    dark = np.isin(areas, areas[~lit & doubtful])
    rim = lit & _beside(dark & good)
    if rim.any() and np.median(total[rim]) > DEAD * photon:
        return none
    return ~lit & ~dark & good


def _beside(which: np.ndarray) -> np.ndarray:
    """These pixels and the eight around each, around the frame's edge too."""
    rows = which | np.roll(which, 1, 0) | np.roll(which, -1, 0)
    return rows | np.roll(rows, 1, 1) | np.roll(rows, -1, 1)


def _next_lit(total: np.ndarray, axis: int, around: bool) -> np.ndarray:
    """What the nearest pixel with counts before each has; 0 where none has any.

    Args:
        around: whether the last one is before the first one.
    """
    numbers = np.arange(total.shape[axis], dtype=np.int32)
    numbers = numbers.reshape((-1, 1) if axis == 0 else (1, -1))
    before = np.maximum.accumulate(np.where(total > 0, numbers, np.int32(-1)), axis=axis)
    last = before.take([-1], axis=axis)
    found = np.take_along_axis(total, np.where(before < 0, last, before), axis=axis)
    return found if around else np.where(before < 0, 0.0, found)


def hot(statistics: Statistics, good: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Single pixels that are far brighter than all around them, and always alike.

    A diffraction pattern that is sampled finely enough has no such pixel.
    """
    mean = np.where(good, statistics.mean, 0)
    spread = np.maximum(statistics.squares / np.maximum(statistics.valid, 1) - mean**2, 0)
    steady = spread <= np.square(HOT_SPREAD * mean)
    return isolated(mean) & steady & good & (statistics.valid > 0)


def isolated(mean: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Pixels far brighter than those around them that hold a share of all counts by themselves."""
    padded = np.pad(mean, NEIGHBOURHOOD // 2, mode="edge")
    bright = mean > BRIGHT_SHARE * mean.sum()
    around = np.lib.stride_tricks.sliding_window_view(padded, (NEIGHBOURHOOD,) * 2)[bright]
    around = around.reshape(-1, NEIGHBOURHOOD**2)  # none, where no pixel is so bright
    bright[bright] = mean[bright] > HOT * np.median(around, axis=1)
    return bright


def whole_numbers(frames: Frames) -> bool:
    """Whether the first frames that are not empty hold nothing but whole numbers."""
    for _, block in frames.blocks():
        finite = block if block.dtype.kind in "iu" else block[np.isfinite(block)]
        if not finite.any():
            continue
        return block.dtype.kind in "iu" or bool((finite == np.rint(finite)).all())
    return False
