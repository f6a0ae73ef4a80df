"""A scan's frames without what is wrong with single pixels and frames, in the detector's size.

This is the seam: a format's reader stops at `Measured`; `clean` makes of it a `Recording`; and
`frames.bring_to_size` crops or bins a `Recording`'s blocks to the frames of a `Scan`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64, Int64

from fno_runner.data import pixels
from fno_runner.data.kept import (
    LACKING,
    LOST_BEAM,
    MIN_FRAMES,
    KeptFrames,
    kept_frames,
    lacked,
    usable_monitor,
)
from fno_runner.data.measured import Flags, Measured
from fno_runner.data.pattern import (
    centre_of,
    lies_about_the_corner,
    tell_of_a_bright_rim,
    tell_of_a_near_field,
    to_the_middle,
    zero_is_in_the_corner,
)
from fno_runner.data.pixels import Statistics
from fno_runner.errors import UserError

SATURATED_COUNT, SATURATED_TIMES = 255, 8
"""So many pixels at exactly the highest count, and that one so high, are no coincidence."""
PLACES = 3
"""So many pixels are named by their places."""
MAX_PIXELS = 2**26
"""A frame of more pixels than this is no detector's: what is found out takes 72 bytes for each."""
HIDDEN = 0.95
"""A mask of most pixels that hides more than this of all counts is meant the other way round."""


@dataclass(frozen=True)
class Recording:
    """Frames of H × W px that are counts, or proportional to them, and can be read again and again.

    measured: what was read; energy, distance and pixel size, for example, are as the file has them.
    mean: (H, W), the mean intensity of a frame; 0 at bad pixels.
    mask: (H, W), true at good pixels.
    centre: the pixel of zero frequency, row and column.
    positions: (F, 2), row and column [px] of an object that is sampled as a probe of `side` px is.
        A window of n detector pixels sees λ·z / (n · detector pixel) [m] a pixel of the object, so
        positions are to be multiplied by n / side, and the file's pixel size divided by it.
    probe: (M, S, S), its modes with the strongest first, S being the frames' side; None where the
        file has none.
    remarks: what a user should know, a line each.
    """

    measured: Measured = field(repr=False)
    mean: Float64[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    centre: tuple[int, int]
    positions: Float64[np.ndarray, "f 2"]
    probe: Complex64[np.ndarray, "m s s"] | None
    remarks: tuple[str, ...]
    _kept: KeptFrames = field(repr=False)
    _in_the_corner: bool = False

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W) of a frame [px]."""
        height, width = self.mask.shape
        return height, width

    @property
    def side(self) -> int:
        """The frames' width [px], which positions are sampled for."""
        return self.measured.side

    @property
    def indexes(self) -> Int64[np.ndarray, " f"]:
        """What the file calls the frame of each position."""
        stored = np.argsort(self._kept.position, kind="stable")[-len(self) :]
        named = self.measured.indexes
        return stored if named is None else named[stored].astype(np.int64)

    def intensities(
        self,
    ) -> Iterator[tuple[Int64[np.ndarray, " b"], Float32[np.ndarray, "b h w"]]]:
        """Every frame once, a block at a time: its number in `positions`, and its counts.

        Counts are 0 at bad pixels. The file is read anew each time; a block has about 16 MiB. The
        square root of an intensity is the amplitude that the file has, to the last bit.

        Raises:
            UserError: the file is damaged, or has changed.
        """
        measured, kept = self.measured, self._kept
        for first, block, flagged in pixels.flagged_blocks(measured):
            stored = slice(first, first + len(block))
            chosen = kept.position[stored] >= 0
            if not chosen.all():
                block = block[chosen]
                flagged = None if flagged is None else flagged[chosen]
            if len(block) == 0:
                continue
            intensity = pixels.intensities(block, measured)
            if kept.filling is not None:
                lacks = pixels.lacking(block, flagged, measured.kind)
                if lacks is not None:
                    intensity = np.where(lacks, kept.filling, intensity)
            if kept.scale is not None:
                intensity *= kept.scale[stored][chosen, None, None]
            if self._in_the_corner:
                intensity = to_the_middle(intensity)
            intensity[:, ~self.mask] = 0
            yield kept.position[stored][chosen], intensity

    def going_on(self, later: Measured) -> Recording:
        """Later frames of the same scan, treated as these are: nothing is found out anew.

        Frames without a beam are left out: those with next to no counts, and those of which the
        monitor says so; and so are those that lack much of the pattern, as `kept_frames` says.

        Raises:
            UserError: they are of another size.
        """
        mine, stored = self.measured, later.frames.shape[0]
        if later.frames.shape[1:] != mine.frames.shape[1:]:
            sizes = f"{later.frames.shape[1:]}, those before {mine.frames.shape[1:]}"
            raise UserError(f"{later.path}: frames of {sizes} px")
        if not np.isfinite(later.positions).all():
            raise UserError(f"{later.path}: positions are not finite numbers")
        flags = None
        if mine.flags is not None and later.flags is not None:
            flags = Flags(later.flags.marks, mine.flags.bad)  # turned round, if these were
        mean = self.mean.astype(np.float32)
        if self._in_the_corner:
            mean = np.fft.ifftshift(mean)
        usual, scale, beam = self._kept.monitor, None, np.ones(stored, bool)
        if usual > 0 and later.monitor is not None:
            monitor = usable_monitor(later.monitor) / usual
            beam = monitor >= LOST_BEAM
            if self._kept.scale is not None:
                scale = (1 / np.maximum(monitor, LOST_BEAM)).astype(np.float32)
        whole = replace(
            self,
            measured=replace(later, kind=mine.kind, background=mine.background, flags=flags),
            positions=later.positions.astype(np.float64),
            _kept=KeptFrames(np.arange(stored), scale, mean, usual),
        )
        counts = np.zeros(stored)
        for rows, intensity in whole.intensities():
            counts[rows] = intensity.sum(axis=(1, 2), dtype=np.float64)
        share, _ = lacked(whole.measured, mean)
        lit = beam & (counts > LOST_BEAM * self.mean.sum()) & (share <= LACKING)
        position = np.where(lit, np.cumsum(lit) - 1, -1)
        kept = KeptFrames(position, scale, mean, usual)
        return replace(whole, positions=whole.positions[lit], _kept=kept)


