"""Positions are the same however NeXus says them: vectors, rotations, pixels' directions, rasters.

Expected positions come of the motors' places in the laboratory, by matrices of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan
from fno_runner.errors import UserError
from tests.layouts import cxi
from tests.layouts.registry import RASTER
from tests.scans import PITCH, PIXEL, Simulated, simulate_scan

STAGE = "entry_1/sample_1/transformations"
DETECTOR = "entry_1/instrument_1/detector_1"


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


def write(path: Path, scan: Simulated, places: dict[str, np.ndarray], **changed: Any) -> None:
    """As NXcxi_ptycho: axes in [µm] in the sample's stage, shown in `data` by links."""
    gone = {"sample_1__geometry_1__translation": None, "instrument_1__source_1__probe": None}
    cxi.put(path, cxi.cxi(scan, instrument_1__detector_1__mask=None, **(gone | changed)))
    with h5py.File(path, "a") as file:
        for name, values in places.items():
            file[f"{STAGE}/{name}"] = 1e6 * values
            file[f"{STAGE}/{name}"].attrs["units"] = "um"
            file[f"entry_1/data/{name}"] = h5py.SoftLink(f"/{STAGE}/{name}")


def say(path: Path, name: str, **attributes: Any) -> None:
    with h5py.File(path, "a") as file:
        file[name].attrs.update(attributes)


def same(read: Scan, positions: np.ndarray) -> bool:
    """Whether positions are these but for the origin, which is free."""
    return np.allclose(read.positions - read.positions[0], positions - positions[0], atol=1e-6)


def motors(scan: Simulated, along_x: np.ndarray, along_y: np.ndarray) -> dict[str, np.ndarray]:
    """What motors that lead along these unit vectors show while the sample is where it was."""
    laboratory = scan.positions[:, ::-1] * PIXEL  # x, y
    shown = np.linalg.solve(np.stack([along_x[:2], along_y[:2]]).T, laboratory.T)
    return {"x": shown[0], "y": shown[1]}


@pytest.mark.parametrize("seed", range(6))
def test_motors_may_lead_anywhere_if_they_say_so(
    seed: int, scan: Simulated, tmp_path: Path
) -> None:
    rng, path = np.random.default_rng(seed), tmp_path / "scan.nxs"
    angle = rng.uniform(0, 2 * np.pi)
    apart = angle + rng.choice([-1, 1]) * rng.uniform(0.8, 2.3)
    along_x, along_y = (np.array([np.cos(a), np.sin(a), 0.0]) for a in (angle, apart))
    write(path, scan, motors(scan, along_x, along_y))
    say(path, f"{STAGE}/x", vector=2.5 * along_x, depends_on="y")
    say(path, f"{STAGE}/y", vector=along_y, depends_on=".")
    read = read_scan(path, size=N)
    assert same(read, scan.positions)
    assert any("leads along" in remark for remark in read.remarks)


def test_vectors_that_say_what_is_usual_change_nothing(scan: Simulated, tmp_path: Path) -> None:
    path = tmp_path / "scan.nxs"
    write(path, scan, motors(scan, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])))
    plain = read_scan(path, size=N)
    say(path, f"{STAGE}/x", vector=[1, 0, 0], depends_on=f"/{STAGE}/y")
    say(path, f"{STAGE}/y", vector=[0, 1, 0], depends_on=".")
    read = read_scan(path, size=N)
    np.testing.assert_array_equal(read.positions, plain.positions)
    assert read.remarks == plain.remarks and same(read, scan.positions)


