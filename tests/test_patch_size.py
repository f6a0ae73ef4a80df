"""N is 64, 128 or 256: what held at 64 holds at each, and the size of a scan is chosen and told."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.study.sweepfile import parse_sweep
from fno_runner.config import SIZES, N, RunConfig, load_config
from fno_runner.data import cache, gridlines, load_dataset
from fno_runner.data.gridlines import OBJECT, diffract, simulate
from fno_runner.data.probe import zone_plate_probe
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.models import build_network
from fno_runner.reconstruct.stitching import tile
from fno_runner.reconstructor import Reconstructor
from fno_runner.score.flops import flops_per_pattern

ROOT = Path(__file__).resolve().parents[1]
LARGER = SIZES[1:]


def sized(size: int, **changes: Any) -> RunConfig:
    return load_config({"patch_size": size, **changes})


# --- the knob ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"patch_size": 96}, "patch_size=96: allowed is 64 | 128 | 256"),
        ({"patch_size": "128"}, "patch_size='128': allowed is 64 | 128 | 256"),
        ({"modes": 65}, "modes=65: allowed is an integer ≥ 1 and ≤ 64 (patch_size=64)"),
        ({"modes": 129, "patch_size": 128}, "modes=129: allowed is an integer ≥ 1 and ≤ 128"),
        ({"probe_radius": 33.0}, "probe_radius=33: allowed is a number > 1 and ≤ 32"),
        ({"architecture": "hybrid", "blocks": 6}, "blocks=6: hybrid allows at most 5"),
        ({"bin": 3, "scan": "s.npz"}, "bin=3: allowed is 1 | 2 | 4"),
        ({"bin": 2}, "bin=2: sums pixels of a scan"),
    ],
)
def test_what_no_size_allows_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(values)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("size", LARGER)
def test_a_larger_size_allows_more(size: int) -> None:
    config = sized(size, modes=size, probe_radius=size / 2, architecture="hybrid", blocks=6)
    assert config.of_size(size) == config
    with pytest.raises(UserError, match=f"modes={size}"):
        config.of_size(N)


def test_a_sweep_lists_sizes_and_has_no_range_of_them() -> None:
    swept = {"method": "grid", "parameters": {"patch_size": {"values": [64, 128]}}}
    assert parse_sweep(swept, "s.yaml").parameters["patch_size"] == (64, 128)
    drawn = {"method": "random", "parameters": {"patch_size": {"min": 64, "max": 128}}}
    with pytest.raises(UserError, match="patch_size: takes 'values'"):
        parse_sweep(drawn, "s.yaml")


def test_nothing_but_the_configuration_knows_a_size_by_heart() -> None:
    """A module that takes N from the configuration's default would be wrong for 128 in silence."""
    knows = set()
    for path in (ROOT / "fno_runner").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "fno_runner.config":
                names = {name.name for name in node.names}
                where = path.relative_to(ROOT / "fno_runner").as_posix()
                knows |= {where} if "N" in names else set()
    names_only = {"identity.py", "result.py", "data/__init__.py", "data/scan.py"}
    in_proportion_to_it = {"data/probe.py"}
    assert knows <= names_only | in_proportion_to_it | {"data/formats.py"}


# --- simulated grid lines ------------------------------------------------------------------------


