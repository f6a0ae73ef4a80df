"""Do rankings transfer: Kendall's τ against its definition, and two studies compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent import transfer
from agent.scheduling.grid import named_grid
from agent.study.sweepfile import Metric, read_sweep
from agent.transfer import Transfer, compare, kendall_tau, main, tau_interval, verdict
from fno_runner.config import load_config
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.result import RunResult, run_folder, write_result
from tests.test_crop import framed

PAIRS = hnp.arrays(float, (2, 7), elements=st.integers(0, 4).map(float))


@given(PAIRS)
def test_tau_is_that_of_kendall(pair: np.ndarray) -> None:
    """(concordant − discordant) / √(untied in one · untied in the other), 0 where all are tied."""
    signs = [np.sign(values[:, None] - values[None, :]) for values in pair]
    untied = np.sqrt(np.abs(signs[0]).sum() * np.abs(signs[1]).sum())
    tau = (signs[0] * signs[1]).sum() / untied if untied else 0
    assert kendall_tau(pair[0], pair[1]) == pytest.approx(tau, abs=1e-12)


def test_intervals_of_known_rankings() -> None:
    up = np.arange(12.0)
    assert tau_interval(up, up) == pytest.approx((1, 1))
    assert tau_interval(up, -up) == pytest.approx((-1, -1))
    low, high = tau_interval(up, np.random.default_rng(0).permutation(up))
    assert low < 0 < high


def test_what_chance_brings_about_is_no_verdict() -> None:
    """Of five, 2 of 120 orders are told, the same one and the opposite; of four it were 2 of 24."""
    up = np.arange(5.0)
    assert tau_interval(up, up) == pytest.approx((1, 1))
    assert tau_interval(up, -up) == pytest.approx((-1, -1))
    for order in ((1, 0, 2, 3, 4), (0, 1, 2, 4, 3)):
        low, high = tau_interval(up, up[[*order]])
        assert low <= 0 < high
    configs = pd.DataFrame(
        {"width": up[:4], "configuration": list("abcd"), "ssim_phase_mean": up[:4]}
    )
    with pytest.raises(UserError, match="at least 5 are needed"):
        compare(configs, configs, Metric("ssim_phase", True), Metric("ssim_phase", True))


def test_the_verdict_says_no_more_than_the_interval() -> None:
    def with_interval(low: float, high: float) -> Transfer:
        return Transfer([], np.empty(0), np.empty(0), (low + high) / 2, low, high, 0, 0)

    assert "agree" in verdict(with_interval(0.1, 0.9))
    assert "undecided" in verdict(with_interval(-0.1, 0.9))
    assert "oppose" in verdict(with_interval(-0.9, -0.1))


SWEEP = """
method: grid
parameters:
  width: {values: [2, 4, 6, 8, 10]}
  train_patterns: {value: 32}
