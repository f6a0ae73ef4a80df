"""Files that programs and beamlines really write, or that bug reports describe, read rightly.

The scripts that write them are no part of this repository; where they are not, nothing is tested
here. `test_detectors` and `test_hdf5` have a small file of each kind.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fno_runner.data.formats import NONE, read_scan
from fno_runner.data.source import Hints
from fno_runner.errors import UserError
from fno_runner.scan.command import main
from tests.conftest import SHARED

CASES = SHARED.parent / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")


@dataclass(frozen=True)
class Read:
    """What a file is read as; the scan of all cases has these values where nothing is said.

    columns: of the first two positions, less 32. said: words of a remark.
    """

    file: str
    frames: int = 100
    counts: float = 2.0e5
    bad: int = 0
    span: tuple[float, float] | None = (67, 66)
    pixel_nm: float | None = 59.12
    columns: tuple[float, float] | None = (1, 7)
    said: str | None = None
    hints: Hints = NONE
    size: int = 64


@dataclass(frozen=True)
class Refused:
    """A file that is refused in a line with these words."""

    file: str
    said: str


GAP = 1.548e5
"""Counts a frame beside a gap of four rows."""
EXPECTED: dict[str, tuple[Read | Refused, ...]] = {
    "basis_vectors": (
        Read("mirrored.cxi", said="basis_vectors"),
        Read("no_pixel_size.cxi"),
        Read("one_pixel_size.cxi", said="only one size"),
        Read("corner_only.cxi", said="corner_position"),
    ),
    "crop_loses_counts": (
        Read("crop.npz", counts=1.348e5, pixel_nm=None, span=None, columns=None, said="67.4 %"),
    ),
    "cxi_mask_has_signal": (Read("has_signal.cxi", bad=1),),
    "cxi_mask_int8": tuple(
        Read(f"mask_{dtype}.cxi", counts=1.889e5, bad=64) for dtype in ("i1", "u1", "i2")
    ),
    "external_link": (Read("unrelated.cxi"), Read("master.cxi")),
    "gap_minus_one": (Read("pilatus.cxi", counts=GAP, bad=257, said="257 pixels without a"),),
    "gap_nan_or_maxint": (
        Read("gap_nan.cxi", counts=GAP, bad=256, said="256 pixels without a value"),
        Read("gap_maxint_float.cxi", counts=GAP, bad=256, said="256 pixels without a value"),
    ),
    "hdf5_filters": (Read("bslz4.cxi"),),
    "hot_pixel_centre": (
        Read("hot64.cxi", bad=1, said="hot"),
        Read("hot128.cxi", said="hot"),
    ),
    "mask_per_frame": (Read("per_frame.cxi", frames=99, counts=2.002e5, said="1 frame (5) left"),),
    "nan_dark_and_empty": (
        # Its dark is of no use, and the scan can do without: these counts are right.
        Read("nan_dark.cxi", said="dark or background is not subtracted"),
        Refused("null.cxi", "'entry_1/instrument_1/detector_1/distance' is empty"),
    ),
    "near_field_product": (Refused("near/product.h5", "near-field"),),
    "nexus_beam_energy": (Read("joules.nxs"), Read("units.nxs")),
    "npz_counts_as_diff3d": (
        Read("ptychodus_training.npz", counts=GAP, bad=256, pixel_nm=None, said="read as counts"),
        Refused("counts_only.npz", "--data intensity"),
        Read("counts_only.npz", pixel_nm=None, hints=Hints(data="intensity")),
    ),
    "npz_dc_in_corner": (
        Read("dc_corner.npz", pixel_nm=None, said="in the frames' corner"),
        Read("dc_corner_noprobe.npz", pixel_nm=None, said="in the frames' corner"),
    ),
    "npz_legacy_layouts": (
        Read("hwf.npz", pixel_nm=None, said="(rows, columns, frames)"),
        Read("probe_nn1.npz", pixel_nm=None),
        Read("slac.npz", pixel_nm=None),
    ),
    "npz_microns": (Read("um.npz", span=None, pixel_nm=None, columns=None, said="spans 4 px"),),
    "other_layouts": (
        Read("tike.npz", pixel_nm=None, said="in the frames' corner"),
        Read("scan.ptyd"),
        Read("scan_dp.hdf5"),
        Read("scan_para.hdf5"),
        Read("training.h5"),
        Read("nsls.h5", said="in the frames' corner"),
        Read("raster4d.cxi"),
    ),
    "pynx_dark": (Read("pynx.cxi", said="a background of 5 was subtracted"),),
    "reference_is_optional": (
        Read("layers/product.h5", said="object is left out"),
        Read("small_object.npz", pixel_nm=None, said="object is left out"),
        Read("nan_object.npz", pixel_nm=None, said="object is left out"),
    ),
    "sparse_npz": (Read("sparse.npz", counts=1.0e5, pixel_nm=None),),
    "units_attribute": (
        Read("um.cxi"),
        Read("eV.cxi"),
        Read("mm.cxi", span=(3526, 3474), pixel_nm=28.08, columns=None),
    ),
    "userblock": (Read("userblock.cxi"),),
    "vds_same_file": (Read("vds.cxi"),),
    "zero_frames": (
        Read("zero.npz", frames=90, counts=2.007e5, span=None, pixel_nm=None, columns=None,
             said="10 frames (0, 10, 20, 30, 40, …) left out"),
    ),
}  # fmt: skip
LARGE = {"sparse_npz", "vds_same_file"}
ELSEWHERE = {"_sim", "memory"}
"""`memory` is `test_scan_memory`'s."""


