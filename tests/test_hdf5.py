"""HDF5 as it is: links within the folder, virtual and compressed datasets, claims, user blocks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fno_runner.data.contents import content_hash
from fno_runner.data.formats import open_scan, read_scan
from fno_runner.data.hdf5 import Hdf5File
from fno_runner.data.recording import clean
from fno_runner.errors import UserError
from tests.layouts import cxi
from tests.scans import ENERGY, Simulated, simulate_scan

DATA = "entry_1/instrument_1/detector_1/data"


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


def without_frames(path: Path, scan: Simulated, **changed: Any) -> h5py.File:
    """A CXI file whose frames are still to be written."""
    cxi.put(path, cxi.cxi(scan, instrument_1__detector_1__data=None, **changed))
    return h5py.File(path, "a")


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_scan(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name", ["../frames.h5", "/etc/passwd", "sub/../../frames.h5"], ids=["up", "absolute", "round"]
)
def test_a_link_that_leaves_the_folder_is_named_where_it_is_needed(
    name: str, scan: Simulated, tmp_path: Path
) -> None:
    with without_frames(tmp_path / "s.cxi", scan) as file:
        file[DATA] = h5py.ExternalLink(name, "/data")
        file["entry_1/other"] = h5py.ExternalLink(name, "/data")
    assert f"links to another file, '{name}', which is not in its folder" in refusal(
        tmp_path / "s.cxi"
    )
    with h5py.File(tmp_path / "s.cxi", "a") as file:
        del file[DATA]
        file[DATA] = scan.counts
    assert len(read_scan(tmp_path / "s.cxi")) == 60  # the other one is not needed


def test_an_absolute_link_to_the_same_folder_is_followed(scan: Simulated, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["data"] = scan.counts
    with without_frames(tmp_path / "s.cxi", scan) as file:
        file[DATA] = h5py.ExternalLink(str(tmp_path / "frames.h5"), "/data")
    assert len(read_scan(tmp_path / "s.cxi")) == 60


def test_links_that_lead_nowhere_or_in_a_circle_end(scan: Simulated, tmp_path: Path) -> None:
    with without_frames(tmp_path / "a.cxi", scan) as file:
        file[DATA] = h5py.SoftLink("/entry_1/data_1/data")
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/{DATA}")
    assert "has no 'entry_1/data_1/data'" in refusal(tmp_path / "a.cxi") or "more than" in refusal(
        tmp_path / "a.cxi"
    )
    with without_frames(tmp_path / "b.cxi", scan) as file:
        file[DATA] = h5py.ExternalLink("nowhere.h5", "/data")
    assert "'nowhere.h5', which is not there" in refusal(tmp_path / "b.cxi")


@pytest.mark.parametrize("missing", ["file", "dataset"])
def test_a_virtual_dataset_that_lacks_a_source_is_no_zeros(
    missing: str, scan: Simulated, tmp_path: Path
) -> None:
    """HDF5 shows zeros where a source is missing, which look like frames without a beam."""
    layout = h5py.VirtualLayout(scan.counts.shape, np.float32)
    for number in range(2):
        rows = slice(30 * number, 30 * number + 30)
        with h5py.File(tmp_path / f"part{number}.h5", "w") as file:
            file["data"] = scan.counts[rows]
        layout[rows] = h5py.VirtualSource(f"part{number}.h5", "data", (30, *scan.counts.shape[1:]))
    with without_frames(tmp_path / "s.cxi", scan) as file:
        file.create_virtual_dataset(DATA, layout)
    assert len(read_scan(tmp_path / "s.cxi")) == 60
    if missing == "file":
        (tmp_path / "part1.h5").unlink()
    else:
        with h5py.File(tmp_path / "part1.h5", "a") as file:
            del file["data"]
    assert "part1.h5" in refusal(tmp_path / "s.cxi")


def test_a_filter_that_is_not_here_is_named(scan: Simulated, tmp_path: Path) -> None:
    """As number 305 is reserved for LZO, which nobody here has, the file cannot be unpacked."""
    with without_frames(tmp_path / "s.cxi", scan) as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((1, 64, 64))
        made.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(scan.counts.shape)
        group = file["entry_1/instrument_1/detector_1"]
        dataset = h5py.h5d.create(group.id, b"data", h5py.h5t.NATIVE_FLOAT, space, made)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(scan.counts, "f4"))
    said = refusal(tmp_path / "s.cxi")
    assert "HDF5 filter 305" in said and "hdf5plugin" in said


def test_a_file_that_changes_while_it_is_read_is_not_believed(
    scan: Simulated, tmp_path: Path
) -> None:
    path = tmp_path / "s.cxi"
    cxi.put(path, cxi.cxi(scan))
    with pytest.raises(UserError, match="has changed while it was read"), open_scan(path) as opened:
        clean(opened.measured)
        os.utime(path, ns=(1, 1))


def test_a_hash_is_computed_anew_where_a_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    first = content_hash(path)
    path.write_bytes(b"other")
    assert content_hash(path) != first


@pytest.mark.parametrize(
    ("name", "value", "unit", "said"),
    [
        ("instrument_1/detector_1/distance", 78.7, "inches", "has the unit 'inches'; known are"),
        ("instrument_1/detector_1/distance", 2.0e6, "mm", "is 2000 m; allowed is"),
        ("instrument_1/source_1/energy", 8.7, "furlong", "has the unit 'furlong'"),
        ("instrument_1/source_1/energy", 8700.0, None, "is 8700 J; allowed is"),
        ("instrument_1/detector_1/distance", np.nan, None, "is nan, not a number"),
        ("instrument_1/detector_1/distance", [2.0, 2.0, 3.0], None, "has 3 numbers from 2 to 3"),
        ("instrument_1/source_1/energy", [7e3, 8e3], "eV", "has 2 numbers from 7000 to 8000"),
    ],
)
def test_a_unit_is_obeyed_or_refused(
    name: str, value: object, unit: str | None, said: str, scan: Simulated, tmp_path: Path
) -> None:
    cxi.put(tmp_path / "s.cxi", cxi.cxi(scan, **{name: value}))
    if unit is not None:
        with h5py.File(tmp_path / "s.cxi", "a") as file:
            file[f"entry_1/{name}"].attrs["units"] = unit
    assert said in refusal(tmp_path / "s.cxi")


def test_a_number_of_each_frame_is_one_number(scan: Simulated, tmp_path: Path) -> None:
    """A first one that is none, or off by what a reading is off, decides nothing."""
    energies = ENERGY * np.linspace(0.999, 1.001, 60)
    energies[0] = np.nan
    name = "instrument_1/source_1/energy"
    cxi.put(tmp_path / "s.cxi", cxi.cxi(scan, **{name: energies}))
    assert read_scan(tmp_path / "s.cxi").energy == pytest.approx(ENERGY, rel=1e-4)


def test_null_and_text_where_numbers_should_be_are_named(scan: Simulated, tmp_path: Path) -> None:
    distance = "instrument_1/detector_1/distance"
    cxi.put(tmp_path / "a.cxi", cxi.cxi(scan, **{distance: h5py.Empty("f8")}))
    assert "is empty (an HDF5 null dataset)" in refusal(tmp_path / "a.cxi")
    cxi.put(tmp_path / "b.cxi", cxi.cxi(scan, **{distance: "two metres"}))
    assert "not numbers" in refusal(tmp_path / "b.cxi")


def test_blocks_are_whole_chunks_and_hold_every_frame_once(tmp_path: Path) -> None:
    """Whatever the chunks: of one frame, of many, of tiles over all frames; and for a raster."""
    frames = np.arange(120 * 32 * 32, dtype=np.uint32).reshape(120, 32, 32)
    shapes: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = [
        ((120, 32, 32), None), ((120, 32, 32), (1, 32, 32)), ((120, 32, 32), (7, 32, 32)),
        ((120, 32, 32), (120, 8, 8)), ((12, 10, 32, 32), (1, 10, 32, 32)),
        ((2, 5, 12, 32, 32), (1, 1, 1, 32, 32)),
    ]  # fmt: skip
    with h5py.File(tmp_path / "s.h5", "w") as file:
        for number, (shape, chunks) in enumerate(shapes):
            packed = None if chunks is None else "gzip"
            data = frames.reshape(shape)
            file.create_dataset(str(number), data=data, chunks=chunks, compression=packed)
    contents = Hdf5File(tmp_path / "s.h5")
    for number, (shape, _) in enumerate(shapes):
        stack = contents.frames(str(number))
        assert stack.shape == (120, 32, 32) and stack.leading == shape[:-2]
        frames_read = np.zeros_like(frames)
        for first, block in stack.blocks():
            frames_read[first : first + len(block)] += block
        np.testing.assert_array_equal(frames_read, frames)
    contents.close()
