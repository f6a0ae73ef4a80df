"""The object that grows while frames arrive, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from fno_runner.apply.live import STATE, WatchState, recording_of
from fno_runner.apply.live_page import PAGE, served
from fno_runner.apply.watch import Piece
from fno_runner.config import N
from fno_runner.data import measured
from fno_runner.data.measured import Flags, InMemory, Measured
from fno_runner.data.npz import write_npz
from fno_runner.data.recording import clean
from fno_runner.errors import UserError
from fno_runner.reconstruct.stitching import Canvas, GrowingCanvas


def test_a_growing_canvas_is_a_canvas() -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(20, 100, (30, 2)).astype(np.float32)
    patches = (rng.random((30, 16, 16)) + 1j).astype(np.complex64)
    probe = np.ones((16, 16), np.complex64)
    fixed, grown = Canvas((128, 128)), GrowingCanvas()
    fixed.add(patches, positions, probe)
    for some in np.array_split(rng.permutation(30), 7):
        grown.add(patches[some], positions[some], probe)
    part = grown.window((11, 11), (98, 98))
    np.testing.assert_allclose(part.total, fixed.total[11:109, 11:109], atol=1e-4)
    np.testing.assert_allclose(part.weight, fixed.weight[11:109, 11:109], atol=1e-4)


def test_a_frame_is_scaled_by_its_monitor_alike_in_the_opening_and_later() -> None:
    """Also where readings are missing: they have no part in one median and not in the other."""
    rng = np.random.default_rng(0)
    monitor = rng.uniform(0.5, 1.5, 40)
    counts = rng.poisson(500, (40, N, N)) * monitor[:, None, None]
    monitor[:6] = np.nan
    measured = watched(counts, rng, monitor)
    opening = clean(measured)
    later = opening.going_on(measured)
    assert len(opening) == len(later) == 34
    for (_, first), (_, second) in zip(opening.intensities(), later.intensities(), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


@pytest.mark.parametrize("believed", [True, False], ids=["divided by", "no help"])
def test_frames_of_which_the_monitor_saw_no_beam_come_neither_first_nor_later(
    believed: bool,
) -> None:
    """Whatever counts they have, and whether or not the others are divided by the monitor."""
    rng = np.random.default_rng(0)
    monitor = rng.uniform(0.5, 1.5, 40)
    counts = rng.poisson(500, (40, N, N)) * (monitor[:, None, None] if believed else 1.0)
    monitor[[7, 8, 30]] = 0, 0.01, np.nan
    measured = watched(counts, rng, monitor)
    opening = clean(measured)
    later = opening.going_on(measured)
    np.testing.assert_array_equal(opening.positions, np.delete(measured.positions, [7, 8, 30], 0))
    np.testing.assert_array_equal(later.positions, opening.positions)
    assert sum(len(rows) for rows, _ in later.intensities()) == 37


@pytest.mark.parametrize("value", [np.nan, 2.0**32 - 1, 65535.0])
def test_a_frame_without_values_comes_neither_first_nor_later(value: float) -> None:
    """No mean pattern stands in its place."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(50, (40, N, N)).astype(np.float32)
    counts[[3, 30]] = value
    measured = watched(counts, rng, np.ones(40))
    opening = clean(measured)
    later = opening.going_on(measured)
    np.testing.assert_array_equal(opening.positions, np.delete(measured.positions, [3, 30], 0))
    np.testing.assert_array_equal(later.positions, opening.positions)


def watched(counts: np.ndarray, rng: np.random.Generator, monitor: np.ndarray) -> Measured:
    return Measured(
        path=Path("scan.h5"),
        format="test",
        frames=InMemory(counts.astype(np.float32)),
        frames_name="frames",
        kind="intensity",
        positions=rng.uniform(0, 50, (len(counts), 2)),
        monitor=monitor,
    )


def test_flags_of_single_frames_are_those_of_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an opening whose pieces are larger than a block."""
    monkeypatch.setattr(measured, "BLOCK_BYTES", 4 * 4 * N * N)
    rng = np.random.default_rng(0)
    counts = rng.poisson(50, (40, N, N)).astype(np.float32)
    bad = np.zeros((40, N, N), np.uint8)
    bad[:, 3, 4] = 1
    pieces = [
        Piece(
            str(number),
            Measured(
                path=Path("scan.h5"),
                format="test",
                frames=InMemory(counts[rows]),
                frames_name="frames",
                kind="intensity",
                positions=rng.uniform(0, 50, (20, 2)),
                flags=Flags(InMemory(bad[rows]), lambda marks: marks > 0),
            ),
        )
        for number, rows in enumerate((slice(0, 20), slice(20, 40)))
    ]
    recording = recording_of(pieces)
    assert len(recording) == 40 and np.argwhere(~recording.mask).tolist() == [[3, 4]]


def test_only_the_page_and_the_object_are_served(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("the page")
    (tmp_path / STATE).write_text("not for others")
    with served(tmp_path, 0) as address:
        assert address is not None
        assert urlopen(address).read() == b"the page"
        port = int(address.rsplit(":", 1)[1].strip("/"))
        for path, host in ((STATE, "localhost"), ("..", "localhost"), (PAGE, "example.org")):
            with pytest.raises(HTTPError) as refused:
                urlopen(Request(address + path, headers={"Host": host}))
            refused.value.close()
        with pytest.raises(UserError, match=str(port)), served(tmp_path, port):
            pass


@pytest.mark.parametrize(
    ("key", "value"),
    [("keys", 3), ("refused", ["a"]), ("left_out", -1), ("off", "nan"), ("version", 2)],
)
def test_what_no_watch_keeps_is_not_gone_on_from(tmp_path: Path, key: str, value: object) -> None:
    facts: dict[str, object] = {
        "version": 1, "opening": ["a"], "fingerprint": "f", "keys": ["a"], "refused": {},
        "left_out": 0, "empty": 0, "off": 1.5, "all": 2.5,
    }  # fmt: skip
    arrays: dict[str, np.ndarray] = {
        "total": np.ones((4, 4), np.complex64),
        "weight": np.ones((4, 4), np.float32),
        "origin": np.zeros(2, np.int64),
        "positions": np.zeros((3, 2)),
        "indexes": np.arange(3),
    }

    def kept(about: dict[str, object]) -> WatchState | None:
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        write_npz(tmp_path / STATE, arrays | {"about": text})
        return WatchState.read(tmp_path)

    good = kept(facts)
    assert good is not None and good.about.off == 1.5
    with pytest.raises(UserError, match="damaged, or of another version"):
        kept(facts | {key: value})
