"""Links that are not followed: what a scan can do without is told, what it rests on is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan
from fno_runner.errors import UserError
from tests.layouts import LAYOUTS, cxi
from tests.scans import Simulated, simulate_scan

DETECTOR = "instrument_1/detector_1"
OUTSIDE = h5py.ExternalLink("../calibration.h5", "/array")
GUESSED = ("virtual", "copy")
"""Frames that are a detector's by their size only."""
NOWHERE = h5py.SoftLink("/calibration/array")


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


def read(
    path: Path, scan: Simulated, name: str, link: h5py.ExternalLink | h5py.SoftLink, **without: None
) -> Scan:
    """The simulated scan as CXI, with a link below entry_1."""
    cxi.put(path, cxi.cxi(scan, **without))
    with h5py.File(path, "a") as file:
        file[f"entry_1/{name}"] = link
    return read_scan(path)


@pytest.mark.parametrize("link", [OUTSIDE, NOWHERE], ids=["outside", "nowhere"])
@pytest.mark.parametrize(
    ("name", "what"),
    [
        (f"{DETECTOR}/mask", "mask"),
        (f"{DETECTOR}/pixel_mask", "mask"),
        (f"{DETECTOR}/data_dark", "dark"),
        (f"{DETECTOR}/background", "dark"),
        ("instrument_1/source_1/probe", "probe"),
        ("instrument_1/monitor_1/data", "monitor"),
        ("control/data", "monitor"),
    ],
)
def test_what_a_scan_can_do_without_is_told_where_its_link_is_not_followed(
    name: str,
    what: str,
    link: h5py.ExternalLink | h5py.SoftLink,
    scan: Simulated,
    tmp_path: Path,
) -> None:
    without = {f"{DETECTOR}/mask": None, "instrument_1/source_1/probe": None}
    cxi.put(tmp_path / "plain.cxi", cxi.cxi(scan, **without))
    plain = read_scan(tmp_path / "plain.cxi")
    linked = read(tmp_path / "linked.cxi", scan, name, link, **without)
    (more,) = set(linked.remarks) - set(plain.remarks)
    assert what in more and f"'entry_1/{name}'" in more and len(linked) == 60


def test_a_text_is_no_mask_and_is_told(scan: Simulated, tmp_path: Path) -> None:
    cxi.put(tmp_path / "s.cxi", cxi.cxi(scan, **{f"{DETECTOR}/mask": "mask.tif"}))
    assert any("'entry_1/instrument_1/detector_1/mask'" in r for r in
               read_scan(tmp_path / "s.cxi").remarks)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "array"),
    [("mask", "the file's mask"), ("probeGuess", "probe"), ("objectGuess", "object"),
     ("background", "background"), ("pixel_size_m", "pixel_size_m")],
)  # fmt: skip
def test_other_formats_tell_it_too(name: str, array: str, scan: Simulated, tmp_path: Path) -> None:
    path = LAYOUTS["raw NPZ: scan.mat"].write(tmp_path, scan)
    with h5py.File(path, "a") as file:
        file.pop(name, None)
        file[name] = OUTSIDE
    assert any(array in remark and f"'{name}'" in remark for remark in read_scan(path).remarks)


@pytest.mark.parametrize("link", [OUTSIDE, NOWHERE], ids=["outside", "nowhere"])
@pytest.mark.parametrize(
    "name",
    [
        "instrument_1/beam_1/energy",
        "instrument_1/monochromator/wavelength",
        f"{DETECTOR}/distance",
        f"{DETECTOR}/x_pixel_size",
        f"{DETECTOR}/basis_vectors",
    ],
)
def test_nothing_stands_for_a_number_whose_link_is_not_followed(
    name: str, link: h5py.ExternalLink | h5py.SoftLink, scan: Simulated, tmp_path: Path
) -> None:
    """Not the source's energy for the beam's, nor one width of a pixel for the other."""
    without = {name: None, f"{DETECTOR}/corner_position": None}
    with pytest.raises(UserError, match=f"'entry_1/{name}' links to"):
        read(tmp_path / "s.cxi", scan, name, link, **without)


def test_indexes_whose_link_is_not_followed_are_not_guessed(
    scan: Simulated, tmp_path: Path
) -> None:
    """Frames lie in another order than positions."""
    path = LAYOUTS["ptychodus product: product.h5"].write(tmp_path, scan)
    with h5py.File(tmp_path / "diffraction.h5", "a") as file:
        del file["indexes"]
        file["indexes"] = OUTSIDE
    with pytest.raises(UserError, match="'indexes' links to"):
        read_scan(path)


def test_a_link_in_a_linked_group_may_lack_what_nothing_names(
    scan: Simulated, tmp_path: Path
) -> None:
    """The whole detector is behind a link, and has neither mask nor dark: nothing is told."""
    path = tmp_path / "s.cxi"
    cxi.put(path, cxi.cxi(scan, **{f"{DETECTOR}/mask": None}))
    plain = read_scan(path)
    with h5py.File(path, "a") as file:
        file.move(f"entry_1/{DETECTOR}", "detector")
        file[f"entry_1/{DETECTOR}"] = h5py.SoftLink("/detector")
    linked = read_scan(path)
    np.testing.assert_array_equal(linked.amplitude, plain.amplitude)
    assert linked.remarks == plain.remarks


@pytest.mark.parametrize("link", ["soft", "hard", "external", "virtual", "copy"])
def test_geometry_and_mask_are_those_of_the_detector_that_the_frames_link_to(
    link: str, scan: Simulated, tmp_path: Path
) -> None:
    """The first detector is another one, nearer, of wider pixels, with other bad ones."""
    path, second = tmp_path / "s.cxi", "entry_1/instrument_1/detector_2"
    cxi.put(path, cxi.cxi(scan))
    plain = read_scan(path)
    with h5py.File(path, "a") as file:
        file.move(f"entry_1/{DETECTOR}", second)
        other = file.create_group(f"entry_1/{DETECTOR}")
        other["data"], other["distance"] = np.ones((60, 8, 8)), 0.5
        other["x_pixel_size"] = other["y_pixel_size"] = 172e-6
        other["mask"] = np.eye(64, dtype=np.uint32)
        if link == "external":
            with h5py.File(tmp_path / "frames.h5", "w") as frames:
                file.copy(f"{second}/data", frames, "data")
            del file[f"{second}/data"]
            file[f"{second}/data"] = h5py.ExternalLink("frames.h5", "/data")
        if link == "virtual":
            layout = h5py.VirtualLayout((60, 64, 64), scan.counts.dtype)
            layout[:] = h5py.VirtualSource(".", f"/{second}/data", (60, 64, 64))
            file.create_group("entry_1/data_1").create_virtual_dataset("copied", layout)
        file["entry_1/data_1/data"] = {
            "virtual": h5py.SoftLink("/entry_1/data_1/copied"),
            "copy": scan.counts,
            "soft": h5py.SoftLink(f"/{second}/data"),
            "hard": file[f"{second}/data"],
            "external": h5py.ExternalLink("frames.h5", "/data"),
        }[link]
    linked = read_scan(path)
    assert linked.pixel_size == plain.pixel_size and linked.distance == plain.distance
    np.testing.assert_array_equal(linked.amplitude, plain.amplitude)
    assert any("is not said" in remark for remark in linked.remarks) == (link in GUESSED)
