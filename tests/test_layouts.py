"""The conformance suite: the same scan, written in every layout, is read as the same `Scan`."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from fno_runner.config import N, RunConfig
from fno_runner.data.formats import FORMATS, NONE, fingerprint_scan, read_scan, recognise
from fno_runner.data.scan import load_scan
from fno_runner.data.source import Hints, Source
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from tests.layouts import BAD, LAYOUTS, cxi
from tests.layouts.registry import EV
from tests.scans import DISTANCE, ENERGY, PIXEL, SIDE, Simulated, simulate_scan


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan(modes=2)


def test_every_format_has_a_writer() -> None:
    assert {layout.format for layout in LAYOUTS.values()} == {form.name for form in FORMATS}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_as_the_same_scan(name: str, scan: Simulated, tmp_path: Path) -> None:
    """Counts, mask, modes, object, and positions to a thousandth of a pixel, the right way round.

    Where a layout has an object, positions are those of its pixels; else any origin will do.
    """
    layout = LAYOUTS[name]
    path = layout.write(tmp_path / "scan", scan)
    with Source(path, NONE) as source:
        assert recognise(source).name == layout.format
    read = read_scan(path, size=N)
    good = np.ones((N, N), bool)
    good[BAD] = "mask" not in layout.has
    np.testing.assert_allclose(np.square(read.amplitude), np.where(good, scan.counts, 0), atol=0.1)
    mask = good if read.mask is None else read.mask
    np.testing.assert_array_equal(mask, good)
    apart = read.positions - scan.positions
    np.testing.assert_allclose(apart - apart[0], 0, atol=1e-3)
    if "object" in layout.has:
        np.testing.assert_allclose(apart, 0, atol=1e-3)
        assert read.reference is not None and read.reference.shape == (SIDE, SIDE)
        np.testing.assert_allclose(read.reference, scan.obj, rtol=1e-6)
    if "probe" in layout.has:
        assert read.probe is not None
        modes = scan.probe[: len(read.probe)]  # SLAC's files have one
        np.testing.assert_allclose(read.probe, modes, rtol=1e-6)
        assert load_scan(path, 0, N).train.probe.shape == (np.squeeze(modes).shape)
    if "pixel" in layout.has:
        assert read.pixel_size == pytest.approx(PIXEL, rel=1e-6)
    if "geometry" in layout.has:
        assert read.energy == pytest.approx(ENERGY, rel=1e-6)
        assert read.distance == pytest.approx(DISTANCE, rel=1e-6)


HC_NM = 1239.841984
"""Planck's constant times the speed of light [eV·nm]."""


