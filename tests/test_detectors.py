"""What detectors write where they have nothing, masks, lost frames: found out, and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.formats import open_scan, read_scan
from fno_runner.data.frames import Scan
from fno_runner.data.measured import InMemory, Measured
from fno_runner.data.pixels import dead, isolated, survey
from fno_runner.data.recording import clean
from fno_runner.data.source import Hints
from fno_runner.errors import UserError
from tests.layouts import cxi, npz
from tests.scans import DISTANCE, PITCH, PIXEL, Simulated, simulate_scan

DETECTOR = "instrument_1__detector_1__"
GAP = np.s_[:, 30:33, :]
"""Three rows of every frame."""


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


def read(path: Path, scan: Simulated, **changed: Any) -> Scan:
    """The simulated scan as CXI without a mask, with changes below entry_1."""
    data = {f"{DETECTOR}data": scan.counts.astype(np.uint32), f"{DETECTOR}mask": None}
    cxi.put(path, cxi.cxi(scan, **(data | changed)))
    return read_scan(path, size=N)


def bad_pixels(scan: Scan) -> np.ndarray:
    return np.zeros((N, N), bool) if scan.mask is None else ~scan.mask


def told(scan: Scan, words: str) -> bool:
    return any(words in remark for remark in scan.remarks)


# --- pixels without a value -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("i4", -1), ("i2", -2), ("u2", 2**16 - 1), ("u4", 2**32 - 1), ("u4", 2**16 - 1),
        ("i4", 2**31 - 1), ("f4", 2.0**32 - 1), ("f8", 2.0**16 - 1), ("f4", np.nan),
        ("f4", np.inf), ("f8", 1e300), ("f4", 0),
    ],
)  # fmt: skip
def test_a_gap_is_masked_whatever_it_holds(
    dtype: str, value: float, scan: Simulated, tmp_path: Path
) -> None:
    few = np.minimum(scan.counts, 30_000)
    counts = few.astype(dtype)
    counts[GAP] = value
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}data": counts})
    expected = np.zeros((N, N), bool)
    expected[GAP[1:]] = True
    np.testing.assert_array_equal(bad_pixels(loaded), expected)
    good = np.where(expected, 0, few)
    np.testing.assert_allclose(np.square(loaded.amplitude), good, atol=0.1)
    assert told(loaded, f"{3 * N} pixels")


def test_amplitudes_have_gaps_too(scan: Simulated, tmp_path: Path) -> None:
    amplitude = np.sqrt(scan.counts)
    amplitude[GAP] = np.sqrt(2.0**32 - 1)
    np.savez(tmp_path / "s.npz", **npz.raw(scan, diff3d=amplitude, mask=None))
    assert bad_pixels(read_scan(tmp_path / "s.npz")).sum() == 3 * N


def test_a_hot_pixel_is_masked_and_moves_no_centre(scan: Simulated, tmp_path: Path) -> None:
    wide = np.zeros((60, 128, 128), np.uint32)
    wide[:, 10 : 10 + N, 40 : 40 + N] = scan.counts
    rng = np.random.default_rng(0)
    steady, flickering = wide.copy(), wide.copy()
    steady[:, 120, 5] = 10**6
    flickering[:, 120, 5] = 10**7 * rng.integers(0, 2, 60)
    without = {"instrument_1__source_1__probe": None}
    expected = read(tmp_path / "0", scan, **{f"{DETECTOR}data": wide}, **without)
    for number, (frames, words) in enumerate(((steady, "1 hot pixels"), (flickering, "hot?"))):
        name = tmp_path / f"hot{number}"
        loaded = read(name, scan, **{f"{DETECTOR}data": frames}, **without)
        np.testing.assert_array_equal(loaded.amplitude, expected.amplitude)
        assert told(loaded, words)


@pytest.mark.parametrize("corner", [False, True], ids=["middle", "corner"])
def test_dead_pixels_and_a_beam_stop_are_masked_and_told(
    corner: bool, scan: Simulated, tmp_path: Path
) -> None:
    """Single pixels and a block of them amid the light, which no frame has a count in."""
    dead = np.zeros((N, N), bool)
    dead[29:36, 29:36] = dead[20, 30] = dead[40, 25] = True
    counts = np.where(dead, 0, scan.counts)
    if corner:
        counts = np.fft.ifftshift(counts, axes=(1, 2))
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}data": counts.astype(np.uint32)})
    np.testing.assert_array_equal(bad_pixels(loaded), dead)
    assert told(loaded, "51 pixels")


@pytest.mark.parametrize("photons", [10, 1e2, 1e3, 1e4, 1e6])
@pytest.mark.parametrize("frames", [16, 400])
@pytest.mark.parametrize("stop", [0.0, 0.5])
def test_where_no_light_comes_no_pixel_is_dead(photons: float, frames: int, stop: float) -> None:
    """Frames of few photons and many; a bright field with a dark middle, whose rims are sharp."""
    y, x = np.indices((N, N)) - N // 2
    radius = np.hypot(y, x)
    field = ((radius < 12) & (radius >= 12 * stop)).astype(float)
    rng = np.random.default_rng(0)
    for halo in (0.0, 1e-5, 1e-4, 1e-3, 1e-2):  # scattered by the sample, less with the distance
        expected = field + halo * np.exp(-np.abs(radius - 12) / 3)
        counts = rng.poisson(photons * expected / expected.sum(), (frames, N, N)).astype(float)
        for photon in (1e-3, 1.0, 40.0):
            statistics = survey(in_memory(counts * photon))
            assert not dead(statistics, np.ones((N, N), bool), in_the_corner=False).any()


def test_the_dark_corners_of_a_frame_about_a_bright_disc_are_not_dead() -> None:
    """The disc touches all edges, and its rim is bright: what is beyond the edges nobody knows."""
    y, x = np.indices((N, N)) - N // 2
    counts = np.where(np.hypot(y, x) < 0.53 * N, 40.0, 0.0)
    statistics = survey(in_memory(np.broadcast_to(counts, (30, N, N)).copy()))
    assert not dead(statistics, np.ones((N, N), bool), in_the_corner=False).any()


def in_memory(counts: np.ndarray) -> Measured:
    return Measured(path=Path("s"), format="CXI", frames=InMemory(counts), frames_name="data",
                    kind="intensity", positions=np.zeros((len(counts), 2)))  # fmt: skip


# --- masks ----------------------------------------------------------------------------------------


def test_where_no_pixel_stands_out_none_is_isolated() -> None:
    even = np.ones((N, N))
    assert not isolated(even).any() and not isolated(0 * even).any()
    even[3, 4] = 1e5
    assert np.argwhere(isolated(even)).tolist() == [[3, 4]]


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4"])
def test_a_mask_may_have_any_type(dtype: str, scan: Simulated, tmp_path: Path) -> None:
    mask = np.zeros((N, N), dtype)
    mask[7, 9] = 1
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}mask": mask})
    assert np.argwhere(bad_pixels(loaded)).tolist() == [[7, 9]]


def test_bits_of_a_cxi_mask_are_those_of_version_1_6(scan: Simulated, tmp_path: Path) -> None:
    faults = [0x1, 0x2, 0x4, 0x8, 0x10, 0x40, 0x80, 0x100, 0x200]
    none = [0x20, 0x800, 0x1000, 0x4000, 0x10000, 0x80000000]
    mask = np.zeros((N, N), np.uint32)
    mask[0, : len(faults)], mask[1, : len(none)] = faults, none
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}mask": mask})
    assert np.argwhere(bad_pixels(loaded)).tolist() == [[0, n] for n in range(len(faults))]


def test_a_mask_of_each_frame_costs_a_frame_or_a_value_and_no_pixel(
    scan: Simulated, tmp_path: Path
) -> None:
    """Frame 5 lacks its centre and is left out; others lack a faint pixel, which is filled."""
    mask = np.zeros((60, N, N), np.uint8)
    mask[5, 20:44, 20:44] = 1
    faint = scan.counts.mean(axis=0)
    place = np.unravel_index(np.argmin(np.where(faint > 0.5, faint, np.inf)), faint.shape)
    mask[7, place[0], place[1]] = 1
    mask[:, 0, 0] = 1
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}mask": mask})
    assert np.argwhere(bad_pixels(loaded)).tolist() == [[0, 0]]
    assert len(loaded) == 59 and told(loaded, "1 frame (5) left out")
    assert told(loaded, "1 values that single frames lack")
    row, col = place
    others = np.delete(scan.counts, 7, axis=0)[:, row, col]
    filled = loaded.amplitude[6, row, col] ** 2  # frame 7, as frame 5 is gone
    assert filled == pytest.approx(others.mean(), rel=0.02)
    apart = loaded.positions - np.delete(scan.positions, 5, axis=0)
    np.testing.assert_allclose(apart - apart[0], 0, atol=1e-6)


def test_a_mask_the_wrong_way_round_is_noticed(scan: Simulated, tmp_path: Path) -> None:
    mask = np.ones((N, N), np.uint8)
    mask[7, 9] = 0
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}mask": mask})
    assert np.argwhere(bad_pixels(loaded)).tolist() == [[7, 9]]
    assert told(loaded, "read the other way round")


def test_a_dark_of_no_use_costs_a_remark(scan: Simulated, tmp_path: Path) -> None:
    dark = np.full((3, N, N), 5.0)
    dark[1] = np.nan
    counts = (scan.counts + 5).astype(np.uint32)
    right = read(tmp_path / "a", scan, **{f"{DETECTOR}data": counts, f"{DETECTOR}dark": dark})
    np.testing.assert_allclose(np.square(right.amplitude), scan.counts, atol=0.1)
    for number, useless in enumerate((np.full((N, N), np.nan), np.zeros((3, 3)))):
        loaded = read(tmp_path / str(number), scan, **{f"{DETECTOR}dark": useless})
        assert told(loaded, "dark or background is not subtracted")
        np.testing.assert_allclose(np.square(loaded.amplitude), scan.counts, atol=0.1)


# --- frames ---------------------------------------------------------------------------------------


def test_frames_without_a_beam_are_left_out(scan: Simulated, tmp_path: Path) -> None:
    counts = scan.counts.astype(np.uint32)
    counts[10] = 0
    counts[20] = np.random.default_rng(0).poisson(0.1, (N, N))
    counts[30] //= 30
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}data": counts})
    assert len(loaded) == 57
    assert told(loaded, "1 frame (10) left out") and told(loaded, "2 frames (20, 30) left out")
    kept = np.delete(scan.counts, (10, 20, 30), axis=0)
    np.testing.assert_allclose(np.square(loaded.amplitude), kept, atol=0.1)


@pytest.mark.parametrize("first", [58, 20], ids=["a few", "most"])
def test_frames_of_an_aborted_scan_are_left_out(
    first: int, scan: Simulated, tmp_path: Path
) -> None:
    """Where nothing was written there are NaN, or a detector's mark, in the frames or positions."""
    expected = read(tmp_path / "all", scan).positions[:first]
    blank, marked = scan.counts.copy(), scan.counts.copy()
    blank[first:, 3:] = np.nan
    marked[first:] = 2.0**32 - 1
    place = "sample_1__geometry_1__translation"
    moved = cxi.cxi(scan)[place.replace("__", "/")].copy()
    moved[first:, 0] = np.nan
    changes = ({f"{DETECTOR}data": blank}, {f"{DETECTOR}data": marked}, {place: moved})
    for number, changed in enumerate(changes):
        path = tmp_path / str(number)
        loaded = read(path, scan, **changed)
        assert told(loaded, f"{60 - first} frames ({first}, {first + 1}")
        np.testing.assert_allclose(np.square(loaded.amplitude), scan.counts[:first], atol=0.1)
        apart = loaded.positions - expected
        np.testing.assert_allclose(apart - apart[0], 0, atol=1e-6)
        with open_scan(path) as opened:
            mean = clean(opened.measured).mean
        np.testing.assert_allclose(
            mean.sum(), scan.counts[:first].sum(axis=(1, 2)).mean(), rtol=0.01
        )


