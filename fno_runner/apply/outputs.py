"""What a reconstruction leaves: the object for other programs, as images, and as a picture."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float64

from fno_runner.apply.product import Product
from fno_runner.data import units
from fno_runner.data.formats import raw_npz
from fno_runner.data.npz import write_npz
from fno_runner.errors import MachineError
from fno_runner.files import make_folder, named, write_atomically, write_text_atomically
from fno_runner.pictures import draw_object
from fno_runner.score.metrics import align

CXI_VERSION = 160
CXI_PIXEL_IS_INVALID = 0x00000001
"""Of Maia's specification, version 1.6: in the mask of an image."""
OBJECT, PICTURE, RECONSTRUCTION = "object.npz", "object.png", "reconstruction.json"
TIFF_LARGEST = 2**32 - 1
"""Pixels a centimetre are a ratio of integers of 32 bits: smaller pixels are in the description."""
METRIC = frozenset({"product.h5"})
"""Files that cannot be written without the pixel's size."""


def write_product(product: Product, folder: Path) -> list[str]:
    """Write all files of a reconstruction into a folder, each whole or not at all.

    Returns:
        the files that were left out, because nobody told the size of a pixel.

    Raises:
        MachineError: the disk refuses.
    """
    left_out = []
    write_object(product, folder)
    for name, write in WRITERS.items():
        if product.scan.pixel_size is None and name in METRIC:
            left_out.append(name)
        else:
            write_atomically(folder / name, partial(write, product))
    draw(product, folder)
    write_record(product, folder)
    return left_out


def write_object(product: Product, folder: Path) -> None:
    """object.npz alone: the object as numbers, with its probe and positions.

    The names are the raw layout's: with `diff3d` beside them, of the frames that `frame_indexes`
    names, it is a scan again.

    Raises:
        MachineError: the disk refuses.
    """
    arrays = raw_npz.arrays_of(product.scan, product.obj)
    arrays |= {
        "frame_indexes": product.scan.indexes,
        "object_seen": product.seen,
        "object_light": product.weight,
    }
    write_npz(folder / OBJECT, arrays)


def draw(product: Product, folder: Path) -> None:
    """object.png alone."""
    pixel_size = product.scan.pixel_size
    draw_object(folder / PICTURE, product.title, product.obj, product.seen, pixel_size)


def write_record(product: Product, folder: Path) -> None:
    """reconstruction.json alone."""
    text = json.dumps(product.record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text_atomically(folder / RECONSTRUCTION, text)


def new_folder(wanted: Path, fill: Callable[[Path], object]) -> Path:
    """Let `fill` write into a folder that appears whole, under this name or the next free one.

    Returns:
        its name, of `numbered`.

    Raises:
        MachineError: the disk refuses.
    """
    wanted = named(wanted)
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(dir=wanted.parent, prefix=f".{wanted.name}."))
    except OSError as error:
        raise MachineError(f"cannot write {wanted}: {error.strerror or error}") from error
    names = numbered(wanted)
    try:
        fill(working)
        working.chmod(0o755)
        while True:
            final = next(name for name in names if not os.path.lexists(name))
            try:
                working.rename(final)
            except OSError as error:
                if not final.exists():  # else somebody was faster
                    raise MachineError(
                        f"cannot write {final}: {error.strerror or error}"
                    ) from error
            else:
                return final
    finally:
        shutil.rmtree(working, ignore_errors=True)


def check_place(wanted: Path) -> None:
    """Find out before any work whether `new_folder` can make one of this name.

    Raises:
        UserError: it has no name. MachineError: the disk refuses.
    """
    make_folder(next(folder for folder in named(wanted).parents if folder.exists()))


def numbered(wanted: Path) -> Iterator[Path]:
    """`wanted`, `wanted`-2, `wanted`-3, …, to take the first of that will do.

    Raises:
        UserError: it has no name.
    """
    wanted = named(wanted)
    yield wanted
    for number in count(2):
        yield wanted.with_name(f"{wanted.name}-{number}")


def _metres(product: Product) -> Float64[np.ndarray, "f 2"]:
    """Positions (row, column) from the middle of the object [m]."""
    assert product.scan.pixel_size is not None
    middle = np.array(product.obj.shape) / 2
    return (product.scan.positions - middle) * product.scan.pixel_size


@contextmanager
def _hdf5(stream: IO[bytes]) -> Iterator[Any]:
    """An HDF5 file to be filled, which then is written into a stream."""
    import h5py

    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        yield file
    stream.write(memory.getbuffer())


