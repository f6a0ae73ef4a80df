"""What ptychodus writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.layouts.registry import EV, layout, marked
from tests.scans import DISTANCE, ENERGY, PIXEL, Simulated, product_arrays


def product(scan: Simulated) -> dict[str, Any]:
    """Metres from the object's centre, which is not the origin."""
    arrays = product_arrays(scan)
    arrays["probe_position_y_m"] += 2e-6
    arrays["probe_position_x_m"] -= 1e-6
    return arrays


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
