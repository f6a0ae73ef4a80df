"""A scan's frames without what is wrong with single pixels and frames, in the detector's size.

This is the seam: a format's reader stops at `Measured`; `clean` makes of it a `Recording`; and
`frames.bring_to_size` crops or bins a `Recording`'s blocks to the frames of a `Scan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from fno_runner.data.measured import Measured
from fno_runner.errors import UserError

MIN_FRAMES = 16
"""Fewer frames are no scan."""
SATURATED_COUNT, SATURATED_TIMES = 255, 8
"""So many pixels at exactly the highest count, and that one so high, are no coincidence."""
FAR_OFF_CENTRE = 1.5
"""A pattern's centre of mass further than this from the middle is told [px]."""


@dataclass(frozen=True)
class Recording:
    """Frames of H × W px that are counts, or proportional to them, and can be read again and again.

    mean: (H, W), the mean intensity of a frame; 0 at bad pixels.
    mask: (H, W), true at good pixels.
    centre: the pixel of zero frequency, row and column.
    positions: (F, 2), row and column [px] of an object that is sampled as a probe of `side` px is.
        A window of n detector pixels sees λ·z / (n · detector pixel) [m] a pixel of the object, so
        positions are to be multiplied by n / side, and `pixel_size` divided by it.
    pixel_size: [m], of the sampling with `side`, where the file tells.
    probe: (M, S, S), its modes with the strongest first, S being the frames' side; None where the
        file has none.
    reference: (H', W'), another method's object, of the sampling with `side`.
    counts_held: the share of the detector's counts that the file's frames have.
    remarks: what a user should know, a line each.
    """

    path: Path
    format: str
    mean: Float64[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    centre: tuple[int, int]
    positions: Float64[np.ndarray, "f 2"]
    side: int
    pixel_size: float | None
    probe: Shaped[np.ndarray, "m s s"] | None
    reference: np.ndarray | None
    counts_held: float
    remarks: tuple[str, ...]
    _measured: Measured = field(repr=False)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of a frame [px]."""
        height, width = self.mask.shape
        return height, width

    def intensities(self) -> Iterator[tuple[slice, Float32[np.ndarray, "b h w"]]]:
        """Every frame in order, a block at a time: which frames, and their counts, 0 at bad pixels.

        Reads the file anew each time; a block has about 16 MiB. The square root of an intensity is
        the amplitude that the file has, to the last bit.

        Raises:
            UserError: the file is damaged, or has changed.
        """
        for first, block in self._measured.frames.blocks():
            yield slice(first, first + len(block)), _counts(block, self.mask, self._measured)


def clean(measured: Measured) -> Recording:
    """Read all frames once, and find out what is wrong with them.

    Raises:
        UserError: it cannot be a scan; says why in one line.
    """
    path, frames = measured.path, measured.frames
    if len(frames.shape) != 3 or 0 in frames.shape or frames.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: frames are {frames.dtype} {frames.shape}, not (frames, rows, columns)"
        )
    count, *pattern = frames.shape
    if count < MIN_FRAMES:
        raise UserError(f"{path}: {count} frames; at least {MIN_FRAMES} are needed")
    if measured.positions.shape != (count, 2):
        raise UserError(f"{path}: positions are {measured.positions.shape} for {count} frames")
    mask = np.ones(pattern, bool) if measured.mask is None else measured.mask.astype(bool)
    if list(mask.shape) != pattern:
        raise UserError(f"{path}: the mask is {mask.shape}, the frames are {tuple(pattern)}")
    if not mask.any():
        raise UserError(f"{path}: the mask hides every pixel")
    background = measured.background
    if background is not None and list(background.shape) != pattern:
        raise UserError(
            f"{path}: the background is {background.shape}, the frames are {tuple(pattern)}"
        )
    remarks = list(measured.remarks)
    mask = _without_dead_pixels(measured, mask, remarks)
    mean = _mean(measured, mask, remarks)
    probe = _probe(measured)
    middle = (mean.shape[0] // 2, mean.shape[1] // 2)
    mass = _centre_of_mass(mean)
    off = float(np.hypot(mass[0] - middle[0], mass[1] - middle[1]))
    if off > FAR_OFF_CENTRE:
        what = "left, as the probe says" if probe is not None else "moved to the middle"
        remarks.append(f"the pattern's centre is {off:.1f} px from the middle: {what}")
    return Recording(
        path=path,
        format=measured.format,
        mean=mean,
        mask=mask,
        # With a probe the middle is meant: it has its zero frequency there, too.
        centre=middle if probe is not None else (round(mass[0]), round(mass[1])),
        positions=measured.positions.astype(np.float64),
        side=measured.side,
        pixel_size=measured.pixel_size,
        probe=probe,
        reference=measured.reference,
        counts_held=measured.counts_held,
        remarks=tuple(remarks),
        _measured=measured,
    )


def _without_dead_pixels(measured: Measured, mask: np.ndarray, remarks: list[str]) -> np.ndarray:
    """The mask without pixels that have the highest value of their type in every frame."""
    if measured.frames.dtype.kind not in "iu":
        return mask
    highest = np.iinfo(measured.frames.dtype).max
    broken = mask.copy()
    for _, block in measured.frames.blocks():
        broken &= (block == highest).all(axis=0)
    if broken.any():
        remarks.append(f"{int(broken.sum())} pixels without a value in any frame are masked")
    return mask & ~broken


def _mean(measured: Measured, mask: np.ndarray, remarks: list[str]) -> np.ndarray:
    """The mean intensity of a frame, and what is remarkable about single values."""
    path = measured.path
    total = np.zeros(mask.shape)
    bad = negative = times = 0
    highest = -np.inf
    for _, block in measured.frames.blocks():
        values = block.astype(np.float32)
        bad += int((~np.isfinite(values[:, mask])).sum())
        if bad:
            continue
        negative += int((_without_background(values, mask, measured) < 0).sum())
        intensity = _counts(block, mask, measured)
        top = float(intensity.max())
        if top > highest:
            highest, times = top, 0
        times += int((intensity == top).sum()) if top == highest else 0
        total += intensity.sum(axis=0, dtype=np.float64)
    if bad:
        raise UserError(f"{path}: {bad} values of the frames are NaN or infinite at good pixels")
    if measured.background is not None:
        remarks.append(f"a background of {measured.background[mask].mean():.3g} was subtracted")
    if negative:
        if measured.kind == "amplitude":
            raise UserError(f"{path}: {negative} negative values; amplitudes are wanted")
        remarks.append(f"{negative} negative counts were set to 0")
    if highest >= SATURATED_COUNT and times >= SATURATED_TIMES:
        shown = highest if measured.kind == "intensity" else np.sqrt(highest)
        remarks.append(f"{times} values are at exactly {shown:g}, the highest: saturated?")
    return total / measured.frames.shape[0]


def _without_background(values: np.ndarray, mask: np.ndarray, measured: Measured) -> np.ndarray:
    """Float32 frames of a block less their background, 0 at bad pixels, in the file's kind."""
    values = values.copy()
    values[:, ~mask] = 0
    if measured.background is None:
        return values
    intensity = values if measured.kind == "intensity" else np.square(values)
    less = np.maximum(intensity - measured.background.astype(np.float32), 0) * mask
    return less if measured.kind == "intensity" else np.sqrt(less)


def _counts(block: np.ndarray, mask: np.ndarray, measured: Measured) -> np.ndarray:
    """Intensities of a block of frames, none of them below 0, and 0 at bad pixels."""
    values = _without_background(block.astype(np.float32), mask, measured)
    return np.maximum(values, 0) if measured.kind == "intensity" else np.square(values)


def _probe(measured: Measured) -> np.ndarray | None:
    """The probe as (M, S, S), S being the frames' side."""
    probe = measured.probe
    if probe is None:
        return None
    path = measured.path
    _, height, width = measured.frames.shape
    shape = probe.shape
    if probe.ndim == 2:
        probe = probe[None]
    if probe.ndim != 3 or probe.shape[1:] != (height, width) or height != width:
        raise UserError(f"{path}: the probe is {shape}, the frames are {height}×{width}")
    if not np.isfinite(probe).all():
        raise UserError(f"{path}: the probe has values that are NaN or infinite")
    if not probe.any():
        raise UserError(f"{path}: the probe is zero everywhere")
    # The strongest mode first, and none that is empty.
    power = np.square(np.abs(probe)).sum(axis=(1, 2), dtype=np.float64)
    order = np.argsort(-power, kind="stable")
    return probe[order[power[order] > 0]]


def _centre_of_mass(intensity: np.ndarray) -> tuple[float, float]:
    total = intensity.sum()
    if total <= 0:
        return intensity.shape[0] / 2, intensity.shape[1] / 2
    rows, cols = (np.arange(side) for side in intensity.shape)
    return (
        float((intensity.sum(axis=1) * rows).sum() / total),
        float((intensity.sum(axis=0) * cols).sum() / total),
    )
