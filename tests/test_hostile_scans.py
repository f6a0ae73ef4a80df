"""Whatever bytes a scan's file holds, in any layout, it is read or refused in one line."""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fno_runner.data import hdf5
from fno_runner.data.formats import open_scan, read_scan
from fno_runner.data.recording import clean
from fno_runner.errors import UserError
from tests import faults
from tests.layouts import LAYOUTS, cxi
from tests.scans import simulate_scan
from tests.test_hostile_files import fuzzing

STRUCTURE = 6_000
"""Most of what is no frames stands in so many bytes at the ends of an HDF5 or NPZ file."""
fuzzing_each = settings(fuzzing, max_examples=100 if faults.EXHAUSTIVE else 6)


@st.composite
def spoiled(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with bytes changed, cut out or put in, most of them where its structure is."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        end = min(STRUCTURE, len(content))
        head = st.integers(0, end - 1)
        tail = head.map(lambda place: len(content) - 1 - place)
        at = draw(head | tail | st.integers(0, len(content) - 1))
        other = draw(st.binary(min_size=1, max_size=8))
        what = draw(st.sampled_from(["write", "write", "put", "cut"]))
        content[at : at + (0 if what == "put" else len(other))] = b"" if what == "cut" else other
    return bytes(content)


@pytest.mark.parametrize("name", LAYOUTS)
def test_any_bytes_are_a_scan_or_are_refused(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = LAYOUTS[name].write(tmp_path_factory.mktemp("scan"), simulate_scan())
    whole = path.read_bytes()

    @fuzzing_each
    @given(content=spoiled(whole))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        faults.fuzzed["scans"] += 1
        try:
            with open_scan(path) as opened:
                clean(opened.measured)
                opened.source.fingerprint()
        except UserError as error:
            assert "\n" not in str(error)

    read()


@pytest.mark.parametrize("packed", [False, True])
def test_a_dataset_that_claims_too_much_is_refused(packed: bool, tmp_path: Path) -> None:
    """Also where the claim is a virtual dataset's, whose own storage is none."""
    scan = simulate_scan()
    cxi.put(tmp_path / "s.cxi", cxi.cxi(scan, instrument_1__detector_1__data=None))
    shape = (60, 100_000, 100_000)
    with h5py.File(tmp_path / "s.cxi", "a") as file:
        chunks, gzip = ((1, 1000, 1000), "gzip") if packed else (None, None)
        if packed:
            file.create_dataset("frames", shape, "u2", chunks=chunks, compression=gzip)
        else:
            layout = h5py.VirtualLayout(shape, "u2")
            file["one"] = np.ones((1, 10), "u2")
            layout[0, 0, :10] = h5py.VirtualSource(".", "one", (1, 10))[0]
            file.create_virtual_dataset("frames", layout)
        place = "entry_1/instrument_1/detector_1/data"
        file[place] = h5py.SoftLink("/frames")
    with pytest.raises(UserError, match="claims 1,200,000,000,000 bytes, the file holds"):
        read_scan(tmp_path / "s.cxi")
    faults.count("HDF5 bombs")


def test_frames_that_are_too_large_for_a_detector_are_refused(tmp_path: Path) -> None:
    """Packed so well that the claim can be true: 60 frames of 81 million pixels, in 5 MB."""
    scan = simulate_scan()
    cxi.put(tmp_path / "s.cxi", cxi.cxi(scan, instrument_1__detector_1__data=None))
    shape = (60, 9000, 9000)
    packed = zlib.compress(bytes(9000 * 9000))
    with h5py.File(tmp_path / "s.cxi", "a") as file:
        frames = file.create_dataset(
            "frames", shape, "u1", chunks=(1, *shape[1:]), compression="gzip"
        )
        for number in range(len(frames)):
            frames.id.write_direct_chunk((number, 0, 0), packed)
        file["entry_1/instrument_1/detector_1/data"] = h5py.SoftLink("/frames")
    with pytest.raises(UserError, match="frames of 81,000,000 px; at most 67,108,864 px"):
        read_scan(tmp_path / "s.cxi")
    faults.count("HDF5 bombs")


def test_a_dataset_that_is_made_of_others_again_and_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty levels of two halves each are a million datasets, each of which HDF5 would open."""
    monkeypatch.setattr(hdf5, "MAX_LINKS", 300)
    scan = simulate_scan()
    cxi.put(tmp_path / "s.cxi", cxi.cxi(scan, instrument_1__detector_1__data=None))
    shape = (60, 64, 64)
    with h5py.File(tmp_path / "s.cxi", "a") as file:
        for half in "ab":
            file[f"0{half}"] = scan.counts
        for level in range(1, 20):
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:30] = h5py.VirtualSource(".", f"{level - 1}a", shape)[:30]
            layout[30:] = h5py.VirtualSource(".", f"{level - 1}b", shape)[30:]
            for half in "ab":
                file.create_virtual_dataset(f"{level}{half}", layout)
        file["entry_1/instrument_1/detector_1/data"] = h5py.SoftLink("/19a")
    with pytest.raises(UserError, match="is made of more than 300 datasets"):
        read_scan(tmp_path / "s.cxi")
    faults.count("HDF5 bombs")
