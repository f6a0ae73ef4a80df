"""An experimental scan as data: the raw NPZ layout that ptychography groups exchange."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fno_runner.config import N
from fno_runner.data.dataset import (
    CENTRE,
    Dataset,
    Freeform,
    Patterns,
    load_optional_object,
    read_amplitude,
    read_coordinates,
    read_probe,
)
from fno_runner.data.npz import fingerprint
from fno_runner.errors import UserError

HELD_OUT = 0.1
"""The share of the frames that is never trained on."""
MIN_FRAMES = 16
"""Fewer frames are no scan."""
MAX_OBJECT = 16_384
"""Largest side of an object [px]: positions beyond it are not in pixels."""


def load_scan(path: Path, seed: int) -> Dataset:
    """A scan: `diff3d` or `diffraction`, `probeGuess`, `xcoords`, `ycoords`[, `objectGuess`].

    xcoords, ycoords [px] may be fractions: a patch is obj[y−N/2 : y+N/2, x−N/2 : x+N/2] at the
    nearest whole y and x, under the probe shifted by the remainder. A tenth of the frames, chosen
    by `seed`, is held out. The object is stitched from all frames.

    Raises:
        UserError: the file cannot be used; says why.
    """
    amplitude = read_amplitude(path, ("diff3d", "diffraction"))
    count = len(amplitude)
    if count < MIN_FRAMES:
        raise UserError(f"{path}: {count} frames; at least {MIN_FRAMES} are needed")
    probe = read_probe(path, ("probeGuess",))
    x, y = (read_coordinates(path, name, count) for name in ("xcoords", "ycoords"))
    if x.ndim != 1 or y.ndim != 1:
        raise UserError(f"{path}: 'xcoords' and 'ycoords' are not one number a frame")
    centres = np.stack([y, x], axis=1)
    reference = load_optional_object(path, "objectGuess")
    if reference is None:
        centres -= np.floor(centres.min(axis=0)) - N // 2
        extent = np.ceil(centres.max(axis=0)).astype(int) + N // 2 + 1
        shape = (int(extent[0]), int(extent[1]))
    else:
        shape = reference.shape[1:]
    first = np.rint(centres) - N // 2
    if first.min() < 0 or (first + N > shape).any() or max(shape) > MAX_OBJECT:
        raise UserError(
            f"{path}: patches at rows {y.min():.1f} … {y.max():.1f} px, columns {x.min():.1f} … "
            f"{x.max():.1f} px do not fit in an object of {shape[0]}×{shape[1]} px"
        )
    # Patch [y − N/2, y + N/2) has its centre half a pixel before y.
    positions = (centres - N // 2 + CENTRE).astype(np.float32)
    frames = Patterns(amplitude, positions, probe)
    held_out = np.zeros(count, bool)
    rng = np.random.default_rng([seed, count])
    held_out[rng.choice(count, max(1, round(HELD_OUT * count)), replace=False)] = True
    return Dataset(
        train=frames.take(~held_out),
        test=frames,
        held_out=held_out,
        geometry=Freeform(shape),
        reference=reference,
        reference_kind=None if reference is None else "reference",
        fingerprint=fingerprint(path)[:32],
    )