def clean(measured: Measured) -> Recording:
    """Read all frames once, and find out what is wrong with them.

    Raises:
        UserError: it cannot be a scan; says why in one line.
    """
    remarks: list[str] = []
    measured = _checked(measured, remarks)
    measured, statistics = _surveyed(measured, remarks)
    good, worthless = _good_pixels(measured, statistics, remarks)
    _tell_of_counts(measured, statistics, good, remarks)
    mean = np.where(good, statistics.mean, 0)
    counts = statistics.counts - statistics.mean[worthless].sum()
    kept = kept_frames(
        measured,
        counts=counts,
        mean=mean,
        whole=bool((statistics.valid[good] == measured.frames.shape[0]).all()),
        remarks=remarks,
    )
    chosen = kept.position >= 0
    corner = zero_is_in_the_corner(mean, measured.in_the_corner, remarks)
    if corner:
        good, mean = to_the_middle(good), to_the_middle(mean)
    probe = _usable_probe(measured, remarks)
    centre = centre_of(mean, probe is not None, remarks)
    tell_of_a_bright_rim(mean, good, remarks)
    tell_of_a_near_field(measured, remarks)
    # Positions whose frames are left out go with them.
    left = np.sort(kept.position[chosen])
    position = np.full(len(chosen), -1)
    position[chosen] = np.searchsorted(left, kept.position[chosen])
    return Recording(
        measured=measured,
        mean=mean * (counts[chosen].mean() / counts[~statistics.blank].mean()),  # of kept frames
        mask=good,
        centre=centre,
        positions=measured.positions[left].astype(np.float64),
        probe=probe,
        remarks=(*measured.remarks, *remarks),
        _kept=replace(kept, position=position),
        _in_the_corner=corner,
    )


