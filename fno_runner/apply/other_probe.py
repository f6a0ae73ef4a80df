"""The probe that `--probe` names: another scan's, a reconstruction's, or that of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Complex64

from fno_runner.apply.model import find_model
from fno_runner.data.formats import NONE, open_scan, raw_npz
from fno_runner.data.formats.format import probe_modes
from fno_runner.data.formats.ptychodus import DIFFRACTION, POSITIONS, pixel_of
from fno_runner.data.frames import Outline, outline
from fno_runner.data.recording import clean
from fno_runner.data.source import Source
from fno_runner.errors import UserError

ALIKE = 0.03
"""The object's pixels of two scans of one beam differ by no more than this share of them."""


def other_probe(path: Path, scan: Outline) -> Complex64[np.ndarray, "m n n"]:
    """Another probe for a scan: of a file's beam, at the size and the binning of the scan's frames.

    Args:
        path: a scan's file in any format, object.npz or product.h5 of a reconstruction, or the
            folder of a model, whose training's probe it is.

    Raises:
        UserError: there is none, or it is of another size, binning or pixel.
    """
    probe, pixel = None, None
    if path.is_dir():
        model = find_model(path)
        probe, binning = model.training_probe(), model.config.bin
        if binning != scan.crop.binning:
            raise UserError(
                f"{path}: its probe is of frames with bin={binning}, the scan's have "
                f"bin={scan.crop.binning}"
            )
    elif (made := _of_a_reconstruction(path)) is not None:
        probe, pixel = made
    else:
        with open_scan(path) as opened:
            other = outline(clean(opened.measured), scan.size, scan.crop.binning)
        probe, pixel = other.probe, other.pixel_size
    if probe is None:
        raise UserError(f"{path}: has no probe")
    if probe.shape[1:] != (scan.size, scan.size):
        raise UserError(f"{path}: its probe has {probe.shape[1]} px, the frames have {scan.size}")
    ours = scan.pixel_size
    if pixel is not None and ours is not None and abs(pixel / ours - 1) > ALIKE:
        raise UserError(
            f"{path}: its probe has pixels of {1e9 * pixel:.4g} nm, the scan's object of "
            f"{1e9 * ours:.4g} nm (--pixel-size tells it otherwise)"
        )
    return probe


def _of_a_reconstruction(path: Path) -> tuple[Complex64[np.ndarray, "m n n"], float | None] | None:
    """Probe and pixel [m] of a file that has no frames beside them; None for any other file.

    Raises:
        UserError: it cannot be read, or what it calls its probe is none.
    """
    with Source(path, NONE) as source:
        file, pixel = source.file, None
        if file.has("probeGuess") and file.first(*raw_npz.FRAMES) is None:
            name = "probeGuess"
            pixel = file.number("pixel_size_m") if file.has("pixel_size_m") else None
        elif file.has(POSITIONS[1]) and file.has("probe_position_indexes"):
            if file.has("patterns") or source.beside(*DIFFRACTION) is not None:
                return None
            name, pixel = "probe", pixel_of(file)[0]
        else:
            return None
        probe = probe_modes(file, [], name)
    probe = probe[None] if probe is not None and probe.ndim == 2 else probe
    if probe is None or probe.ndim != 3 or not np.isfinite(probe).all() or not probe.any():
        raise UserError(f"{path}: '{name}' is no probe")
    return probe.astype(np.complex64), pixel
