"""One scan in each layout that is read, by writers that share no code with the readers.

They write what the programs they are named after write. Where a layout has a mask, pixel `BAD` is
marked in it and holds nonsense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fno_runner.config import N
from tests.scans import DISTANCE, ENERGY, PITCH, PIXEL, SIDE, Simulated

BAD = (3, 4)
EV = 1.602176634e-19
"""An electronvolt [J]."""
RASTER = (6, 10)
"""The simulated scan's 60 frames as rows and columns of a raster."""


@dataclass(frozen=True)
class Layout:
    """format: the name of the format that is to read it. has: what the layout can say."""

    format: str
    write: Callable[[Path, Simulated], Path]
    has: frozenset[str]


LAYOUTS: dict[str, Layout] = {}

Write = Callable[[Path, Simulated], None]


def layout(name: str, form: str, *has: str) -> Callable[[Write], Write]:
    """Register a writer; `name` is the file's."""

    def register(write: Write) -> Write:
        def write_in(folder: Path, scan: Simulated) -> Path:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / name, scan)
            return folder / name

        LAYOUTS[f"{form}: {name}"] = Layout(form, write_in, frozenset(has))
        return write

    return register


def marked(scan: Simulated) -> tuple[np.ndarray, np.ndarray]:
    """Counts with nonsense at BAD, and where that is."""
    counts, bad = scan.counts.copy(), np.zeros((N, N), bool)
    bad[BAD] = True
    counts[:, bad] = 12_345
    return counts, bad


# --- NPZ ------------------------------------------------------------------------------------------


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


# --- CXI and NeXus --------------------------------------------------------------------------------

DETECTOR, INSTRUMENT = "instrument_1/detector_1", "instrument_1"


def cxi(scan: Simulated, **changed: Any) -> dict[str, Any]:
    """Below entry_1; "__" in a changed name stands for "/"."""
    counts, bad = marked(scan)
    metres = np.zeros((len(counts), 3))
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


@layout("scan.cxi", "CXI", "probe", "pixel", "mask")
def write_cxi(path: Path, scan: Simulated) -> None:
    put(path, cxi(scan))
    with h5py.File(path, "a") as file:
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/entry_1/{DETECTOR}/data")
        file["entry_1/data_1/translation"] = h5py.SoftLink(
            "/entry_1/sample_1/geometry_1/translation"
        )


@layout("user_block.cxi", "CXI", "probe", "pixel", "mask")
def write_cxi_by_matlab(path: Path, scan: Simulated) -> None:
    """A user block, a probe of real and imaginary parts, a mask of bytes; positions (3, F)."""
    probe = np.empty(scan.probe.shape, [("real", "f8"), ("imag", "f8")])
    probe["real"], probe["imag"] = scan.probe.real, scan.probe.imag
    items = cxi(scan)
    items[f"{INSTRUMENT}/source_1/probe"] = probe
    items[f"{DETECTOR}/mask"] = items[f"{DETECTOR}/mask"].astype(np.int8)
    items["sample_1/geometry_1/translation"] = items["sample_1/geometry_1/translation"].T
    put(path, items, userblock_size=512)


@layout("cdtools.cxi", "CXI", "pixel", "mask")
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


@layout("raster.nxs", "CXI", "pixel", "mask")
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


@layout("linked.cxi", "CXI", "probe", "pixel", "mask")
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


@layout("two_entries.cxi", "CXI", "probe", "pixel", "mask")
def write_two_entries(path: Path, scan: Simulated) -> None:
    """Of three entries the second is a whole scan, and so is the third, of other frames."""
    put(path, {f"{DETECTOR}/data": scan.counts[:3]}, "entry_1")
    put(path, cxi(scan), "entry_2")
    put(path, cxi(scan, instrument_1__detector_1__data=scan.counts[::-1]), "entry_3")


# --- ptychodus ------------------------------------------------------------------------------------


def product(scan: Simulated) -> dict[str, Any]:
    """Metres from the object's centre, which is not the origin."""
    metres = (scan.positions - SIDE / 2) * PIXEL + [2e-6, -1e-6]
    return {
        "probe": scan.probe[None],
        "object": scan.obj[None],
        "probe_position_indexes": np.arange(len(scan.counts)),
        "probe_position_x_m": metres[:, 1],
        "probe_position_y_m": metres[:, 0],
    }


