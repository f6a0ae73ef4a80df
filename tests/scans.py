"""One simulated scan, written in every layout that beamlines and programs use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from fno_runner.config import N, RunConfig
from fno_runner.data.gridlines import grid_lines_object
from fno_runner.data.npz import write_npz
from fno_runner.data.probe import zone_plate_probe
from fno_runner.physics import amplitude_of, local_probe

SIDE = 128
"""Of the object [px]."""
ENERGY, DISTANCE, PITCH = 1.4e-15, 2.0, 75e-6
"""Photon energy [J], detector distance [m], detector pixel [m]."""
PIXEL = 1.98644586e-25 / ENERGY * DISTANCE / (N * PITCH)
"""Of the object [m]: λ·z / (N·pitch)."""


@dataclass(frozen=True)
class Simulated:
    """positions: (F, 2), row and column [px], of the raw layout; counts: (F, N, N)."""

    obj: np.ndarray
    probe: np.ndarray
    positions: np.ndarray
    counts: np.ndarray


def simulate_scan(modes: int = 1, frames: int = 60, photons: float = 1e7) -> Simulated:
    """A scan at fractional positions, with Poisson noise, of one or several incoherent modes."""
    rng = np.random.default_rng(1)
    obj = (grid_lines_object(rng)[:SIDE, :SIDE] / 4).astype(np.complex64)
    positions = rng.uniform(N // 2 + 1, SIDE - N // 2 - 1, size=(frames, 2))
    corner = np.rint(positions).astype(int) - N // 2
    y = (np.arange(N) - N // 2) / 10
    first = zone_plate_probe(RunConfig()) * np.float32(100)
    probe = np.stack([first * (0.7 * y[:, None]) ** m for m in range(modes)]).astype(np.complex64)
    shift = torch.from_numpy((positions - N // 2 - corner).astype(np.float32))[:, None]
    patches = torch.from_numpy(np.stack([obj[r : r + N, c : c + N] for r, c in corner]))
    amplitude = amplitude_of(patches[:, None], local_probe(torch.from_numpy(probe), shift))
    expected = np.square(amplitude[:, 0].numpy().astype(np.float64))
    scale = photons / expected.sum(axis=(1, 2)).mean()
    counts = rng.poisson(expected * scale).astype(np.float32)
    return Simulated(obj, (probe * np.sqrt(scale)).astype(np.complex64), positions, counts)


def raw_arrays(scan: Simulated) -> dict[str, np.ndarray]:
    """The raw NPZ layout."""
    return {
        "diff3d": np.sqrt(scan.counts),
        "probeGuess": scan.probe[0] if len(scan.probe) == 1 else scan.probe,
        "objectGuess": scan.obj,
        "xcoords": scan.positions[:, 1],
        "ycoords": scan.positions[:, 0],
    }


def write_raw(path: Path, scan: Simulated, **changed: Any) -> Path:
    """Write the raw layout; `changed` arrays replace or add, None leaves one out."""
    arrays = raw_arrays(scan) | changed
    write_npz(path, {key: value for key, value in arrays.items() if value is not None})
    return path


def write_cxi(path: Path, scan: Simulated, **changed: Any) -> Path:
    """Write CXI; `changed` names datasets below entry_1 with "__" for "/", None leaves one out."""
    metres = np.zeros((len(scan.counts), 3))
    metres[:, 1], metres[:, 0] = (scan.positions * PIXEL).T
    datasets: dict[str, Any] = {
        "instrument_1__detector_1__data": scan.counts.astype(np.uint32),
        "instrument_1__detector_1__distance": DISTANCE,
        "instrument_1__detector_1__x_pixel_size": PITCH,
        "instrument_1__detector_1__y_pixel_size": PITCH,
        "instrument_1__source_1__energy": ENERGY,
        "instrument_1__source_1__probe": scan.probe,
        "sample_1__geometry_1__translation": metres,
    } | changed
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        entry = file.create_group("entry_1")
        for name, value in datasets.items():
            if value is not None:
                entry.create_dataset(name.replace("__", "/"), data=value)
        entry.require_group("data_1")
        for link, target in (
            ("data", "instrument_1/detector_1/data"),
            ("translation", "sample_1/geometry_1/translation"),
        ):
            entry[f"data_1/{link}"] = h5py.SoftLink(f"/entry_1/{target}")
    return path


def product_arrays(scan: Simulated) -> dict[str, np.ndarray]:
    """A ptychodus product: metres from the object's centre."""
    metres = (scan.positions - SIDE / 2) * PIXEL
    return {
        "probe": scan.probe[None],
        "object": scan.obj[None],
        "probe_position_indexes": np.arange(len(scan.counts)),
        "probe_position_x_m": metres[:, 1],
        "probe_position_y_m": metres[:, 0],
    }


def write_product_h5(path: Path, scan: Simulated) -> Path:
    """Write a ptychodus product, and its patterns as diffraction.h5 beside it, in another order."""
    with h5py.File(path, "w") as file:
        file.attrs["detector_object_distance_m"] = DISTANCE
        for name, array in product_arrays(scan).items():
            file[name] = array
        for name in ("probe", "object"):
            file[name].attrs["pixel_width_m"] = file[name].attrs["pixel_height_m"] = PIXEL
        file["object"].attrs["center_x_m"] = file["object"].attrs["center_y_m"] = 0.0
    with h5py.File(path.with_name("diffraction.h5"), "w") as file:
        file["patterns"] = scan.counts[::-1].astype(np.uint32)
        file["indexes"] = np.arange(len(scan.counts))[::-1]
        file["bad_pixels"] = np.zeros((N, N), bool)
    return path


def write_product_npz(path: Path, scan: Simulated) -> Path:
    """Write a ptychodus product as NPZ, patterns included."""
    sizes = {
        f"{name}_{key}": np.array(value)
        for name in ("object", "probe")
        for key, value in (("pixel_width_m", PIXEL), ("center_x_m", 0.0), ("center_y_m", 0.0))
    }
    write_npz(path, product_arrays(scan) | sizes | {"patterns": scan.counts})
    return path
