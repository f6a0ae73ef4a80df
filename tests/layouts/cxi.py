"""CXI, and NeXus files that name things alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fno_runner.config import N
from tests.layouts.registry import EV, RASTER, layout, marked
from tests.scans import DISTANCE, ENERGY, PITCH, PIXEL, Simulated

DETECTOR, INSTRUMENT = "instrument_1/detector_1", "instrument_1"


def cxi(scan: Simulated, **changed: Any) -> dict[str, Any]:
    """Below entry_1; "__" in a changed name stands for "/"."""
    counts, bad = marked(scan)
    metres = np.zeros((len(scan.positions), 3))
    metres[:, :2] = scan.positions[:, ::-1] * PIXEL
    items = {
        f"{DETECTOR}/data": counts.astype(np.uint32),
        f"{DETECTOR}/mask": bad.astype(np.uint32),
        f"{DETECTOR}/distance": DISTANCE,
        f"{DETECTOR}/x_pixel_size": PITCH,
        f"{DETECTOR}/y_pixel_size": PITCH,
        f"{INSTRUMENT}/source_1/energy": ENERGY,
        f"{INSTRUMENT}/source_1/probe": scan.probe,
        "sample_1/geometry_1/translation": metres,
    }
    items |= {name.replace("__", "/"): value for name, value in changed.items()}
    return {name: value for name, value in items.items() if value is not None}


def put(path: Path, items: dict[str, Any], entry: str = "entry_1", **options: Any) -> None:
    with h5py.File(path, "a", **options) as file:
        file.require_group(entry)
        for name, value in items.items():
            file[f"{entry}/{name}"] = value


@layout("scan.cxi", "CXI", "probe", "pixel", "geometry", "mask")
def write_cxi(path: Path, scan: Simulated) -> None:
    put(path, cxi(scan))
    with h5py.File(path, "a") as file:
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/entry_1/{DETECTOR}/data")
        file["entry_1/data_1/translation"] = h5py.SoftLink(
            "/entry_1/sample_1/geometry_1/translation"
        )


@layout("user_block.cxi", "CXI", "probe", "pixel", "geometry", "mask")
def write_cxi_by_matlab(path: Path, scan: Simulated) -> None:
    """A user block, a probe of real and imaginary parts, a mask of bytes; positions (3, F)."""
    probe = np.empty(scan.probe.shape, [("real", "f8"), ("imag", "f8")])
    probe["real"], probe["imag"] = scan.probe.real, scan.probe.imag
    items = cxi(scan)
    items[f"{INSTRUMENT}/source_1/probe"] = probe
    items[f"{DETECTOR}/mask"] = items[f"{DETECTOR}/mask"].astype(np.int8)
    items["sample_1/geometry_1/translation"] = items["sample_1/geometry_1/translation"].T
    put(path, items, userblock_size=512)


@layout("cdtools.cxi", "CXI", "pixel", "geometry", "mask")
def write_cdtools(path: Path, scan: Simulated) -> None:
    """Basis vectors in columns, which run the other way; a wavelength; a dark of 3; no probe."""
    counts, _ = marked(scan)
    items = cxi(scan)
    items |= {
        f"{DETECTOR}/data": (counts + 3).astype(np.float32),
        f"{DETECTOR}/data_dark": np.full((2, N, N), 3.0),
        f"{DETECTOR}/basis_vectors": np.array([[0, PITCH, 0], [PITCH, 0, 0]]).T,
        f"{INSTRUMENT}/source_1/wavelength": 1.98644586e-25 / ENERGY,
    }
    items["sample_1/geometry_1/translation"] *= -1
    for name in (f"{DETECTOR}/x_pixel_size", f"{DETECTOR}/y_pixel_size",
                 f"{INSTRUMENT}/source_1/energy", f"{INSTRUMENT}/source_1/probe"):  # fmt: skip
        del items[name]
    put(path, items)


@layout("raster.nxs", "CXI", "pixel", "geometry", "mask")
def write_nexus(path: Path, scan: Simulated) -> None:
    """NXcxi_ptycho: a raster of frames, shown to CXI as a virtual dataset; units; two energies."""
    import hdf5plugin

    counts, bad = marked(scan)
    y, x = (axis.reshape(RASTER) for axis in (scan.positions * PIXEL).T)
    with h5py.File(path, "w") as file:
        detector = file.create_group(f"entry_1/{DETECTOR}")
        raster = counts.astype(np.uint32).reshape(*RASTER, N, N)
        detector.create_dataset("data", data=raster, chunks=(1, 3, N, N), **hdf5plugin.Bitshuffle())
        detector["mask"] = bad
        layout = h5py.VirtualLayout((len(counts), N, N), np.uint32)
        whole = h5py.VirtualSource(".", f"/entry_1/{DETECTOR}/data", (*RASTER, N, N))
        for row in range(RASTER[0]):
            layout[row * RASTER[1] : (row + 1) * RASTER[1]] = whole[row]
        file.create_group("entry_1/data_1").create_virtual_dataset("data", layout)
        for name, value, unit in (
            (f"{DETECTOR}/distance", DISTANCE * 1e3, "mm"),
            (f"{DETECTOR}/x_pixel_size", PITCH * 1e6, "µm"),
            (f"{DETECTOR}/y_pixel_size", PITCH * 1e6, "um"),
            (f"{INSTRUMENT}/source_1/energy", 3.0, "GeV"),
            (f"{INSTRUMENT}/beam_1/incident_beam_energy", ENERGY / EV / 1e3, "keV"),
            ("sample_1/transformations/y", y * 1e6, "um"),
            ("sample_1/transformations/x", x * 1e9, b"nm"),
        ):
            file[f"entry_1/{name}"] = value
            file[f"entry_1/{name}"].attrs["units"] = unit
        for axis in "xy":
            file[f"entry_1/data/{axis}"] = h5py.SoftLink(
                f"/entry_1/sample_1/transformations/{axis}"
            )
        file["entry_1/instrument_1/source_1/probe"] = "x-ray"


@layout("linked.cxi", "CXI", "probe", "pixel", "geometry", "mask")
def write_linked(path: Path, scan: Simulated) -> None:
    """Frames in two files of the folder, behind a virtual dataset of a third, behind a link."""
    items = cxi(scan)
    counts = items.pop(f"{DETECTOR}/data")
    put(path, items)
    half = len(counts) // 2
    layout = h5py.VirtualLayout(counts.shape, counts.dtype)
    for number, rows in enumerate((slice(0, half), slice(half, len(counts)))):
        with h5py.File(path.with_name(f"frames_{number}.h5"), "w") as file:
            file["entry/data"] = counts[rows]
        layout[rows] = h5py.VirtualSource(f"frames_{number}.h5", "entry/data", counts[rows].shape)
    with h5py.File(path.with_name("master.h5"), "w") as file:
        file.create_virtual_dataset("frames", layout)
    with h5py.File(path, "a") as file:
        file[f"entry_1/{DETECTOR}/data"] = h5py.ExternalLink("master.h5", "/frames")
        file["entry_1/fluorescence"] = h5py.ExternalLink("/beamline/xspress3.h5", "/data")


@layout("two_entries.cxi", "CXI", "probe", "pixel", "geometry", "mask")
def write_two_entries(path: Path, scan: Simulated) -> None:
    """Of three entries the second is a whole scan, and so is the third, of other frames."""
    put(path, {f"{DETECTOR}/data": scan.counts[:3]}, "entry_1")
    put(path, cxi(scan), "entry_2")
    put(path, cxi(scan, instrument_1__detector_1__data=scan.counts[::-1]), "entry_3")