"""


def stand_in(quality: Callable[[int, bool], float]) -> Callable[[list[str]], int]:
    """A `local.main` that leaves records without training."""

    def run(argv: list[str]) -> int:
        sweep = read_sweep(Path(argv[0]))
        study = Path(argv[argv.index("--study") + 1])
        scanned = "scan" in sweep.parameters
        for point in named_grid(sweep).values():
            config = load_config({**point, "output_dir": str(study)})
            value = quality(config.width, scanned)
            result = RunResult(
                run_id=run_id(config),
                status="finished",
                config=config.model_dump(),
                metrics={"r_factor": {"held_out_from_object": value}}
                if scanned
                else {"ssim": (value, value)},
                model_params=config.width,
                inference_time_s=0.1,
            )
            folder = run_folder(study, result.run_id)
            folder.mkdir(parents=True)
            write_result(result, folder)
        return 0

    return run


def test_a_grid_is_run_twice_and_compared(
    tmp_path: Path,
    scan_npz: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wider is better on both, but for the widest, which is the worst on the scan: τ = 0.2."""

    def quality(width: int, scanned: bool) -> float:
        return (0.5 if width == 10 else 1 / width) if scanned else width / 10

    monkeypatch.setattr("agent.local.main", stand_in(quality))
    (tmp_path / "grid.yaml").write_text(SWEEP)
    folder = tmp_path / "out"
    options = [str(tmp_path / "grid.yaml"), "--scan", str(scan_npz), "--folder", str(folder)]
    assert main(options) == 0
    said = capsys.readouterr().out
    # Of ten pairs the six of the four smaller ones agree, and the widest disagrees with three of
    # them; with width 2 (R 0.5) it is tied.
    tau = scipy.stats.kendalltau([2, 4, 6, 8, 10], [-1 / 2, -1 / 4, -1 / 6, -1 / 8, -0.5]).statistic
    assert f"Kendall τ  {tau:.2f}" in said
    assert "best on the scan: fno sqrt modes 12 width 8" in said
    assert "undecided" in said
    table = (folder / "transfer.csv").read_text().splitlines()
    assert table[0] == "configuration,simulated_ssim_phase,scan_r_held_out_from_object"
    assert len(table) == 6
    scan = json.loads((folder / "scan.yaml").read_text())
    assert scan["parameters"]["scan"] == {"value": str(scan_npz.resolve())}
    assert scan["metric"] == {"name": "r_held_out_from_object", "goal": "minimize"}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (SWEEP.replace("grid", "random"), [], "only a grid can be run twice"),
        (SWEEP + "  scan: {value: other.npz}\n", [], "has a 'scan' already"),
        (SWEEP + "  nphotons: {values: [1.0e+8, 1.0e+9]}\n", [], "nphotons: swept, but no effect"),
        (SWEEP + "  data_seed: {values: [0, 1]}\n", [], "sweeps data_seed"),
        (SWEEP + "  bin: {value: 2}\n", [], "bin=2: sums pixels of a scan"),
        (SWEEP, ["--metric", "beauty"], "--metric beauty: not known"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    text: str,
    options: list[str],
    said: str,
    tmp_path: Path,
    scan_npz: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "grid.yaml").write_text(text.replace("other.npz", str(scan_npz)))
    given_options = ["--scan", str(scan_npz), "--folder", str(tmp_path / "out"), *options]
    assert main([str(tmp_path / "grid.yaml"), *given_options]) == 2
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: ") and err.count("\n") == 1


def test_how_the_scan_is_read_tells_no_configurations_apart(
    tmp_path: Path, scan_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.local.main", stand_in(lambda width, _: 1 / width))
    (tmp_path / "grid.yaml").write_text(SWEEP)
    folder = tmp_path / "out"
    given = [str(tmp_path / "grid.yaml"), "--scan", str(scan_npz), "--folder", str(folder)]
    assert main([*given, "--data", "amplitude"]) == 0
    scan = json.loads((folder / "scan.yaml").read_text())
    assert scan["parameters"]["scan_data"] == {"value": "amplitude"}
    assert len((folder / "transfer.csv").read_text().splitlines()) == 6


def test_both_studies_have_the_size_of_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = framed(tmp_path / "scan.npz", side=128, spread=20.0)
    monkeypatch.setattr("agent.local.main", stand_in(lambda width, _: 1 / width))
    (tmp_path / "grid.yaml").write_text(SWEEP)
    folder = tmp_path / "out"
    given = [str(tmp_path / "grid.yaml"), "--scan", str(scan), "--folder", str(folder)]
    assert main(given) == 0
    for name in ("simulated", "scan"):
        written = json.loads((folder / f"{name}.yaml").read_text())
        assert written["parameters"]["patch_size"] == {"value": 128}


def test_metrics_know_which_way_is_better() -> None:
    assert transfer._metric("--scan-metric", "r_held_out", "validation") == Metric(
        "r_held_out", False
    )
    assert transfer._metric("--metric", "ssim_phase", "scan") == Metric("ssim_phase", True)