@pytest.mark.parametrize(
    ("name", "geometry"),
    [
        ("ptyd: scan.ptyd", {"meta/energy": 9.5, "meta/distance": 2.2, "meta/psize": 55e-6}),
        (
            "NSLS-II diffamp: scan_7.h5",
            {"lambda_nm": HC_NM / 9500, "z_m": 2.2, "ccd_pixel_um": 55.0},
        ),
    ],
)
def test_energy_and_distance_of_a_file_give_the_pixel_at_the_sample(
    name: str, geometry: dict[str, float], scan: Simulated, tmp_path: Path
) -> None:
    """9.5 keV, 2.2 m and 55 µm, other than what the scan was made with: λ·z / (N·pitch)."""
    path = LAYOUTS[name].write(tmp_path, scan)
    before = read_scan(path, size=N).positions
    with h5py.File(path, "a") as file:
        for key, value in geometry.items():
            file[key][...] = value
    read = read_scan(path, size=N)
    assert read.energy == pytest.approx(9500 * EV, rel=1e-6)
    assert read.distance == pytest.approx(2.2, rel=1e-6)
    pixel = 1e-9 * HC_NM / 9500 * 2.2 / (N * 55e-6)
    assert read.pixel_size == pytest.approx(pixel, rel=1e-6)
    moved, was = (placed - placed[0] for placed in (read.positions, before))
    np.testing.assert_allclose(moved * pixel, was * PIXEL, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_fingerprint_is_of_the_content_wherever_it_lies(
    name: str, scan: Simulated, tmp_path: Path
) -> None:
    """The same scan elsewhere has the same one; another count in any of its files another one."""
    one_more = Simulated(scan.obj, scan.probe, scan.positions, scan.counts.copy())
    one_more.counts[-1, 20, 20] += 1
    path = LAYOUTS[name].write(tmp_path / "a", scan)
    # Copied, not written again: HDF5 notes the second in which some objects were made.
    shutil.copytree(path.parent, tmp_path / "b")
    changed = LAYOUTS[name].write(tmp_path / "c", one_more)
    fingerprint = fingerprint_scan(path)
    assert fingerprint == fingerprint_scan(tmp_path / "b" / path.name)
    assert fingerprint != fingerprint_scan(changed)


def test_an_entry_is_chosen_and_others_are_told(scan: Simulated, tmp_path: Path) -> None:
    path = LAYOUTS["CXI: two_entries.cxi"].write(tmp_path, scan)
    first = read_scan(path)
    assert any("'entry_2' is read; there is also entry_3" in remark for remark in first.remarks)
    third = read_scan(path, Hints(entry="entry_3"))
    np.testing.assert_array_equal(third.amplitude[0] ** 2 > 0, first.amplitude[-1] ** 2 > 0)
    assert not any("is read" in remark for remark in third.remarks)
    with pytest.raises(UserError, match="has no entry 'entry_9'; it has entry_2, entry_3, entry_1"):
        read_scan(path, Hints(entry="entry_9"))


def test_an_entry_can_be_chosen_where_the_first_one_cannot_be_read(
    scan: Simulated, tmp_path: Path
) -> None:
    """It is then named by what it holds, as any other; one that can be read keeps its name."""
    path = tmp_path / "two.cxi"
    cxi.put(path, cxi.cxi(scan, instrument_1__detector_1__distance=None), "entry_1")
    cxi.put(path, cxi.cxi(scan), "entry_2")
    chosen = Hints(entry="entry_2")
    assert len(read_scan(path, chosen)) == 60
    copy = tmp_path / "copy.cxi"
    copy.write_bytes(path.read_bytes())
    name, same = (run_id(RunConfig(scan=str(file), scan_entry="entry_2")) for file in (path, copy))
    assert name == same
    with pytest.raises(UserError, match="distance"):
        fingerprint_scan(path)
    whole = LAYOUTS["CXI: two_entries.cxi"].write(tmp_path / "whole", scan)
    assert fingerprint_scan(whole) == fingerprint_scan(whole, Hints(entry="entry_3"))


def test_an_entry_is_refused_where_a_format_has_none(scan: Simulated, tmp_path: Path) -> None:
    path = LAYOUTS["raw NPZ: raw.npz"].write(tmp_path, scan)
    with pytest.raises(UserError, match="entry_2"):
        read_scan(path, Hints(entry="entry_2"))


def test_a_file_that_two_formats_claim_is_refused_and_both_are_named(
    scan: Simulated, tmp_path: Path
) -> None:
    path = LAYOUTS["CXI: scan.cxi"].write(tmp_path, scan)
    with h5py.File(path, "a") as file:
        file["diffamp"], file["points"] = np.ones((20, 8, 8)), np.ones((2, 20))
    with pytest.raises(UserError, match=r"could be read as CXI .* and NSLS-II diffamp"):
        read_scan(path)


def test_an_unknown_file_is_answered_with_what_it_has(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["exchange/frames"] = np.zeros((20, 8, 8), np.uint16)
        for number in range(30):
            file[f"motors/{number}"] = float(number)
    with pytest.raises(UserError) as error:
        read_scan(tmp_path / "scan.h5")
    said = str(error.value)
    assert "exchange/frames (20, 8, 8) uint16" in said and "and 15 more" in said
    assert all(form.wanted in said for form in FORMATS) and "\n" not in said
    np.savez(tmp_path / "grid.npz", diffraction=np.ones((2, N, N, 1)), coords_offsets=np.ones(2))
    with pytest.raises(UserError, match="--train-npz"):
        read_scan(tmp_path / "grid.npz")


def test_what_a_file_says_in_words_or_not_at_all_is_refused_where_numbers_are_asked_for(
    scan: Simulated, tmp_path: Path
) -> None:
    path = LAYOUTS["ptychodus product: product.npz"].write(tmp_path, scan)
    with np.load(path) as stored:
        arrays = dict(stored)
    for value, said in ((np.array("yes"), "not numbers"), (np.zeros(0), "is empty")):
        for name in ("far_field", "probe_energy_eV", "object_pixel_width_m", "object_center_y_m"):
            np.savez(path, **arrays | {name: value})
            with pytest.raises(UserError, match=f"'{name}' .*{said}"):
                read_scan(path)


def test_rows_and_columns_of_a_pair_that_differ_in_number_are_refused(
    scan: Simulated, tmp_path: Path
) -> None:
    path = LAYOUTS["pty-chi pair: data_roi0_dp.hdf5"].write(tmp_path, scan)
    with h5py.File(tmp_path / "data_roi0_para.hdf5", "a") as file:
        del file["ppX"]
        file["ppX"] = np.arange(59.0)
    with pytest.raises(UserError, match="60 rows and 59 columns for 60 frames"):
        read_scan(path)