def _checked(measured: Measured, remarks: list[str]) -> Measured:
    """What was read, if shapes fit and numbers can be what they are called."""
    path, frames = measured.path, measured.frames
    if len(frames.shape) != 3 or 0 in frames.shape or frames.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: frames are {frames.dtype} {frames.shape}, not (frames, rows, columns)"
        )
    count, *pattern = frames.shape
    if (pixels_a_frame := math.prod(pattern)) > MAX_PIXELS:
        raise UserError(
            f"{path}: frames of {pixels_a_frame:,} px; at most {MAX_PIXELS:,} px are a frame"
        )
    if count < MIN_FRAMES:
        raise UserError(f"{path}: {count} frames; at least {MIN_FRAMES} are needed")
    positions = measured.positions
    placed = count if measured.of_frame is None else len(measured.of_frame)
    if positions.shape != (placed, 2):
        raise UserError(f"{path}: positions are {positions.shape} for {count} frames")
    if measured.flags is not None:
        marks = measured.flags.marks.shape
        if list(marks[1:]) != pattern or marks[0] not in (1, count):
            shown = marks[1:] if marks[0] == 1 else marks
            raise UserError(f"{path}: the mask is {shown}, the frames are {tuple(pattern)}")
    if measured.background is not None:
        with np.errstate(over="ignore"):
            background = measured.background.astype(np.float32)
        measured = replace(measured, background=background)
        why = None
        if list(background.shape) != pattern:
            why = f"it is {background.shape}, the frames are {tuple(pattern)}"
        elif not np.isfinite(background).any():
            why = "none of its values is a number"
        if why is not None:
            remarks.append(f"the file's dark or background is not subtracted: {why}")
            measured = replace(measured, background=None)
    if measured.kind == "amplitude" and not measured.settled and pixels.whole_numbers(frames):
        if not measured.counts_if_whole:
            raise UserError(
                f"{path}: '{measured.frames_name}' has whole numbers only, which amplitudes (roots "
                f"of counts) hardly are: say --data intensity (scan_data) if they are counts, "
                f"--data amplitude if they are not"
            )
        remarks.append(f"'{measured.frames_name}' has whole numbers only: they are read as counts")
        measured = replace(measured, kind="intensity")
    return measured


def _surveyed(measured: Measured, remarks: list[str]) -> tuple[Measured, Statistics]:
    """The statistics of all frames, and a mask the right way round."""
    background = measured.background
    if background is not None and not np.isfinite(background).all():
        # Where there is no background, nothing is known.
        measured = replace(measured, background=np.where(np.isfinite(background), background, 0))
    statistics = pixels.survey(measured)
    if measured.flags is not None:
        hidden, shown = statistics.hidden.sum(), statistics.total.sum()
        share = hidden / (hidden + shown) if hidden > 0 else 0.0
        most = statistics.flagged.mean() > measured.frames.shape[0] / 2
        every = bool((statistics.flagged == measured.frames.shape[0]).all())
        if share > HIDDEN and most and not every:
            bad = measured.flags.bad
            turned = Flags(measured.flags.marks, lambda marks: ~bad(marks))
            measured = replace(measured, flags=turned)
            remarks.append(
                f"the mask would hide {share:.2%} of the counts: it is read the other way round"
            )
            statistics = pixels.survey(measured)
        elif share > 0.5:
            remarks.append(f"the mask hides {share:.0%} of the counts")
    if background is not None:
        unknown = ~np.isfinite(background)
        statistics = replace(statistics, valid=np.where(unknown, 0, statistics.valid))
    return measured, statistics


