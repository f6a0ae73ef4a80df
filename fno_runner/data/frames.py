"""A scan as an instrument made it, whatever file it came in, brought to N × N."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64, Int64

from fno_runner.config import SIZES
from fno_runner.data.crop import (
    Crop,
    all_good,
    alternatives,
    binned,
    choose_size,
    is_filled,
    reason,
    resample_probe,
    window,
)
from fno_runner.data.measured import frames_a_block
from fno_runner.data.recording import Recording
from fno_runner.errors import UserError

MAX_OBJECT = 16_384
"""Largest side of an object [px]: positions beyond it are not in pixels."""


FrameBlocks = Iterator[tuple[Int64[np.ndarray, " b"], Float32[np.ndarray, "b n n"]]]
"""Frames a block at a time: their numbers in `positions`, and their amplitudes."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A scan but for its frames: where they were taken, what is known of instrument and object.

    mask: bool (N, N), true at good pixels; None where all are good.
    probe: complex64 (M, N, N), incoherent modes, or None where the file has none.
    positions: float64 (F, 2), row and column [px]; a patch is obj[row − N/2 : row + N/2, …].
    indexes: int64 (F,), what the file calls each frame, or which one it is, from 0 on; some may
        have been left out.
    pixel_size: of the object [m]. energy: of a photon [J]. distance: of the detector [m]. Each
        where the file tells.
    reference: complex64 (H, W), another method's object, at the same positions.
    source: which format and file.
    crop: which part of the detector these frames are. alternatives: what others would hold.
    remarks: what a user should know, a line each.
    """

    mask: Bool[np.ndarray, "n n"] | None
    probe: Complex64[np.ndarray, "m n n"] | None
    positions: Float64[np.ndarray, "f 2"]
    indexes: Int64[np.ndarray, " f"]
    pixel_size: float | None
    energy: float | None = None
    distance: float | None = None
    reference: Complex64[np.ndarray, "h w"] | None
    source: str
    crop: Crop
    alternatives: tuple[Crop, ...] = ()
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def size(self) -> int:
        """N, the side of a frame [px]."""
        return self.crop.size

    @property
    def shape(self) -> tuple[int, int]:
        """The object's (H, W) [px]: the reference's, else what the positions reach."""
        if self.reference is not None:
            height, width = self.reference.shape
            return height, width
        extent = np.ceil(self.positions.max(axis=0)).astype(int) + self.size // 2 + 1
        return int(extent[0]), int(extent[1])


@dataclass(frozen=True, kw_only=True)
class Scan(Outline):
    """A scan with all its frames in memory.

    amplitude: float32 (F, N, N), zero frequency at [N/2, N/2]; 0 at bad pixels.
    """

    amplitude: Float32[np.ndarray, "f n n"]

    def blocks(self) -> FrameBlocks:
        """All frames in order, a block at a time."""
        step = frames_a_block(self.amplitude.shape, self.amplitude.dtype)
        for rows in np.split(np.arange(len(self)), range(step, len(self), step)):
            yield rows, self.amplitude[rows[0] : rows[-1] + 1]


def bring_to_size(recording: Recording, size: int | None = None, binning: int = 1) -> Scan:
    """A recording as a `Scan` of N × N px: cropped or padded about its centre, or binned.

    Frames are read and cropped a block at a time.

    Args:
        size, binning: as `outline` takes them.

    Raises:
        UserError: it cannot be a scan, or fills less than half of N; says why in one line.
    """
    told = outline(recording, size, binning)
    scan = with_frames(told, amplitudes(recording, told.crop))
    mean_intensity(scan, scan.blocks())
    return scan


def with_frames(scan: Outline, blocks: FrameBlocks, **placed: np.ndarray) -> Scan:
    """A scan with all its frames in memory; or others of the same, with what `placed` says of them
    (`positions`, `indexes`)."""
    facts = vars(scan) | placed
    amplitude = np.zeros((len(facts["positions"]), scan.size, scan.size), np.float32)
    for rows, block in blocks:
        amplitude[rows] = block
    return Scan(**facts | {"amplitude": amplitude})


def mean_intensity(scan: Outline, blocks: FrameBlocks) -> float:
    """Σ A² of a frame, mean over the scan.

    Raises:
        UserError: frames without counts, or all alike, are no scan.
    """
    total, first, differ = 0.0, None, False
    for _, amplitude in blocks:
        first = amplitude[0].copy() if first is None else first
        differ = differ or bool((amplitude != first).any())
        total += float(np.square(amplitude).sum(dtype=np.float64))
    if total == 0:
        reach = scan.crop.reach
        raise UserError(
            f"{scan.source}: no counts at all within the central {reach}×{reach} good pixels"
        )
    if not differ and len(scan) > 1:
        raise UserError(f"{scan.source}: all {len(scan)} frames are equal; a scan's are not")
    return total / len(scan)


def outline(recording: Recording, size: int | None = None, binning: int = 1) -> Outline:
    """What a recording is, brought to N × N px; its frames stay where they are.

    Padding counts as bad pixels.

    Args:
        size: N; by default `choose_size` chooses.
        binning: this many detector pixels a side are summed to one, which is good where all are.
            The object's pixel is as much smaller and its window as much narrower: what the probe
            has beyond it is cut off.

    Raises:
        UserError: it cannot be a scan, or fills less than half of N; says why in one line.
    """
    measured = recording.measured
    path = measured.path
    n = choose_size(recording, binning) if size is None else size
    crop = Crop.of(recording, n, binning)
    reach = crop.reach
    if not is_filled(recording, n, binning):
        height, width = recording.frame_shape
        allowed = [str(n) for n in SIZES if is_filled(recording, n, binning)]
        binned_by = "" if binning == 1 else f" with bin={binning}"
        raise UserError(
            f"{path}: patch_size={n}{binned_by}: allowed is {' | '.join(allowed) or 'none'}, of "
            f"which frames of {height}×{width} px fill half"
        )
    good = all_good(window(recording.mask, recording.centre, reach), binning)
    if not good.any():
        raise UserError(f"{path}: the mask hides every pixel of the central {reach}×{reach}")
    remarks = [*recording.remarks, *crop.remarks(recording)]
    remarks += reason(recording, crop) if size is None else []
    scale = reach / recording.side
    reference = measured.reference
    if reference is not None and recording.frame_shape != (reach, reach):
        reference = None
        remarks.append("the file's object is sampled otherwise and left out")
    probe, pixel = recording.probe, measured.pixel_size
    scan = Outline(
        mask=None if good.all() else good,
        probe=None if probe is None else resample_probe(probe, n, binning),
        positions=recording.positions * scale,
        indexes=recording.indexes,
        pixel_size=None if pixel is None else pixel / scale,
        energy=measured.energy,
        distance=measured.distance,
        reference=None if reference is None else reference.astype(np.complex64),
        source=f"{measured.format}: {path}",
        crop=crop,
        alternatives=tuple(alternatives(recording)),
        remarks=tuple(remarks),
    )
    return _placed(scan, path)


def amplitudes(recording: Recording, crop: Crop) -> FrameBlocks:
    """All frames about the detector's centre; the file is read anew each time."""
    centre, binning = recording.centre, crop.binning
    good = all_good(window(recording.mask, centre, crop.reach), binning)
    for rows, intensity in recording.intensities():
        amplitude = np.sqrt(binned(window(intensity, centre, crop.reach), binning) * good)
        yield rows, amplitude.astype(np.float32, copy=False)


