"""An experimental scan as data to train on and to be scored on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Complex64

from fno_runner.config import N, centre
from fno_runner.data.crop import Crop
from fno_runner.data.dataset import Dataset, Freeform, Patterns
from fno_runner.data.formats import NONE, OpenScan, open_scan
from fno_runner.data.frames import Outline, Scan, bring_to_size
from fno_runner.data.recording import clean
from fno_runner.data.source import Hints
from fno_runner.errors import UserError

log = logging.getLogger("fno_runner")

HELD_OUT = 0.1
"""The share of the frames, here and there, that is never trained on."""
REGION = 0.05
"""The share of the frames, in one place, that is never trained on either."""


def load_scan(
    path: Path, seed: int, size: int | None = None, binning: int = 1, hints: Hints = NONE
) -> Dataset:
    """A scan of any format that `formats` knows; it has to have a probe.

    A tenth of the frames, chosen by `seed`, is held out, and so are the frames of one place. The
    object is stitched from all frames.

    Args:
        size, binning: as `bring_to_size` takes them.

    Raises:
        UserError: the file cannot be used; says why.
    """
    with open_scan(path, hints) as opened:
        scan = bring_to_size(clean(opened.measured), size, binning)
        fingerprint = fingerprint_of(opened, scan.crop)
    for remark in scan.remarks:
        log.warning("%s: %s", path, remark)
    if scan.probe is None:
        raise UserError(
            f"{path}: has no probe that can be used; python -m fno_runner.data probe finds one"
        )
    held_out, region = hold_out(scan.positions, seed)
    frames = patterns_of(scan)
    return Dataset(
        train=frames.take(~(held_out | region)),
        test=frames,
        held_out=held_out,
        geometry=Freeform(scan.shape),
        reference=None if scan.reference is None else scan.reference[None],
        reference_kind=None if scan.reference is None else "reference",
        fingerprint=fingerprint,
        region=region,
        pixel_size=scan.pixel_size,
        counts_held=scan.crop.counts,
    )


def fingerprint_of(opened: OpenScan, crop: Crop) -> str:
    """What the frames of a scan are: "<32 hex digits>-N128-bin2-intensity-entry_2".

    Its files' content; what they were made to, as far as version 0.1 would not have; what a user
    said of them.
    """
    size = None if crop.size == N else f"N{crop.size}"
    binning = None if crop.binning == 1 else f"bin{crop.binning}"
    content, hints = opened.source.fingerprint()[:32], opened.source.hints
    said = (content, size, binning, hints.data, hints.entry)
    return "-".join(part for part in said if part is not None)


def patterns_of(scan: Scan) -> Patterns:
    """All frames of a scan that has a probe."""
    return patterns(scan, scan.amplitude, np.arange(len(scan)))


def patterns(scan: Outline, amplitude: np.ndarray, rows: np.ndarray) -> Patterns:
    """Some frames of a scan that has a probe: those of these numbers."""
    # Patch [row − N/2, row + N/2) has its centre half a pixel before the row.
    positions = (scan.positions[rows] - scan.size // 2 + centre(scan.size)).astype(np.float32)
    return Patterns(amplitude, positions, probe_of(scan), scan.mask)


def probe_of(scan: Outline) -> Complex64[np.ndarray, "*m n n"]:
    """The probe of a scan that has one, as `Patterns` have it: (N, N) if it is one mode."""
    assert scan.probe is not None
    return np.ascontiguousarray(scan.probe[0] if len(scan.probe) == 1 else scan.probe)


def scan_of(patterns: Patterns, shape: tuple[int, int]) -> Scan:
    """Patterns as a scan of an object of this shape: the inverse of `patterns_of`."""
    size, probe = patterns.size, patterns.probe
    return Scan(
        amplitude=patterns.amplitude,
        mask=patterns.mask,
        probe=probe if probe.ndim == 3 else probe[None],
        positions=patterns.positions.astype(np.float64) - centre(size) + size // 2,
        indexes=np.arange(len(patterns)),
        pixel_size=None,
        reference=np.zeros(shape, np.complex64),  # which says how large the object is
        source="patterns",
        crop=Crop(size=size, binning=1, counts=1.0, light=None),
    )


def hold_out(positions: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which frames are held out, bool (F,) each: those here and there, and those of one place.

    A frame that neighbours were trained on shares most of its object with them; one amid a place
    that was left out shares none.
    """
    count = len(positions)
    rng = np.random.default_rng([seed, count])
    held_out, region = np.zeros(count, bool), np.zeros(count, bool)
    held_out[rng.choice(count, max(1, round(HELD_OUT * count)), replace=False)] = True
    # About a frame of the inner half: at the rim fewer neighbours could have told of the object.
    centre = np.median(positions, axis=0)
    from_centre = np.linalg.norm(positions - centre, axis=1)
    middle = positions[rng.choice(np.flatnonzero(from_centre <= np.median(from_centre)))]
    free = np.flatnonzero(~held_out)
    nearest = np.argsort(np.linalg.norm(positions[free] - middle, axis=1), kind="stable")
    region[free[nearest[: max(1, round(REGION * count))]]] = True
    return held_out, region
