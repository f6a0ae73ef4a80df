"""What ptypy, pty-chi, fold_slice, NSLS-II and MATLAB write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fno_runner.config import N
from tests.layouts.npz import raw
from tests.layouts.ptychodus import product, size_product
from tests.layouts.registry import EV, layout, marked
from tests.scans import DISTANCE, ENERGY, PITCH, PIXEL, Simulated


@layout("scan.ptyd", "ptyd", "pixel", "geometry", "mask")
def write_ptyd(path: Path, scan: Simulated) -> None:
    """Chunks of 7 frames, of which 10 comes after 9 and not after 1; the last in another file."""
    counts, bad = marked(scan)
    starts = range(0, len(counts), 7)
    elsewhere = path.with_name("scan.ptyd.part")
    with h5py.File(path, "w") as file, h5py.File(elsewhere, "w") as linked:
        file["info/label"] = "scan"
        for name, value in (("energy", ENERGY / EV / 1e3), ("distance", DISTANCE), ("psize", PITCH),
                            ("shape", [N, N])):  # fmt: skip
            file[f"meta/{name}"] = value
        for number, first in enumerate(starts):
            rows = slice(first, first + 7)
            last = number == len(starts) - 1
            chunk = (linked if last else file).create_group(f"chunks/{number}")
            chunk["data"] = counts[rows]
            chunk["positions"] = scan.positions[rows] * PIXEL
            chunk["weights"] = np.broadcast_to(~bad, counts[rows].shape).astype(np.float32)
        file[f"chunks/{number}"] = h5py.ExternalLink(elsewhere.name, f"/chunks/{number}")


def write_pair(path: Path, scan: Simulated, parameters: dict[str, Any], sized: bool) -> None:
    stem = path.stem.removesuffix("_dp").removesuffix("_para")
    with h5py.File(path.with_name(f"{stem}_dp.hdf5"), "w") as file:
        file.create_dataset("dp", data=scan.counts, compression="gzip")
    with h5py.File(path.with_name(f"{stem}_para.hdf5"), "w") as file:
        for name, value in parameters.items():
            file[name] = value
        if sized:
            size_product(file)


def pair(scan: Simulated) -> dict[str, Any]:
    return {k: v for k, v in product(scan).items() if k != "probe_position_indexes"}


@layout("scan_dp.hdf5", "pty-chi pair", "object", "probe", "pixel")
@layout("other_para.hdf5", "pty-chi pair", "object", "probe", "pixel")
def write_product_pair(path: Path, scan: Simulated) -> None:
    items = product(scan)
    del items["probe_position_indexes"]
    write_pair(path, scan, items, True)


@layout("data_roi0_dp.hdf5", "pty-chi pair", "pixel")
def write_fold_slice(path: Path, scan: Simulated) -> None:
    y, x = (scan.positions * PIXEL).T
    write_pair(path, scan, {"ppX": x, "ppY": y, "dx": [PIXEL], "lambda": [1e-10]}, False)


@layout("scan_7.h5", "NSLS-II diffamp", "pixel", "geometry")
def write_nsls2(path: Path, scan: Simulated) -> None:
    with h5py.File(path, "w") as file:
        file["diffamp"] = np.fft.fftshift(np.sqrt(scan.counts), axes=(1, 2))
        file["points"] = scan.positions[:, ::-1].T * PIXEL * 1e6
        file["z_m"], file["ccd_pixel_um"] = DISTANCE, PITCH * 1e6
        file["lambda_nm"] = 1.98644586e-25 / ENERGY * 1e9


@layout("scan.mat", "raw NPZ", "object", "probe", "pixel", "mask")
def write_matlab(path: Path, scan: Simulated) -> None:
    """MATLAB 7.3 keeps the raw layout's arrays with all axes backwards, complex ones as pairs."""
    arrays = raw(scan, diff3d=raw(scan)["diff3d"].transpose(1, 2, 0))
    arrays["probeGuess"] = scan.probe.transpose(1, 2, 0)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            array = np.atleast_2d(np.asarray(array)).T
            if array.dtype.kind == "c":
                parts = np.empty(array.shape, [("real", "f4"), ("imag", "f4")])
                parts["real"], parts["imag"] = array.real, array.imag
                array = parts
            file[name] = array.astype(np.uint8) if array.dtype == bool else array
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