def _write_cxi(product: Product, stream: IO[bytes]) -> None:
    """CXI 1.6 (Maia, 2012): the object is an image, the probe belongs to the source."""
    scan = product.scan
    with _hdf5(stream) as file:
        file["cxi_version"] = CXI_VERSION
        file.attrs["default"] = "entry_1"
        entry = file.create_group("entry_1")
        entry.attrs["NX_class"] = "NXentry"
        entry.attrs["default"] = "image_1"
        entry["title"] = product.title
        entry["program_name"] = product.record["program"]
        image = entry.create_group("image_1")
        image.attrs["NX_class"] = "NXdata"
        image.attrs["signal"] = "data"
        image["data"] = product.obj
        image["data"].attrs["interpretation"] = "image"
        image["data_space"] = "real"
        image["data_type"] = "transmission function"
        image["is_fft_shifted"] = 0
        image["mask"] = np.where(product.seen, 0, CXI_PIXEL_IS_INVALID).astype(np.uint32)
        process = image.create_group("process_1")
        process["command"] = product.record["command"]
        process["date"] = product.record["written"]
        source = entry.create_group("instrument_1/source_1")
        source["probe"] = product.probe
        if scan.energy is not None:
            source["energy"] = scan.energy
        if scan.distance is not None:
            entry["instrument_1/detector_1/distance"] = scan.distance
        if scan.pixel_size is not None:
            height, width = product.obj.shape
            image["image_size"] = np.array([width, height, 0]) * scan.pixel_size
            for axis in "xy":
                image[f"{axis}_pixel_size"] = scan.pixel_size
            moved = np.zeros((len(scan), 3))
            moved[:, 1::-1] = _metres(product)
            entry["sample_1/geometry_1/translation"] = moved


def _write_ptychodus(product: Product, stream: IO[bytes]) -> None:
    """A product as ptychodus reads it; NaN stands for an energy or distance that is not known."""
    scan, unknown = product.scan, float("nan")
    with _hdf5(stream) as file:
        file.attrs.update(
            {
                "name": product.title,
                "comments": product.record["command"],
                "detector_object_distance_m": unknown if scan.distance is None else scan.distance,
                "probe_energy_eV": (
                    unknown if scan.energy is None else scan.energy / units.ELECTRONVOLT
                ),
                "probe_photon_count": float(np.square(np.abs(product.probe)).sum()),
                "exposure_time_s": 0.0,
                "mass_attenuation_m2_kg": 0.0,
                "tomography_angle_deg": 0.0,
            }
        )
        place = _metres(product)
        file["probe_position_indexes"] = scan.indexes  # patterns have theirs in another file
        file["probe_position_x_m"] = place[:, 1]
        file["probe_position_y_m"] = place[:, 0]
        file["probe"] = product.probe[None]  # (1, M, N, N): the same for all frames
        file["object"] = product.obj[None]  # one layer
        for name in ("probe", "object"):
            file[name].attrs["pixel_width_m"] = scan.pixel_size
            file[name].attrs["pixel_height_m"] = scan.pixel_size
        file["object"].attrs["center_x_m"] = 0.0
        file["object"].attrs["center_y_m"] = 0.0
        file["object_layer_spacing_m"] = np.zeros(0)
        file["loss_epochs"] = np.zeros(0, int)
        file["loss_values"] = np.zeros(0)


def _write_tiff(which: int, what: str, product: Product, stream: IO[bytes]) -> None:
    """The amplitude (0) or the phase [rad] (1), float32; NaN where nothing is known.

    From the phase an offset and a plane are removed, which diffraction cannot see.
    """
    import tifffile

    aligned, _ = align(product.obj, product.obj, product.seen)[which]
    image = np.where(product.seen, aligned, np.nan).astype(np.float32)
    pixel_size = product.scan.pixel_size
    said = {"what": what, "title": product.title, "pixel_size_m": pixel_size}
    size: dict[str, Any] = {}
    per_cm = 0.0 if pixel_size is None else 1e-2 / pixel_size
    if 0 < per_cm <= TIFF_LARGEST:
        size = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    memory = io.BytesIO()  # tifffile wants a file that has a name, or none
    tifffile.imwrite(
        memory,
        image,
        photometric="minisblack",
        description=json.dumps(said),
        metadata=None,
        software=product.record["program"],
        **size,
    )
    stream.write(memory.getbuffer())


PHASE = "phase [rad], less its offset and its plane; NaN where no light fell"
AMPLITUDE = "amplitude of the object's transmission; NaN where no light fell"
WRITERS: dict[str, Callable[[Product, IO[bytes]], None]] = {
    "object.cxi": _write_cxi,
    "product.h5": _write_ptychodus,
    "phase.tif": partial(_write_tiff, 1, PHASE),
    "amplitude.tif": partial(_write_tiff, 0, AMPLITUDE),
}
"""A file's name -> what writes it."""