@pytest.mark.parametrize(("unit", "degrees"), [("deg", 1.0), ("rad", np.pi / 180), (None, 1.0)])
def test_a_stage_upon_a_rotation_leads_where_that_turned_it(
    unit: str | None, degrees: float, scan: Simulated, tmp_path: Path
) -> None:
    """As in tomography: x is seen shortened by the cosine, and z of the stage adds its sine."""
    path, theta = tmp_path / "scan.nxs", 35.0
    write(path, scan, {"x": scan.positions[:, 1] * PIXEL / np.cos(np.radians(theta)),
                       "y": scan.positions[:, 0] * PIXEL})  # fmt: skip
    say(path, f"{STAGE}/x", vector=[1, 0, 0], depends_on="y")
    say(path, f"{STAGE}/y", vector=[0, 1, 0], depends_on=f"/{STAGE}/theta")
    with h5py.File(path, "a") as file:
        file[f"{STAGE}/theta"] = np.full(60, theta * degrees) + 1e-4 * np.arange(60) * degrees
        axis = file[f"{STAGE}/theta"].attrs
        axis.update(vector=[0, 1, 0], transformation_type="rotation", depends_on=".")
        if unit is not None:
            axis["units"] = unit
    assert np.allclose(
        np.ptp(read_scan(path, size=N).positions, axis=0), np.ptp(scan.positions, axis=0), rtol=1e-3
    )
    with h5py.File(path, "a") as file:
        file[f"{STAGE}/theta"][...] = np.linspace(0, 180, 60) * degrees
    with pytest.raises(UserError, match=r"rotation .* is from 0° to 180°"):
        read_scan(path)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"depends_on": "nowhere"}, "depends on 'nowhere', which is not there"),
        ({"vector": [0.0, 0.0, 0.0]}, "is no direction"),
        ({"depends_on": "x"}, None),  # a circle ends
    ],
)
def test_what_says_no_direction_turns_nothing(
    attributes: dict[str, Any], told: str | None, scan: Simulated, tmp_path: Path
) -> None:
    path = tmp_path / "scan.nxs"
    write(path, scan, motors(scan, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])))
    say(path, f"{STAGE}/x", **attributes)
    read = read_scan(path, size=N)
    assert same(read, scan.positions)
    assert told is None or any(told in remark for remark in read.remarks)


@pytest.mark.parametrize(
    ("said", "slow"),
    [
        ({}, "y"),
        ({"x_indices": 0, "y_indices": 1}, "x"),
        ({"x_indices": 1, "y_indices": 0}, "y"),
        ({"axes": ["x", "y", ".", "."]}, "x"),
        ({"axes": ["y", "x", ".", "."]}, "y"),
        ({"axes": ["rows", "columns"]}, "y"),
    ],
)
def test_a_square_raster_is_in_the_order_that_its_group_says(
    said: dict[str, Any], slow: str, scan: Simulated, tmp_path: Path
) -> None:
    path, steps = tmp_path / "scan.nxs", 6 * PIXEL * np.arange(7)
    counts = scan.counts[:49].astype(np.uint32).reshape(7, 7, N, N)
    write(path, scan, {"x": steps, "y": 2 * steps}, instrument_1__detector_1__data=counts)
    say(path, "entry_1/data", **said)
    first, second = np.divmod(np.arange(49), 7)
    y, x = (first, second) if slow == "y" else (second, first)
    assert same(read_scan(path, size=N), 6.0 * np.column_stack([2 * y, x]))


def test_the_sizes_of_a_raster_say_its_order(scan: Simulated, tmp_path: Path) -> None:
    """Whatever its group says."""
    path, (rows, cols) = tmp_path / "scan.nxs", RASTER
    counts = scan.counts.astype(np.uint32).reshape(rows, cols, N, N)
    places = {"y": 6 * PIXEL * np.arange(rows), "x": 6 * PIXEL * np.arange(cols)}
    write(path, scan, places, instrument_1__detector_1__data=counts)
    say(path, "entry_1/data", x_indices=0, y_indices=1)
    y, x = np.divmod(np.arange(rows * cols), cols)
    assert same(read_scan(path, size=N), 6.0 * np.column_stack([y, x]))


@pytest.mark.parametrize("flipped", ["fast", "slow", "transposed"])
def test_pixels_are_counted_along_the_directions_of_their_module(
    flipped: str, scan: Simulated, tmp_path: Path
) -> None:
    """Frames that are stored another way round, and an NXdetector_module that says so."""
    path = tmp_path / "scan.nxs"
    slow, fast = [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]
    expected = scan.positions.copy()
    if flipped == "transposed":
        slow, fast, expected = fast, slow, expected[:, ::-1]
    elif flipped == "fast":
        fast, expected[:, 1] = [1.0, 0.0, 0.0], -expected[:, 1]
    else:
        slow, expected[:, 0] = [0.0, 1.0, 0.0], -expected[:, 0]
    write(path, scan, motors(scan, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])))
    with h5py.File(path, "a") as file:
        module = file.create_group(f"{DETECTOR}/module")
        for name, vector in (("slow_pixel_direction", slow), ("fast_pixel_direction", fast)):
            module[name] = 1e3 * PITCH
            module[name].attrs.update(vector=vector, units="mm", depends_on="module_offset")
        module["module_offset"] = 0.0
        module["module_offset"].attrs.update(
            transformation_type="translation", vector=[1, 0, 0], depends_on="."
        )
        del file[f"{DETECTOR}/x_pixel_size"], file[f"{DETECTOR}/y_pixel_size"]
    read = read_scan(path, size=N)
    assert same(read, expected) and read.pixel_size == pytest.approx(PIXEL, rel=1e-6)
