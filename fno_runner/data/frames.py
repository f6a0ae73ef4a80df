"""A scan as an instrument made it, whatever file it came in, checked and brought to N × N."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64

from fno_runner.config import N
from fno_runner.errors import UserError

MIN_FRAMES = 16
"""Fewer frames are no scan."""
MAX_OBJECT = 16_384
"""Largest side of an object [px]: positions beyond it are not in pixels."""
SATURATED_COUNT, SATURATED_TIMES = 255, 8
"""So many pixels at exactly the highest count, and that one so high, are no coincidence."""
FAR_OFF_CENTRE = 1.5
"""A pattern's centre of mass further than this from the middle is told [px]."""


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


@dataclass(frozen=True)
class Measured:
    """What a loader found, in the file's own size and units.

    data: (F, H, W), of this kind. mask: bool (H, W), true at good pixels.
    background: (H, W), an intensity that is subtracted. probe: (M, S, S), or (S, S).
    positions: (F, 2), row and column [px] of an object that is sampled as a probe of `side` px is.
    pixel_size: [m], of that sampling.
    """

    path: Path
    format: str
    data: np.ndarray
    kind: Literal["amplitude", "intensity"]
    positions: np.ndarray
    side: int
    mask: np.ndarray | None = None
    background: np.ndarray | None = None
    probe: np.ndarray | None = None
    pixel_size: float | None = None
    reference: np.ndarray | None = None


