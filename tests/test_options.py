"""Options of `reconstruct` that cannot be, or say nothing without others: refused before work."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from fno_runner.apply.command import main as by_network
from fno_runner.apply.iterative import main as iterative
from fno_runner.cli import parse_config
from fno_runner.config import RunConfig, allowed, choices
from fno_runner.data.formats import read_scan
from fno_runner.data.npz import read_array
from fno_runner.scan.command import main as look
from tests.scans import simulate_scan, write_raw
from tests.test_apply import untrained


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    return write_raw(folder / "s.npz", simulate_scan(frames=20), objectGuess=None)


@pytest.mark.parametrize(
    "option",
    [
        *("--refine-probe", "--refine-positions", "--compare", "--adapt-layers=last"),
        *("--wait=5", "--idle=5", "--frames=9", "--serve=8000"),
        *("--adapt=1 --refine-probe", "--refine=1 --adapt-layers=all", "--adapt=1 --idle=5"),
        *("--watch --adapt=1", "--watch --refine=1 --refine-probe", "--watch --compare"),
    ],
)
def test_an_option_without_what_it_belongs_to_is_refused(
    option: str, scan_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = [str(untrained(tmp_path)), str(scan_file), f"--output={out}", "--device=cpu"]
    assert by_network([*options, *option.split()]) == 2
    assert not out.exists()


@pytest.mark.parametrize("width", ["1e-9", "0.0009", "1e7", "1e300", "0", "nan"])
def test_a_pixel_that_no_object_has_is_refused(
    width: str, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert iterative([str(scan_file), f"--pixel-size={width}", f"--output={out}"]) == 2
    said = capsys.readouterr().err
    assert width in said and "nm" in said
    assert not out.exists()


@pytest.mark.parametrize("place", [".", ".."])
def test_a_folder_without_a_name_of_its_own_is_one_that_is_there(
    place: str, scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "outer" / "inner"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    assert iterative([str(scan_file), "--passes=1", "--device=cpu", f"--output={place}"]) == 0
    made = tmp_path / ("outer-2" if place == ".." else "outer/inner-2")
    assert (made / "object.npz").is_file() and not list(here.iterdir())


def test_a_place_that_cannot_be_written_is_told_before_any_work(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a model is looked for that is not there, and a scan that is none is read."""
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "out", tmp_path / "file" / "deeper" / "out"):
        assert by_network([str(tmp_path / "no model"), str(scan_file), f"--output={place}"]) == 3
        assert iterative([str(tmp_path / "file"), f"--output={place}"]) == 3
        assert capsys.readouterr().err.count(str(tmp_path / "file")) == 2
    assert by_network([str(untrained(tmp_path)), "/", "--watch"]) == 2


@pytest.mark.parametrize("said", ["--light=held --modes=2", "--light=blind --probe={scan}"])
def test_a_probe_that_is_not_taken_as_it_is_said_is_refused(
    said: str, scan_file: Path, tmp_path: Path
) -> None:
    """A mode beside those that are held would be an invented one."""
    out = tmp_path / "out"
    options = [*said.format(scan=scan_file).split(), "--passes=1", f"--output={out}"]
    assert iterative([str(scan_file), *options]) == 2
    assert not out.exists()
    assert iterative([str(scan_file), "--light=held", "--modes=1", *options[-2:]]) == 0


@pytest.mark.parametrize("width", [0.001, 0.0024, 1e6])
def test_every_pixel_that_may_be_is_written(width: float, scan_file: Path, tmp_path: Path) -> None:
    """TIFF's resolution has no room for the smallest: its description tells them."""
    out = tmp_path / "out"
    options = ["--passes=1", "--device=cpu", f"--pixel-size={width}", f"--output={out}"]
    assert iterative([str(scan_file), *options]) == 0
    assert read_array(out / "object.npz", "pixel_size_m") == pytest.approx(width * 1e-9)
    with tifffile.TiffFile(out / "phase.tif") as tiff:
        page = tiff.pages.first
        assert str(width * 1e-9) in page.description
        pixels, centimetres = page.tags["XResolution"].value
        if width > 0.001:
            assert 1e-2 * centimetres / pixels == pytest.approx(width * 1e-9, rel=1e-5)
    arrays = {name: read_array(out / "object.npz", name) for name in ("pixel_size_m", "probeGuess")}
    again = write_raw(tmp_path / "again.npz", simulate_scan(frames=20), **arrays)
    assert read_scan(again).pixel_size == pytest.approx(width * 1e-9)
    assert np.isfinite(arrays["probeGuess"]).all()


@pytest.mark.parametrize("value", ["-1", "inf", "some"])
@pytest.mark.parametrize("option", ["--smooth", "--passes"])
def test_what_is_allowed_beside_a_number_is_told(
    option: str, value: str, scan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert iterative([str(scan_file), f"{option}={value}"]) == 2
    said = capsys.readouterr().err
    assert option in said and f"'{value}'" in said
    assert ("a number ≥ 0, or auto" if option == "--smooth" else "≤ 10000, or auto") in said


def test_a_probe_that_the_file_lacks_is_answered_with_what_it_has(
    scan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look(["inspect", str(scan_file), "--start=probe"]) == 2
    said = capsys.readouterr().err
    assert "has no 'probe'" in said and "probeGuess" in said


def test_the_help_of_a_run_tells_every_bound_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--help"], "prog", "")
    said = " ".join(capsys.readouterr().out.split())
    for key, field in RunConfig.model_fields.items():
        words = choices(field)
        told = "|".join(map(str, words)) if words else allowed(field)
        assert key in said and (told == "a text" or told in said or key == "objects"), key
        if isinstance(field.default, int):
            assert f"(default: {field.default})" in said, key
    assert "a number ≥ 1 and ≤ 1e+15 (default: 1e+09)" in said


def test_a_scan_whose_name_is_no_text_is_reconstructed(scan_file: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"s\xe9.npz")
    try:
        shutil.copy(scan_file, odd)
    except OSError:
        pytest.skip("this disk takes no such names")
    assert iterative([str(odd), "--passes=1", "--device=cpu", "--pixel-size=10"]) == 0
    folder = odd.with_suffix(".reconstruction")
    record = json.loads((folder / "reconstruction.json").read_text())
    assert record["scan"]["source"].endswith(str(odd))
    assert (folder / "product.h5").exists() and (folder / "object.cxi").exists()
