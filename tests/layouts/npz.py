"""What is kept in NPZ files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fno_runner.config import N
from tests.layouts.registry import layout, marked
from tests.scans import PIXEL, Simulated


def raw(scan: Simulated, **changed: Any) -> dict[str, Any]:
    counts, bad = marked(scan)
    arrays = {
        "diff3d": np.sqrt(counts),
        "probeGuess": scan.probe,
        "objectGuess": scan.obj,
        "xcoords": scan.positions[:, 1],
        "ycoords": scan.positions[:, 0],
        "mask": ~bad,
        "pixel_size_m": PIXEL,
    }
    return {k: v for k, v in (arrays | changed).items() if v is not None}


@layout("raw.npz", "raw NPZ", "object", "probe", "pixel", "mask")
def write_raw(path: Path, scan: Simulated) -> None:
    np.savez(path, **raw(scan))


@layout("compressed.npz", "raw NPZ", "object", "probe", "pixel", "mask")
def write_raw_compressed(path: Path, scan: Simulated) -> None:
    """With the axis of channels that grid lines have, and bytes the other way round."""
    frames = raw(scan)["diff3d"].astype(">f4")[..., None]
    np.savez_compressed(path, **raw(scan, diff3d=frames))


@layout("hwf.npz", "raw NPZ", "object", "probe", "pixel", "mask")
def write_raw_frames_last(path: Path, scan: Simulated) -> None:
    frames = np.ascontiguousarray(raw(scan)["diff3d"].transpose(1, 2, 0))
    np.savez(path, **raw(scan, diff3d=frames, probeGuess=scan.probe.transpose(1, 2, 0)))


@layout("fortran.npz", "raw NPZ", "object", "probe", "pixel", "mask")
def write_raw_fortran(path: Path, scan: Simulated) -> None:
    np.savez_compressed(path, **raw(scan, diff3d=np.asfortranarray(raw(scan)["diff3d"])))


@layout("slac.npz", "raw NPZ", "object", "probe")
def write_slac(path: Path, scan: Simulated) -> None:
    """SLAC's: (H, W, F) as a view of (F, H, W), so in Fortran order, and start positions only."""
    np.savez(path, diffraction=np.sqrt(scan.counts).T.swapaxes(0, 1), probeGuess=scan.probe[0],
             objectGuess=scan.obj, xcoords_start=scan.positions[:, 1],
             ycoords_start=scan.positions[:, 0])  # fmt: skip


@layout("export.npz", "raw NPZ", "object", "probe", "mask")
def write_ptychodus_export(path: Path, scan: Simulated) -> None:
    """Counts under the amplitudes' name, coordinates of the middle pixel, bad pixels zeroed."""
    counts, bad = marked(scan)
    counts[:, bad] = 0
    x, y = scan.positions[:, 1] - 0.5, scan.positions[:, 0] - 0.5
    np.savez(path, diff3d=counts.astype(np.uint32), bad_pixels=bad, probeGuess=scan.probe,
             objectGuess=scan.obj, xcoords=x, ycoords=y, xcoords_start=x, ycoords_start=y,
             scan_index=np.zeros(len(counts), int))  # fmt: skip


@layout("tike.npz", "tike", "object", "probe")
def write_tike(path: Path, scan: Simulated) -> None:
    """Zero frequency in the corner; `scan` names the patches' first pixels in `psi`."""
    np.savez(path, data=np.fft.ifftshift(scan.counts, axes=(1, 2))[None].astype("f4"),
             scan=(scan.positions - N // 2)[None], probe=scan.probe[None, None, None],
             psi=scan.obj[None])  # fmt: skip
