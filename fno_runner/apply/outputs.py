"""What a reconstruction leaves: the object for other programs, as images, and as a picture."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float32, Float64

from fno_runner.apply.product import Product
from fno_runner.data import units
from fno_runner.data.formats import raw_npz
from fno_runner.data.npz import write_npz
from fno_runner.errors import MachineError
from fno_runner.files import write_atomically, write_text_atomically
from fno_runner.pictures import draw_object
from fno_runner.score.metrics import align

CXI_VERSION = 160
CXI_PIXEL_IS_INVALID = 0x00000001
"""Of Maia's specification, version 1.6: in the mask of an image."""
OBJECT, PICTURE, RECONSTRUCTION = "object.npz", "object.png", "reconstruction.json"
WRITERS: dict[str, Callable[[Product, IO[bytes]], None]]
"""A file's name -> what writes it; below, where the writers are."""
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
        if product.pixel_size is None and name in METRIC:
            left_out.append(name)
        else:
            write_atomically(folder / name, partial(write, product))
    draw(product, folder)
    write_record(product, folder)
    return left_out


def write_object(product: Product, folder: Path) -> None:
    """object.npz alone: the object as numbers, with its probe and positions.

    Raises:
        MachineError: the disk refuses.
    """
    write_npz(folder / OBJECT, _arrays(product))


def draw(product: Product, folder: Path) -> None:
    """object.png alone."""
    draw_object(folder / PICTURE, product.title, product.obj, product.seen, product.pixel_size)


def write_record(product: Product, folder: Path) -> None:
    """reconstruction.json alone."""
    text = json.dumps(product.record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text_atomically(folder / RECONSTRUCTION, text)


def new_folder(wanted: Path, fill: Callable[[Path], object]) -> Path:
    """Let `fill` write into a folder that appears whole, under this name or the next free one.

    Returns:
        its name: `wanted`, or `wanted`-2, -3, … where there is something already.

    Raises:
        MachineError: the disk refuses.
    """
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(dir=wanted.parent, prefix=f".{wanted.name}."))
    except OSError as error:
        raise MachineError(f"cannot write {wanted}: {error.strerror or error}") from error
    try:
        fill(working)
        working.chmod(0o755)
        number, final = 1, wanted
        while True:
            if not os.path.lexists(final):
                try:
                    working.rename(final)
                    return final
                except FileExistsError:  # somebody was faster
                    pass
                except OSError as error:
                    if not final.exists():
                        raise MachineError(
                            f"cannot write {final}: {error.strerror or error}"
                        ) from error
            number += 1
            final = wanted.with_name(f"{wanted.name}-{number}")
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _arrays(product: Product) -> dict[str, np.ndarray]:
    """The raw layout's names: with `diff3d` beside them it is a scan again."""
    return {
        "objectGuess": product.obj,
        "probeGuess": product.probe[0] if len(product.probe) == 1 else product.probe,
        "xcoords": product.positions[:, 1],
        "ycoords": product.positions[:, 0],
        "object_seen": product.seen,
        "object_light": product.weight,
        **raw_npz.numbers(product.pixel_size, product.energy, product.distance),
    }


def metres(product: Product) -> Float64[np.ndarray, "f 2"]:
    """Positions (row, column) from the middle of the object [m]."""
    assert product.pixel_size is not None
    middle = np.array(product.obj.shape) / 2
    return (product.positions - middle) * product.pixel_size


def _hdf5(stream: IO[bytes], fill: Callable[[Any], None]) -> None:
    import h5py

    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        fill(file)
    stream.write(memory.getbuffer())


def _write_cxi(product: Product, stream: IO[bytes]) -> None:
    """CXI 1.6 (Maia, 2012): the object is an image, the probe belongs to the source."""

    def fill(file: Any) -> None:
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
        if product.energy is not None:
            source["energy"] = product.energy
        if product.distance is not None:
            entry["instrument_1/detector_1/distance"] = product.distance
        if product.pixel_size is not None:
            height, width = product.obj.shape
            image["image_size"] = np.array([width, height, 0]) * product.pixel_size
            for axis in "xy":
                image[f"{axis}_pixel_size"] = product.pixel_size
            moved = np.zeros((len(product.positions), 3))
            moved[:, 1::-1] = metres(product)
            entry["sample_1/geometry_1/translation"] = moved

    _hdf5(stream, fill)


def _write_ptychodus(product: Product, stream: IO[bytes]) -> None:
    """A product as ptychodus reads it; NaN stands for an energy or distance that is not known."""
    pixel = product.pixel_size
    assert pixel is not None

    def fill(file: Any) -> None:
        unknown = float("nan")
        energy = unknown if product.energy is None else product.energy / units.ELECTRONVOLT
        file.attrs.update(
            {
                "name": product.title,
                "comments": product.record["command"],
                "detector_object_distance_m": (
                    unknown if product.distance is None else product.distance
                ),
                "probe_energy_eV": energy,
                "probe_photon_count": float(np.square(np.abs(product.probe)).sum()),
                "exposure_time_s": 0.0,
                "mass_attenuation_m2_kg": 0.0,
                "tomography_angle_deg": 0.0,
            }
        )
        place = metres(product)
        file["probe_position_indexes"] = np.arange(len(place))
        file["probe_position_x_m"] = place[:, 1]
        file["probe_position_y_m"] = place[:, 0]
        file["probe"] = product.probe[None]  # (1, M, N, N): the same for all frames
        file["object"] = product.obj[None]  # one layer
        for name in ("probe", "object"):
            file[name].attrs["pixel_width_m"] = pixel
            file[name].attrs["pixel_height_m"] = pixel
        file["object"].attrs["center_x_m"] = 0.0
        file["object"].attrs["center_y_m"] = 0.0
        file["object_layer_spacing_m"] = np.zeros(0)
        file["loss_epochs"] = np.zeros(0, int)
        file["loss_values"] = np.zeros(0)

    _hdf5(stream, fill)


def images(product: Product) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Amplitude and phase [rad], float32; NaN where nothing is known.

    From the phase an offset and a plane are removed, which diffraction cannot see.
    """
    (amplitude, _), (phase, _) = align(product.obj, product.obj, product.seen)
    dark = ~product.seen
    shown = [image.astype(np.float32) for image in (amplitude, phase)]
    for image in shown:
        image[dark] = np.nan
    return shown[0], shown[1]


def _write_tiff(image: np.ndarray, what: str, product: Product, stream: IO[bytes]) -> None:
    import tifffile

    said = {"what": what, "title": product.title, "pixel_size_m": product.pixel_size}
    size: dict[str, Any] = {}
    if product.pixel_size is not None:
        per_cm = 1e-2 / product.pixel_size
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


def _write_phase(product: Product, stream: IO[bytes]) -> None:
    what = "phase [rad], less its offset and its plane; NaN where no light fell"
    _write_tiff(images(product)[1], what, product, stream)


def _write_amplitude(product: Product, stream: IO[bytes]) -> None:
    what = "amplitude of the object's transmission; NaN where no light fell"
    _write_tiff(images(product)[0], what, product, stream)


WRITERS = {
    "object.cxi": _write_cxi,
    "product.h5": _write_ptychodus,
    "phase.tif": _write_phase,
    "amplitude.tif": _write_amplitude,
}