def size_product(file: h5py.File) -> None:
    for name in ("probe", "object"):
        file[name].attrs["pixel_width_m"] = file[name].attrs["pixel_height_m"] = PIXEL
    file["object"].attrs["center_y_m"], file["object"].attrs["center_x_m"] = 2e-6, -1e-6


@layout("product.h5", "ptychodus product", "object", "probe", "pixel", "mask")
def write_product(path: Path, scan: Simulated) -> None:
    """Patterns beside it, in another order and two of them more than there are positions."""
    counts, bad = marked(scan)
    with h5py.File(path, "w") as file:
        file.attrs["detector_object_distance_m"], file.attrs["far_field"] = DISTANCE, True
        for name, array in product(scan).items():
            file[name] = array
        size_product(file)
    order = np.random.default_rng(0).permutation(len(counts) + 2)
    with h5py.File(path.with_name("diffraction.h5"), "w") as file:
        stored = np.concatenate([counts, counts[:2] + 9])[order].astype(np.uint32)
        file.create_dataset("patterns", data=stored, compression="lzf")
        file["indexes"], file["bad_pixels"] = order, bad


@layout("product.npz", "ptychodus product", "object", "probe", "pixel", "mask")
def write_product_npz(path: Path, scan: Simulated) -> None:
    counts, bad = marked(scan)
    arrays = product(scan) | {"patterns": counts, "bad_pixels": bad}
    for name in ("object", "probe"):
        arrays |= {f"{name}_pixel_width_m": PIXEL, f"{name}_pixel_height_m": PIXEL}
    np.savez(path, **arrays, object_center_y_m=2e-6, object_center_x_m=-1e-6)


@layout("training.h5", "ptychodus training data", "object", "probe", "pixel", "mask")
def write_training(path: Path, scan: Simulated) -> None:
    """Positions are indices of the pixel in the middle of a patch."""
    counts, bad = marked(scan)
    items = {
        "patterns": counts.astype(np.uint32),
        "bad_pixels": bad,
        "probe": scan.probe,
        "object": scan.obj,
        "detector_object_distance_m": DISTANCE,
        "photon_energy_eV": ENERGY / EV,
        "object_pixel_width_m": PIXEL,
        "object_pixel_height_m": PIXEL,
        "probe_position_x_px": scan.positions[:, 1] - 0.5,
        "probe_position_y_px": scan.positions[:, 0] - 0.5,
    }
    with h5py.File(path, "w") as file:
        for name, value in items.items():
            file[name] = value


# --- others ---------------------------------------------------------------------------------------


@layout("scan.ptyd", "ptyd", "pixel", "mask")
def write_ptyd(path: Path, scan: Simulated) -> None:
    """Chunks of 7 frames, of which 10 comes after 9 and not after 1; the last in another file."""
    counts, bad = marked(scan)
    starts = range(0, len(counts), 7)
    elsewhere = path.with_name("scan.ptyd.part")
    with h5py.File(path, "w") as file, h5py.File(elsewhere, "w") as other:
        file["info/label"] = "scan"
        for name, value in (("energy", ENERGY / EV / 1e3), ("distance", DISTANCE), ("psize", PITCH),
                            ("shape", [N, N])):  # fmt: skip
            file[f"meta/{name}"] = value
        for number, first in enumerate(starts):
            rows = slice(first, first + 7)
            last = number == len(starts) - 1
            chunk = (other if last else file).create_group(f"chunks/{number}")
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
def write_pair_by_patterns(path: Path, scan: Simulated) -> None:
    write_pair(path, scan, pair(scan), True)


@layout("other_para.hdf5", "pty-chi pair", "object", "probe", "pixel")
def write_pair_by_parameters(path: Path, scan: Simulated) -> None:
    write_pair(path, scan, pair(scan), True)


@layout("data_roi0_dp.hdf5", "pty-chi pair", "pixel")
def write_fold_slice(path: Path, scan: Simulated) -> None:
    y, x = (scan.positions * PIXEL).T
    write_pair(path, scan, {"ppX": x, "ppY": y, "dx": [PIXEL], "lambda": [1e-10]}, False)


@layout("scan_7.h5", "NSLS-II diffamp", "pixel")
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