def bring_to_size(measured: Measured) -> Scan:
    """Check what was measured and make it a `Scan` of N × N px.

    The background is subtracted, bad pixels are masked, the pattern is cropped or padded about its
    centre; padding counts as bad pixels. The centre is the middle where there is a probe, which
    has it there too, and the centre of mass of the mean pattern where there is none.

    Raises:
        UserError: it cannot be a scan; says why in one line.
    """
    path = measured.path
    data, mask, remarks = _clean(measured)
    frames, height, width = data.shape
    probe = _probe(measured)
    middle = (height // 2, width // 2)
    mean = data.mean(axis=0, dtype=np.float64)
    mass = _centre_of_mass(mean if measured.kind == "intensity" else mean**2)
    centre = middle if probe is not None else tuple(int(c) for c in np.rint(mass))
    off = float(np.hypot(mass[0] - middle[0], mass[1] - middle[1]))
    if off > FAR_OFF_CENTRE:
        what = "left, as the probe says" if probe is not None else "moved to the middle"
        remarks.append(f"the pattern's centre is {off:.1f} px from the middle: {what}")
    cut = _window(data, centre)
    good = _window(mask, centre)
    if not good.any():
        raise UserError(f"{path}: the mask hides every pixel of the central {N}×{N}")
    if (height, width) != (N, N):
        verb = "cropped" if min(height, width) > N else "brought"
        remarks.append(f"frames of {height}×{width} px {verb} to {N}×{N}")
    amplitude = np.sqrt(cut) if measured.kind == "intensity" else cut
    amplitude = np.ascontiguousarray(amplitude, np.float32)
    amplitude *= good
    if not amplitude.any():
        raise UserError(f"{path}: no counts at all within the central {N}×{N} good pixels")
    if (amplitude == amplitude[0]).all():
        raise UserError(f"{path}: all {frames} frames are equal; a scan's are not")
    scale = N / measured.side
    reference = measured.reference
    if reference is not None and measured.side != N:
        reference = None
        remarks.append("the file's object is sampled otherwise and left out")
    scan = Scan(
        amplitude=amplitude,
        mask=None if good.all() else good,
        probe=None if probe is None else resample_probe(probe),
        positions=measured.positions.astype(np.float64) * scale,
        pixel_size=None if measured.pixel_size is None else measured.pixel_size / scale,
        reference=None if reference is None else reference.astype(np.complex64),
        source=f"{measured.format}: {path}",
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


def _clean(measured: Measured) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The data without background, their mask, and remarks."""
    path, data = measured.path, measured.data
    if data.ndim != 3 or data.size == 0 or data.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: frames are {data.dtype} {data.shape}, not (frames, rows, columns)"
        )
    frames, *pattern = data.shape
    if frames < MIN_FRAMES:
        raise UserError(f"{path}: {frames} frames; at least {MIN_FRAMES} are needed")
    if measured.positions.shape != (frames, 2):
        raise UserError(f"{path}: positions are {measured.positions.shape} for {frames} frames")
    mask = np.ones(pattern, bool) if measured.mask is None else measured.mask.astype(bool)
    if list(mask.shape) != pattern:
        raise UserError(f"{path}: the mask is {mask.shape}, the frames are {tuple(pattern)}")
    if not mask.any():
        raise UserError(f"{path}: the mask hides every pixel")
    remarks = []
    if data.dtype.kind in "iu":
        # Detectors write the highest value of their type where a pixel has none.
        broken = (data == np.iinfo(data.dtype).max).all(axis=0) & mask
        if broken.any():
            mask = mask & ~broken
            remarks.append(f"{int(broken.sum())} pixels without a value in any frame are masked")
    data = data.astype(np.float32)
    bad = int((~np.isfinite(data[:, mask])).sum())
    if bad:
        raise UserError(f"{path}: {bad} values of the frames are NaN or infinite at good pixels")
    data[:, ~mask] = 0
    if measured.background is not None:
        if list(measured.background.shape) != pattern:
            raise UserError(
                f"{path}: the background is {measured.background.shape}, "
                f"the frames are {tuple(pattern)}"
            )
        intensity = data if measured.kind == "intensity" else np.square(data)
        data = np.maximum(intensity - measured.background.astype(np.float32), 0) * mask
        data = data if measured.kind == "intensity" else np.sqrt(data)
        remarks.append(f"a background of {measured.background[mask].mean():.3g} was subtracted")
    negative = int((data < 0).sum())
    if negative:
        if measured.kind == "amplitude":
            raise UserError(f"{path}: {negative} negative values; amplitudes are wanted")
        remarks.append(f"{negative} negative counts were set to 0")
        data = np.maximum(data, 0)
    highest = float(data.max())
    times = int((data == highest).sum())
    counts = highest if measured.kind == "intensity" else highest**2
    if counts >= SATURATED_COUNT and times >= SATURATED_TIMES:
        remarks.append(f"{times} values are at exactly {highest:g}, the highest: saturated?")
    return data, mask, remarks


def _probe(measured: Measured) -> np.ndarray | None:
    """The probe as (M, S, S), S being the frames' side."""
    probe = measured.probe
    if probe is None:
        return None
    path = measured.path
    _, height, width = measured.data.shape
    if probe.ndim == 2:
        probe = probe[None]
    if probe.ndim != 3 or probe.shape[1:] != (height, width) or height != width:
        raise UserError(
            f"{path}: the probe is {measured.probe.shape if measured.probe is not None else ()}, "
            f"the frames are {height}×{width}"
        )
    if not np.isfinite(probe).all():
        raise UserError(f"{path}: the probe has values that are NaN or infinite")
    if not probe.any():
        raise UserError(f"{path}: the probe is zero everywhere")
    # The strongest mode first, and none that is empty.
    power = np.square(np.abs(probe)).sum(axis=(1, 2), dtype=np.float64)
    order = np.argsort(-power, kind="stable")
    return probe[order[power[order] > 0]]


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


def _centre_of_mass(intensity: np.ndarray) -> tuple[float, float]:
    total = intensity.sum()
    if total <= 0:
        return intensity.shape[0] / 2, intensity.shape[1] / 2
    rows, cols = (np.arange(side) for side in intensity.shape)
    return (
        float((intensity.sum(axis=1) * rows).sum() / total),
        float((intensity.sum(axis=0) * cols).sum() / total),
    )


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