def test_one_frame_without_the_mask_of_the_others_is_one_frame(
    scan: Simulated, tmp_path: Path
) -> None:
    """The others lack two thirds of their pixels, and are no frames of an aborted scan."""
    marks = np.zeros(scan.counts.shape, np.uint8)
    marks[1:, :8] = marks[1:, -8:] = marks[1:, :, :8] = marks[1:, :, -8:] = 1
    marks[1:, 8:20] = 1
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}mask": marks})
    assert len(loaded) == 60 and loaded.mask is not None and not loaded.mask[:20].any()


def test_the_monitor_of_an_aborted_scan_is_that_of_its_frames(
    scan: Simulated, tmp_path: Path
) -> None:
    """Behind its end the monitor is 0, in more than half of what was to come."""
    place = "sample_1__geometry_1__translation"
    moved = cxi.cxi(scan)[place.replace("__", "/")].copy()
    moved[25:, 0] = np.nan
    monitor = np.random.default_rng(0).uniform(0.5, 1.5, 60)
    monitor /= np.median(monitor[:25])
    counts = scan.counts * monitor[:, None, None]
    monitor[25:] = 0
    said = {f"{DETECTOR}data": counts, "instrument_1__monitor_1__data": monitor, place: moved}
    loaded = read(tmp_path / "s", scan, **said)
    assert len(loaded) == 25
    np.testing.assert_allclose(np.square(loaded.amplitude), scan.counts[:25], rtol=1e-3, atol=0.1)


