"""A scan as an instrument made it, whatever file it came in, brought to N × N."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64

from fno_runner.config import N
from fno_runner.data.recording import Recording
from fno_runner.errors import UserError

MAX_OBJECT = 16_384
"""Largest side of an object [px]: positions beyond it are not in pixels."""


@dataclass(frozen=True)
class Scan:
    """Frames, where they were taken, and what is known of instrument and object.

    amplitude: float32 (F, N, N), zero frequency at [N/2, N/2]; 0 at bad pixels.
    mask: bool (N, N), true at good pixels; None where all are good.
    probe: complex64 (M, N, N), incoherent modes, or None where the file has none.
    positions: float64 (F, 2), row and column [px]; a patch is obj[row − N/2 : row + N/2, …].
    pixel_size: of the object [m], where the file tells.
    reference: complex64 (H, W), another method's object, at the same positions.
    source: which format and file.
    remarks: what a user should know, a line each.
    """

    amplitude: Float32[np.ndarray, "f n n"]
    mask: Bool[np.ndarray, "n n"] | None
    probe: Complex64[np.ndarray, "m n n"] | None
    positions: Float64[np.ndarray, "f 2"]
    pixel_size: float | None
    reference: Complex64[np.ndarray, "h w"] | None
    source: str
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.amplitude)

    @property
    def shape(self) -> tuple[int, int]:
        """The object's (H, W) [px]: the reference's, else what the positions reach."""
        if self.reference is not None:
            height, width = self.reference.shape
            return height, width
        extent = np.ceil(self.positions.max(axis=0)).astype(int) + N // 2 + 1
        return int(extent[0]), int(extent[1])


def bring_to_size(recording: Recording) -> Scan:
    """A recording as a `Scan` of N × N px, cropped or padded about its centre.

    Frames are read and cropped a block at a time. Padding counts as bad pixels.

    Raises:
        UserError: it cannot be a scan; says why in one line.
    """
    path = recording.path
    remarks = list(recording.remarks)
    height, width = recording.size
    good = _window(recording.mask, recording.centre)
    if not good.any():
        raise UserError(f"{path}: the mask hides every pixel of the central {N}×{N}")
    if (height, width) != (N, N):
        verb = "cropped" if min(height, width) > N else "brought"
        remarks.append(f"frames of {height}×{width} px {verb} to {N}×{N}")
    amplitude = np.empty((len(recording), N, N), np.float32)
    for rows, intensity in recording.intensities():
        np.sqrt(_window(intensity, recording.centre), out=amplitude[rows])
    if not amplitude.any():
        raise UserError(f"{path}: no counts at all within the central {N}×{N} good pixels")
    if (amplitude == amplitude[0]).all():
        raise UserError(f"{path}: all {len(amplitude)} frames are equal; a scan's are not")
    scale = N / recording.side
    reference = recording.reference
    if reference is not None and recording.side != N:
        reference = None
        remarks.append("the file's object is sampled otherwise and left out")
    probe, pixel = recording.probe, recording.pixel_size
    scan = Scan(
        amplitude=amplitude,
        mask=None if good.all() else good,
        probe=None if probe is None else resample_probe(probe),
        positions=recording.positions * scale,
        pixel_size=None if pixel is None else pixel / scale,
        reference=None if reference is None else reference.astype(np.complex64),
        source=f"{recording.format}: {path}",
        remarks=tuple(remarks),
    )
    return _placed(scan, path)


def resample_probe(probe: Complex64[np.ndarray, "m s s"]) -> Complex64[np.ndarray, "m n n"]:
    """A probe of S × S px as N × N px of the same extent: its far field cropped or padded."""
    if probe.shape[-1] == N:
        return probe.astype(np.complex64)
    axes = (1, 2)
    far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes), norm="ortho"), axes)
    middle = (probe.shape[-1] // 2, probe.shape[-1] // 2)
    near = np.fft.ifft2(np.fft.ifftshift(_window(far, middle), axes), norm="ortho")
    return np.fft.fftshift(near, axes).astype(np.complex64)


def _placed(scan: Scan, path: Path) -> Scan:
    """The scan with positions that fit in its object."""
    positions = scan.positions
    if not np.isfinite(positions).all():
        raise UserError(f"{path}: positions are not finite numbers")
    spread = np.ptp(positions, axis=0)
    if spread.max() < 1:
        raise UserError(f"{path}: all positions are within {spread.max():.2g} px; nothing overlaps")
    if spread.max() + N > MAX_OBJECT:
        raise UserError(
            f"{path}: positions reach over {spread.max():.4g} px; at most {MAX_OBJECT} px are an "
            f"object: are the units right?"
        )
    if scan.reference is None:
        # Any origin will do.
        return replace(scan, positions=positions - np.floor(positions.min(axis=0)) + N // 2)
    first = np.rint(positions) - N // 2
    outside = (first < 0).any(axis=1) | (first + N > scan.reference.shape).any(axis=1)
    if outside.any():
        low, high = positions.min(axis=0), positions.max(axis=0)
        height, width = scan.reference.shape
        raise UserError(
            f"{path}: patches at rows {low[0]:.1f} … {high[0]:.1f} px, columns {low[1]:.1f} … "
            f"{high[1]:.1f} px do not fit in an object of {height}×{width} px "
            f"({int(outside.sum())} frames)"
        )
    return scan


def _window(array: np.ndarray, centre: tuple[int, ...]) -> np.ndarray:
    """The last two axes as N × N about `centre`, which comes to N/2; zeros where there is none."""
    out = np.zeros((*array.shape[:-2], N, N), array.dtype)
    into, out_of = [], []
    for middle, side in zip(centre, array.shape[-2:], strict=True):
        first = middle - N // 2
        low, high = max(first, 0), min(first + N, side)
        out_of.append(slice(low, high))
        into.append(slice(low - first, high - first))
    out[..., into[0], into[1]] = array[..., out_of[0], out_of[1]]
    return out
