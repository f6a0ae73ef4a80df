"""Which rows of a growing HDF5 file are usable: arrays that are preallocated, or out of step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from fno_runner.apply import watch_file
from fno_runner.apply.watch_file import GrowingFile
from fno_runner.data.source import Hints
from fno_runner.errors import UserError
from tests.layouts import LAYOUTS
from tests.scans import simulate_scan, write_cxi
from tests.test_watch import drained, marked

FRAMES = 30


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_file, "CLOSED_S", 0.0)
    monkeypatch.setattr(watch_file, "UNCHANGED_S", 0.0)
    monkeypatch.setattr(watch_file, "EMPTY_S", 0.3)


@contextmanager
def preallocated(
    path: Path, fill: float | None, longest: int | None = FRAMES
) -> Iterator[h5py.File]:
    """A file in SWMR mode whose arrays have their full length from the start."""
    # Without a lock, as one process does not open a file in both ways.
    with h5py.File(path, "w", libver="latest", locking=False) as file:
        shape = (FRAMES, 64, 64)
        file.create_dataset("diff3d", shape, "f4", chunks=(1, 64, 64))
        for name in ("xcoords", "ycoords"):
            file.create_dataset(
                name, (FRAMES,), "f8", chunks=(8,), maxshape=(longest,), fillvalue=fill
            )
        file.swmr_mode = True
        yield file


def write(file: h5py.File, name: str, first: int, values: np.ndarray) -> None:
    file[name][first : first + len(values)] = values
    file[name].flush()


@pytest.mark.parametrize(
    ("fill", "longest"), [(None, FRAMES), (-1.0, FRAMES), (np.nan, FRAMES), (None, None)]
)
def test_a_frame_waits_for_its_position(
    fill: float | None, longest: int | None, tmp_path: Path
) -> None:
    """Also the first frames, before any position is there; a position of 0 is one like others."""
    source = GrowingFile(tmp_path / "scan.h5", Hints())
    with preallocated(tmp_path / "scan.h5", fill, longest) as file:
        write(file, "diff3d", 0, marked(*range(1, 13)))
        assert drained(source, 3) == []
        x = np.array([3.0, 2.0, 1.0, 0.0, 1.0, 2.0])
        write(file, "ycoords", 0, np.arange(6.0))
        write(file, "xcoords", 0, x)
        assert drained(source, 3) == [1, 2, 3, 4, 5, 6]
        write(file, "ycoords", 6, np.arange(6.0, 9.0))
        assert drained(source, 3) == []
        write(file, "xcoords", 6, np.array([5.0, 4.0, 0.5]))
        pieces = [*source.poll(), *source.poll()]
        assert sum(map(len, pieces)) == 3
        placed = np.concatenate([piece.measured.positions for piece in pieces])
        np.testing.assert_array_equal(placed, [[6, 5], [7, 4], [8, 0.5]])


def test_a_row_at_the_origin_of_lists_that_get_longer_is_no_gap(tmp_path: Path) -> None:
    """Each frame's position is appended with it, and the slow axis stays at 0 for 20 frames."""
    source = GrowingFile(tmp_path / "scan.h5", Hints())
    y, x = np.repeat(np.arange(-1.0, 2.0), 20), np.tile(np.arange(1.0, 21.0), 3)
    with h5py.File(tmp_path / "scan.h5", "w", libver="latest", locking=False) as file:
        side = marked(1).shape[-1]
        file.create_dataset(
            "diff3d", (0, side, side), "f4", chunks=(1, side, side), maxshape=(None, side, side)
        )
        for name in ("xcoords", "ycoords"):
            file.create_dataset(name, (0,), "f8", chunks=(8,), maxshape=(None,))
        file.swmr_mode = True
        came: list[int] = []
        for number in range(36):
            for name, value in (("diff3d", marked(number + 1)), ("xcoords", x), ("ycoords", y)):
                file[name].resize(number + 1, 0)
                file[name][number] = value[0] if name == "diff3d" else value[number]
                file[name].flush()
            if number % 6 == 5:
                came += drained(source, 3)
        assert came == list(range(1, 37))


def test_a_position_that_is_no_number_yet_is_waited_for(tmp_path: Path) -> None:
    """A program may write NaN amid the list first; of a whole file such a frame is left out."""
    source = GrowingFile(tmp_path / "scan.h5", Hints())
    with preallocated(tmp_path / "scan.h5", None) as file:
        write(file, "diff3d", 0, marked(*range(1, 9)))
        write(file, "ycoords", 0, np.arange(1.0, 9.0))
        write(file, "xcoords", 0, np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0, 7.0, 8.0]))
        assert drained(source, 3) == []
        write(file, "xcoords", 2, np.array([3.0]))
        assert drained(source, 3) == list(range(1, 9))


def test_a_scan_that_ends_at_the_origin_is_whole_when_its_file_is_closed(tmp_path: Path) -> None:
    source = GrowingFile(tmp_path / "scan.h5", Hints())
    with preallocated(tmp_path / "scan.h5", None) as file:
        write(file, "diff3d", 0, marked(*range(1, FRAMES + 1)))
        for name in ("xcoords", "ycoords"):
            write(file, name, 0, np.arange(FRAMES, 0.0, -1.0) - 1)
        assert drained(source, 3) == list(range(1, FRAMES))
    assert drained(source, 6) == [FRAMES]
    assert source.complete


@pytest.mark.parametrize("readings", [FRAMES, FRAMES + 1])
def test_a_monitor_that_is_ahead_of_the_frames_is_used(readings: int, tmp_path: Path) -> None:
    path = write_cxi(tmp_path / "scan.cxi", simulate_scan(frames=FRAMES))
    monitor = np.linspace(1, 2, readings)
    with h5py.File(path, "a") as file:
        name = "entry_1/instrument_1/monitor_1/data"
        file.create_dataset(name, data=monitor, maxshape=(None,))
    (piece,) = GrowingFile(path, Hints()).poll()
    assert piece.measured.monitor is not None and len(piece) == FRAMES
    np.testing.assert_array_equal(piece.measured.monitor, monitor[:FRAMES])


@pytest.mark.parametrize(
    ("name", "frames_in"),
    [
        ("ptyd: scan.ptyd", None),
        ("pty-chi pair: other_para.hdf5", "other_dp.hdf5"),
        ("ptychodus product: product.h5", "diffraction.h5"),
        ("raw NPZ: scan.mat", None),
    ],
)
def test_a_file_that_cannot_grow_is_refused(
    name: str, frames_in: str | None, tmp_path: Path
) -> None:
    path = LAYOUTS[name].write(tmp_path, simulate_scan())
    with pytest.raises(UserError) as refused:
        list(GrowingFile(path, Hints()).poll())
    assert str(refused.value).startswith(str(path))
    if frames_in is not None:
        assert str(path.with_name(frames_in)) in str(refused.value)