def test_without_positions_for_enough_frames_a_scan_is_refused(
    scan: Simulated, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"60 frames \(0, 1, 2, 3, 4, …\) left out"):
        read(tmp_path / "s", scan, sample_1__geometry_1__translation=np.full((60, 3), np.nan))


def test_a_sample_that_is_dark_in_places_keeps_its_frames(scan: Simulated, tmp_path: Path) -> None:
    counts = scan.counts.astype(np.uint32)
    counts[:20] //= 30
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}data": counts})
    assert len(loaded) == 60 and told(loaded, "the sample may be dark there")


def test_a_monitor_that_explains_the_counts_is_used(scan: Simulated, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    monitor = rng.uniform(0.5, 1.5, 60)
    monitor /= np.median(monitor)
    counts = scan.counts * monitor[:, None, None]
    monitor[3] = 0.01
    said = {f"{DETECTOR}data": counts, "instrument_1__monitor_1__data": monitor * 77}
    loaded = read(tmp_path / "a", scan, **said)
    assert len(loaded) == 59 and told(loaded, "the monitor saw no beam")
    kept = np.delete(scan.counts, 3, axis=0)
    np.testing.assert_allclose(np.square(loaded.amplitude), kept, rtol=1e-3, atol=0.1)
    noise = {"instrument_1__monitor_1__data": rng.uniform(0.5, 1.5, 60)}
    loaded = read(tmp_path / "b", scan, **noise)
    assert told(loaded, "the monitor does not explain")
    np.testing.assert_allclose(np.square(loaded.amplitude), scan.counts, atol=0.1)
    longer = {"instrument_1__monitor_1__data": np.ones(61)}
    loaded = read(tmp_path / "c", scan, **longer)
    assert told(loaded, "61")
    np.testing.assert_allclose(np.square(loaded.amplitude), scan.counts, atol=0.1)


# --- what frames hold, and where ------------------------------------------------------------------


def test_whole_numbers_are_no_amplitudes_unless_one_says_so(
    scan: Simulated, tmp_path: Path
) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, **npz.raw(scan, diff3d=scan.counts, mask=None))
    with pytest.raises(UserError, match="--data intensity"):
        read_scan(path)
    counts = read_scan(path, Hints(data="intensity")).amplitude
    np.testing.assert_allclose(np.square(counts), scan.counts, atol=0.1)
    np.testing.assert_array_equal(read_scan(path, Hints(data="amplitude")).amplitude, scan.counts)


