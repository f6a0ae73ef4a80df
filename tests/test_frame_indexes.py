"""Frames that are left out do not move the others: what is written says which frame is where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from fno_runner.apply import watch_file
from fno_runner.apply.command import main as by_network
from fno_runner.apply.iterative import main as iterative
from fno_runner.data.npz import read_array
from tests.scans import PIXEL, Simulated, simulate_scan, write_cxi, write_product_h5
from tests.test_apply import untrained

BLANK = [3, 11]
"""Frames without light."""


@pytest.fixture(scope="module")
def scan() -> Simulated:
    made = simulate_scan(frames=50)
    counts = made.counts.copy()
    counts[BLANK] = 0
    return replace(made, counts=counts)


def places(product: Path) -> dict[int, np.ndarray]:
    """A frame's index -> where a ptychodus product has it [px], from its first one."""
    with h5py.File(product) as file:
        metres = [file[f"probe_position_{axis}_m"][:] for axis in "yx"]
        indexes = file["probe_position_indexes"][:]
    pixels = np.stack(metres, axis=1) / PIXEL
    return dict(zip(indexes.tolist(), pixels - pixels[0], strict=True))


def check(product: Path, scan: Simulated) -> None:
    found = places(product)
    assert sorted(found) == [n for n in range(len(scan.counts)) if n not in BLANK]
    first = min(found)
    for number, place in found.items():
        np.testing.assert_allclose(place, scan.positions[number] - scan.positions[first], atol=1e-6)


def test_a_product_beside_the_patterns_of_its_scan_is_that_scan(
    scan: Simulated, tmp_path: Path
) -> None:
    """Patterns of ptychodus are in another file, and stored in another order here."""
    source = write_product_h5(tmp_path / "product.h5", scan)
    out = tmp_path / "out"
    assert iterative([str(source), "--passes=1", "--device=cpu", f"--output={out}"]) == 0
    with h5py.File(out / "product.h5") as file:
        indexes, x = file["probe_position_indexes"][:], file["probe_position_x_m"][:]
    order = np.argsort(indexes)
    assert indexes[order].tolist() == [n for n in range(50) if n not in BLANK]
    moved = x[order] - scan.positions[indexes[order], 1] * PIXEL
    np.testing.assert_allclose(moved, moved[0], atol=1e-6 * PIXEL)


def test_an_object_says_which_frames_it_is_of(scan: Simulated, tmp_path: Path) -> None:
    source, out = write_cxi(tmp_path / "s.cxi", scan), tmp_path / "out"
    assert by_network([str(untrained(tmp_path)), str(source), "-o", str(out), "--device=cpu"]) == 0
    check(out / "product.h5", scan)
    numbers = read_array(out / "object.npz", "frame_indexes")
    columns = read_array(out / "object.npz", "xcoords") - scan.positions[numbers, 1]
    np.testing.assert_allclose(columns, columns[0])


def test_a_watch_counts_the_frames_that_it_leaves_out(
    scan: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that never came, and those without a beam, and also after a restart."""
    monkeypatch.setattr(watch_file, "UNCHANGED_S", 0.05)
    monkeypatch.setattr(watch_file, "EMPTY_S", 0.2)
    counts = scan.counts.copy()
    counts[BLANK[1], 0, 0] = 1  # which is not empty, and has no beam
    arrays = {
        "diff3d": np.sqrt(counts),
        "xcoords": scan.positions[:, 1],
        "ycoords": scan.positions[:, 0],
    }
    path, out = tmp_path / "s.h5", tmp_path / "out"
    command = [str(untrained(tmp_path)), str(path), "--watch", "-o", str(out), "--device=cpu"]
    command += ["--idle=1", f"--pixel-size={1e9 * PIXEL}"]
    with h5py.File(path, "w") as file:
        file["probeGuess"] = scan.probe[0]
        for name, array in arrays.items():
            file.create_dataset(name, data=array[:40], maxshape=(None, *array.shape[1:]))
    assert by_network(command) == 0
    with h5py.File(path, "a") as file:
        for name, array in arrays.items():
            file[name].resize(50, axis=0)
            file[name][40:] = array[40:]
    assert by_network(command) == 0
    check(out / "product.h5", scan)