def test_every_case_is_tested() -> None:
    assert {path.stem for path in CASES.glob("*.py")} == EXPECTED.keys() | ELSEWHERE


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c in LARGE else c for c in EXPECTED],
)
def test_a_case_is_read_as_its_head_says(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = CASES / f"{case}.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    runpy.run_path(str(script))
    for expected in EXPECTED[case]:
        path = tmp_path / expected.file
        if isinstance(expected, Refused):
            with pytest.raises(UserError) as error:
                read_scan(path)
            assert expected.said in str(error.value) and "\n" not in str(error.value)
            continue
        scan = read_scan(path, expected.hints, size=expected.size)
        counts = np.square(scan.amplitude, dtype=np.float64).sum(axis=(1, 2))
        assert len(scan) == expected.frames
        assert counts.mean() == pytest.approx(expected.counts, rel=2e-3)
        assert (0 if scan.mask is None else (~scan.mask).sum()) == expected.bad
        if expected.span is not None:
            assert np.ptp(scan.positions, axis=0) == pytest.approx(expected.span, abs=0.5)
        if expected.columns is not None:
            assert scan.positions[:2, 1] - 32 == pytest.approx(expected.columns, abs=1e-3)
        if expected.pixel_nm is not None:
            assert scan.pixel_size is not None
            assert 1e9 * scan.pixel_size == pytest.approx(expected.pixel_nm, rel=1e-3)
        if expected.said is not None:
            assert any(expected.said in remark for remark in scan.remarks), scan.remarks


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a file system")
def test_a_read_only_folder_is_found_out_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = CASES / "userblock.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "made")])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    runpy.run_path(str(script))
    folder = tmp_path / "beamline"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False).returncode:
        pytest.skip("may not mount")
    try:
        file = folder / "s.cxi"
        file.write_bytes((tmp_path / "made" / "userblock.cxi").read_bytes())
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        assert main(["inspect", str(file)]) == 0
        captured = capsys.readouterr()
        assert "100 of 64×64 px" in captured.out and "no picture is drawn" in captured.err
        assert main(["probe", str(file), "--iterations", "40"]) == 3
        captured = capsys.readouterr()
        assert "pass" not in captured.out and "--output" in captured.err
        output = tmp_path / "out.npz"
        assert main(["probe", str(file), "--iterations", "1", "--output", str(output)]) == 0
        assert main(["inspect", str(file), "--output", str(tmp_path / "s.png")]) == 0
        assert output.exists() and (tmp_path / "s.png").exists()
    finally:
        subprocess.run(["umount", folder], check=True)