def test_positions_in_metres_are_told_where_pixels_are_meant(
    scan: Simulated, tmp_path: Path
) -> None:
    micrometres = scan.positions * PIXEL * 1e6
    np.savez(tmp_path / "s.npz", **npz.raw(scan, xcoords=micrometres[:, 1], objectGuess=None,
                                           ycoords=micrometres[:, 0]))  # fmt: skip
    assert told(read_scan(tmp_path / "s.npz"), "are the positions' units right?")


def test_a_beam_that_fills_the_frame_may_be_a_near_field(scan: Simulated, tmp_path: Path) -> None:
    even = np.random.default_rng(0).poisson(100, (60, N, N))
    loaded = read(tmp_path / "s", scan, **{f"{DETECTOR}data": even})
    assert told(loaded, "near field")


@pytest.mark.parametrize(("nearer", "number"), [(1, None), (100, "5.04")])
def test_the_fresnel_number_speaks_for_a_near_field(
    nearer: float, number: str | None, scan: Simulated, tmp_path: Path
) -> None:
    """A detector so much nearer, of pixels so much finer, sees the same far field: λz/pitch²."""
    geometry = {f"{DETECTOR}distance": DISTANCE / nearer, f"{DETECTOR}x_pixel_size": PITCH / nearer,
                f"{DETECTOR}y_pixel_size": PITCH / nearer}  # fmt: skip
    loaded = read(tmp_path / "s", scan, **geometry)
    assert loaded.pixel_size == pytest.approx(PIXEL)
    assert told(loaded, "Fresnel number") == (number is not None)
    assert number is None or told(loaded, f"Fresnel number of {number} at 0.02 m")


def test_pixels_of_the_detector_need_not_be_square(scan: Simulated, tmp_path: Path) -> None:
    metres = np.zeros((60, 3))
    metres[:, :2] = scan.positions[:, ::-1] * [PIXEL / 2, PIXEL]
    said = {f"{DETECTOR}x_pixel_size": 150e-6, "sample_1__geometry_1__translation": metres}
    loaded = read(tmp_path / "s", scan, **said)
    apart = loaded.positions - scan.positions
    np.testing.assert_allclose(apart - apart[0], 0, atol=1e-6)
    assert loaded.pixel_size is None and told(loaded, "59.12 nm high and 29.56 nm wide")


@pytest.mark.parametrize(
    "probe",
    [np.ones((32, 32), "c8"), np.zeros((N, N), "c8"), np.full((N, N), np.nan + 0j)],
    ids=["another size", "empty", "NaN"],
)
def test_a_probe_of_no_use_costs_a_remark(
    probe: np.ndarray, scan: Simulated, tmp_path: Path
) -> None:
    np.savez(tmp_path / "s.npz", **npz.raw(scan, probeGuess=probe, other=probe))
    loaded = read_scan(tmp_path / "s.npz")
    assert loaded.probe is None and told(loaded, "probe is left out")
    with pytest.raises(UserError, match="the probe"):
        read_scan(tmp_path / "s.npz", Hints(probe="other"))