@pytest.fixture(scope="module", params=LARGER)
def larger(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    return dict(simulate(sized(request.param), "test"))


def test_objects_are_the_same_for_every_size(
    larger: dict[str, np.ndarray], simulated: dict[str, np.ndarray]
) -> None:
    np.testing.assert_array_equal(larger["YY_full"], simulated["YY_full"])
    size = larger["diffraction"].shape[1]
    side = (OBJECT - size) // 10 + 1
    assert larger["diffraction"].shape == (side**2, size, size, 1)
    assert larger["YY_ground_truth"].shape == (10 * side, 10 * side, 1)


def test_patterns_are_the_forward_model_at_every_size(larger: dict[str, np.ndarray]) -> None:
    size = larger["diffraction"].shape[1]
    row, col = (larger["coords_offsets"][17, 0, :, 0] - (size - 1) / 2).astype(int)
    patch = larger["YY_full"][0, row : row + size, col : col + size, 0] / larger["norm_Y_I"]
    wave = (patch * larger["probe_simulated"]).astype(np.complex64)[None]
    clean = np.square(diffract(wave)[0], dtype=np.float64)
    measured = larger["diffraction"].astype(np.float64)[..., 0] ** 2
    photons = RunConfig().nphotons * len(measured) / measured.sum()
    bright = clean * photons > 100
    normalised = ((measured[17] - clean) * photons / np.sqrt(clean * photons))[bright]
    assert normalised.std() == pytest.approx(1, abs=0.1)


def test_true_patches_stitch_to_the_truth_at_every_size(larger: dict[str, np.ndarray]) -> None:
    from fno_runner.data.dataset import Raster

    patches = larger["Y_I"][..., 0] / np.abs(larger["probe_simulated"])
    patches = (patches * np.exp(1j * larger["Y_phi"][..., 0])).astype(np.complex64)
    side = round(len(patches) ** 0.5)
    raster = Raster(step=10, rows=side, cols=side, scale=float(larger["norm_Y_I"]))
    stitched = tile(patches, raster)[0] * np.float32(raster.scale)
    np.testing.assert_allclose(stitched, larger["YY_ground_truth"][..., 0], atol=2e-4)


@pytest.mark.parametrize("size", LARGER)
def test_the_beam_fills_the_same_part_of_the_window(size: int) -> None:
    """As seen from every second pixel, the probe of twice the size is the probe, phase and all."""
    probe, wide = (zone_plate_probe(sized(n)) for n in (N, size))
    assert np.abs(wide).mean() == pytest.approx(0.25, rel=1e-5)
    thinned = wide[:: size // N, :: size // N]
    np.testing.assert_allclose(np.abs(thinned), np.abs(probe), atol=0.02)
    # The parabola at the same place of the window: N / size of the curvature, (size / N)² the x².
    inner = np.abs(probe) > 0.3
    turned = np.angle(thinned[inner]) * 1.0
    expected = np.angle(probe[inner] ** (size // N)) if size == 2 * N else None
    if expected is not None:
        apart = np.angle(np.exp(1j * (turned - expected)))
        assert np.abs(apart).max() < 1e-3


def test_every_size_has_a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test", "validation"):
        monkeypatch.setitem(gridlines.STEP, split, 40)  # some dozens of patterns
    small = {"data_dir": str(tmp_path), "nimgs_train": 1}
    first = load_dataset(load_config(small))
    larger = load_dataset(load_config({**small, "patch_size": 128}))
    assert (first.test.size, larger.test.size) == (64, 128)
    assert {path.parent.parent.name for path in tmp_path.rglob("train.npz")} == {"N64", "N128"}
    monkeypatch.setattr(cache, "simulate", lambda *_: pytest.fail("made again"))
    assert load_dataset(load_config(small)).fingerprint == first.fingerprint
    files = {f"{split}_npz": str(tmp_path / f"N128/gs1/{split}.npz") for split in ("train", "test")}
    assert load_dataset(load_config(files)).train.size == 128  # a pair of files says its size …
    with pytest.raises(UserError, match="not \\(patterns, 64, 64"):  # … and may be asked for it
        load_dataset(load_config({**files, "patch_size": 64}))


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("modes", [24, 128])
def test_networks_of_128_px(architecture: str, modes: int) -> None:
    """They keep the size, begin at vacuum, and no weight is without a gradient."""
    config = sized(128, architecture=architecture, width=2, modes=modes, blocks=2)
    torch.manual_seed(0)
    network = build_network(config, 3)
    out = network(torch.randn(1, 3, 128, 128))
    assert out.shape == (1, 2, 128, 128)
    assert (out[:, 0] - 1).abs().mean() < 0.3 and out[:, 1].abs().mean() < 0.3
    out.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).float().mean() > 0.9, name


def test_four_times_the_pixels_cost_four_times_as_much() -> None:
    """All but the products of the kept modes, which are as many."""
    small = {"width": 4, "modes": 8, "blocks": 2, "conditioning": "amplitude"}
    at_once, four = (
        flops_per_pattern(Reconstructor(sized(n, **small)), zone_plate_probe(sized(n)))
        for n in (64, 128)
    )
    assert 3.5 < four / at_once <= 4


# --- names of runs -------------------------------------------------------------------------------


def test_64_px_name_a_run_as_version_0_1_did() -> None:
    assert run_id(RunConfig()) == run_id(sized(64)) == "dd3364804479"
    assert len({run_id(sized(size)) for size in SIZES}) == 3