def _good_pixels(
    measured: Measured, statistics: Statistics, remarks: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that measured something; and those that the file does not mark although they did not,
    so that they count in every frame's sum."""
    frames = measured.frames.shape[0]
    if (statistics.flagged == frames).all():
        raise UserError(f"{measured.path}: the mask hides every pixel")
    good = statistics.valid >= max(1, (~statistics.blank).sum() / 2)
    marked = pixels.without_value(statistics, measured.kind) & good
    nothing = marked | ((statistics.valid == 0) & (statistics.flagged < frames))
    if nothing.any():
        remarks.append(f"{int(nothing.sum())} pixels without a value in any frame are masked")
    good &= ~marked
    if not good.any():
        raise UserError(
            f"{measured.path}: no pixel has a value in half of the frames: they are NaN or "
            f"infinite, masked, or what a detector writes where it has nothing"
        )
    gap = pixels.gaps(statistics, good)
    if gap.any():
        remarks.append(
            f"{int(gap.sum())} pixels of rows or columns without a count between bright ones are "
            f"masked: a gap of the detector"
        )
    good &= ~gap
    seen = np.where(good, statistics.mean, 0)
    dead = pixels.dead(statistics, good, zero_is_in_the_corner(seen, measured.in_the_corner, []))
    if dead.any():
        remarks.append(
            f"{int(dead.sum())} pixels without a count amid bright ones, at {_places(dead)}, are "
            f"masked: dead, or behind a beam stop"
        )
    good &= ~dead
    hot = pixels.hot(statistics, good)
    if hot.any():
        remarks.append(f"{int(hot.sum())} hot pixels, at {_places(hot)}, are masked")
    return good & ~hot, marked | hot


def _places(which: np.ndarray) -> str:
    """'[3, 4], [3, 5], [9, 1], …'."""
    shown = ", ".join(f"[{row}, {col}]" for row, col in np.argwhere(which)[:PLACES])
    return f"{shown}{', …' if which.sum() > PLACES else ''}"


def _tell_of_counts(
    measured: Measured, statistics: Statistics, good: np.ndarray, remarks: list[str]
) -> None:
    """What is remarkable about single values at good pixels.

    Raises:
        UserError: values that no amplitude can have.
    """
    if measured.background is not None:
        remarks.append(f"a background of {measured.background[good].mean():.3g} was subtracted")
        if (share := pixels.never_above_background(measured, statistics)[good].mean()) > 0.5:
            remarks.append(
                f"it is above all frames in {share:.0%} of the pixels: another exposure?"
            )
    elif (negative := int(statistics.negative[good].sum())) > 0:
        if measured.kind == "amplitude":
            raise UserError(f"{measured.path}: {negative} negative values; amplitudes are wanted")
        remarks.append(f"{negative} negative counts were set to 0")
    highest = float(statistics.highest[good].max())
    times = int(statistics.at_highest[good & (statistics.highest == highest)].sum())
    counts = highest if measured.kind == "intensity" else highest**2
    dtype = measured.frames.dtype
    full = dtype.kind in "iu" and highest == np.iinfo(dtype).max
    if full or (counts >= SATURATED_COUNT and times >= SATURATED_TIMES):
        remarks.append(f"{times} values are at exactly {highest:g}, the highest: saturated?")


def _usable_probe(measured: Measured, remarks: list[str]) -> np.ndarray | None:
    """The probe as (M, S, S), S being the frames' side; None, and a remark, if it cannot be one.

    Raises:
        UserError: it cannot, and was asked for.
    """
    probe = measured.probe
    if probe is None:
        return None
    _, height, width = measured.frames.shape
    shape = probe.shape
    probe = probe[None] if probe.ndim == 2 else probe
    real = probe.dtype.kind in "fiu"
    probe = probe.astype(np.complex64) if real or probe.dtype.kind == "c" else probe
    why = None
    if probe.ndim != 3 or probe.shape[1:] != (height, width) or height != width:
        why = f"is {shape}, the frames are {height}×{width}"
    elif probe.dtype.kind != "c" or not np.isfinite(probe).all():
        why = "has values that are NaN or infinite"
    elif not probe.any():
        why = "is zero everywhere"
    elif real and len(probe) == 2:
        why = f"is {shape} of real numbers: two modes, or real and imaginary parts?"
    if why is not None:
        if measured.probe_named:
            raise UserError(f"{measured.path}: the probe {why}")
        remarks.append(f"the file's probe is left out: it {why}")
        return None
    if real:
        remarks.append("the probe has real numbers only: its phase is 0 everywhere")
    intensity = np.square(np.abs(probe))
    if lies_about_the_corner(intensity.sum(axis=0)):
        remarks.append("the probe lies about the corner of its array: it is brought to the middle")
        probe = to_the_middle(probe)
    # The strongest mode first, and none that is empty.
    power = intensity.sum(axis=(1, 2), dtype=np.float64)
    order = np.argsort(-power, kind="stable")
    return probe[order[power[order] > 0]]