def _placed(scan: Outline, path: Path) -> Outline:
    """The scan with positions that fit in its object; an object that is too small is left out."""
    positions, half = scan.positions, scan.size // 2
    spread = np.ptp(positions, axis=0)
    if spread.max() < 1:
        raise UserError(f"{path}: all positions are within {spread.max():.2g} px; nothing overlaps")
    if spread.max() + scan.size > MAX_OBJECT:
        raise UserError(
            f"{path}: positions reach over {spread.max():.4g} px; at most {MAX_OBJECT} px are an "
            f"object: are the units right?"
        )
    remarks = list(scan.remarks)
    if scan.probe is not None and spread.max() < (beam := beam_diameter(scan.probe)):
        remarks.append(
            f"the whole scan spans {spread.max():.2g} px, less than its beam of {beam:.1f} px: are "
            f"the positions' units right?"
        )
    reach, of = (scan.size, "frame") if scan.probe is None else (beam_diameter(scan.probe), "beam")
    if (apart := step(positions)) > reach:
        remarks.append(
            f"neighbours are {apart:.4g} px apart, more than the {of} of {reach:.3g} px: nothing "
            f"overlaps; are the positions' units right?"
        )
    if scan.reference is not None:
        first = np.rint(positions) - half
        outside = (first < 0).any(axis=1) | (first + scan.size > scan.reference.shape).any(axis=1)
        if not outside.any():
            return replace(scan, remarks=tuple(remarks))
        height, width = scan.reference.shape
        remarks.append(
            f"the file's object is left out: {int(outside.sum())} patches do not fit in its "
            f"{height}×{width} px"
        )
    placed = from_the_corner(positions, scan.size)
    return replace(scan, positions=placed, reference=None, remarks=tuple(remarks))


def from_the_corner(positions: Float64[np.ndarray, "f 2"], size: int) -> Float64[np.ndarray, "f 2"]:
    """Positions moved by whole pixels: an object begins with the first of their patches.

    Any origin will do where no object is compared with.
    """
    return np.asarray(positions - np.floor(positions.min(axis=0)) + size // 2)


def step(positions: Float64[np.ndarray, "f 2"]) -> float:
    """The median distance from a position to its nearest neighbour [px]."""
    from scipy.spatial import KDTree

    distance, _ = KDTree(positions).query(positions, k=[2])  # the nearest is the frame itself
    return float(np.median(distance))


def beam_diameter(probe: Complex64[np.ndarray, "m n n"]) -> float:
    """Diameter of a disk of the probe's effective area (Σ|P|²)² / Σ|P|⁴ [px]."""
    intensity = np.square(np.abs(probe)).sum(axis=0, dtype=np.float64)
    area = intensity.sum() ** 2 / np.square(intensity).sum()
    return float(2 * np.sqrt(area / np.pi))
