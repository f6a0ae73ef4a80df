"""The mirror in Weights & Biases: offline and disabled need nobody, and change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.tracking import summary
from fno_runner.config import RunConfig
from fno_runner.data.npz import write_npz
from fno_runner.result import ErrorInfo, RunResult, run_id
from tests.test_runner import arguments


def run_agent(config: RunConfig, **environment: str) -> subprocess.CompletedProcess[str]:
    cleared = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return subprocess.run(
        [sys.executable, "-m", "agent.run", *arguments(config)],
        env={**cleared, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def record(config: RunConfig) -> dict[str, object]:
    folder = Path(config.output_dir) / "runs" / run_id(config)
    content: dict[str, object] = json.loads((folder / "result.json").read_text())
    return content


def without_times(content: dict[str, object]) -> dict[str, object]:
    """What a record says beside times, provenance and where it was written."""
    left = {
        k: v
        for k, v in content.items()
        if k not in ("timing", "provenance", "history", "inference_time_s")
    }
    config = left["config"]
    assert isinstance(config, dict)
    return left | {"config": {k: v for k, v in config.items() if k != "output_dir"}}


def test_offline_and_disabled_write_the_same_record(tiny_config: RunConfig, tmp_path: Path) -> None:
    offline = tiny_config.model_copy(update={"output_dir": str(tmp_path / "offline")})
    disabled = tiny_config.model_copy(update={"output_dir": str(tmp_path / "disabled")})
    for config, mode in ((offline, "offline"), (disabled, "disabled")):
        done = run_agent(config, WANDB_MODE=mode)
        assert done.returncode == 0, done.stderr
        assert "run " in done.stdout
    assert without_times(record(offline)) == without_times(record(disabled))
    runs = list((tmp_path / "offline" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 1 and runs[0].stat().st_size > 1000
    mirrored = runs[0].parent / "files" / "result.json"
    assert json.loads(mirrored.read_text()) == record(offline)
    assert list((runs[0].parent / "files" / "media" / "images").glob("reconstruction*.png"))
    assert not (tmp_path / "disabled" / "wandb").exists()


def test_without_a_key_the_ways_out_are_named(tiny_config: RunConfig, tmp_path: Path) -> None:
    done = run_agent(tiny_config, HOME=str(tmp_path), WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: Weights & Biases: ")
    assert all(way in line for way in ("wandb login", "WANDB_MODE=offline", "WANDB_MODE=disabled"))
    assert not list(Path(tiny_config.output_dir).rglob("result.json"))


def test_data_that_cannot_be_used_cost_no_tracked_run(
    tiny_config: RunConfig, tiny_npz: tuple[Path, Path], tmp_path: Path
) -> None:
    with np.load(tiny_npz[1]) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays["diffraction"][0] = np.nan
    write_npz(tmp_path / "nan.npz", arrays)
    spoiled = tiny_config.model_copy(update={"test_npz": str(tmp_path / "nan.npz")})
    done = run_agent(spoiled, WANDB_MODE="offline")
    assert done.returncode == 2
    assert "NaN or infinite" in done.stderr and done.stderr.count("\n") == 1
    assert not [path for path in Path(spoiled.output_dir).rglob("*") if path.is_file()]


def test_a_server_that_is_away_costs_seconds_and_no_result(
    tiny_config: RunConfig, tmp_path: Path
) -> None:
    done = run_agent(
        tiny_config,
        HOME=str(tmp_path),
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_API_KEY="k" * 40,
        WANDB_INIT_TIMEOUT="2",
    )
    assert done.returncode == 0, done.stderr
    assert "warning: Weights & Biases does not answer" in done.stderr
    assert record(tiny_config)["run_id"] == run_id(tiny_config)
    left = [path.name for path in Path(tiny_config.output_dir, "wandb").glob("*run-*")]
    assert len(left) == 1 and left[0].startswith("offline-run-")


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_summary_is_flat_and_has_what_there_is(status: str) -> None:
    config = RunConfig()
    result = RunResult.model_validate(
        {
            "run_id": run_id(config),
            "status": status,
            "error": ErrorInfo(type="E", message="boom") if status == "failed" else None,
            "config": config.model_dump(),
            "metrics": {"ssim": (0.5, 0.7), "frc50": (None, 0.2)} if status == "finished" else {},
            "model_params": 12,
            "timing": {"train_time_s": 3.0},
        }
    )
    flat = summary(result)
    assert flat["status"] == status
    assert flat["error"] == ("boom" if status == "failed" else "")
    assert flat["train_time_s"] == 3.0 and flat["model_params"] == 12
    if status == "finished":
        assert (flat["ssim_amp"], flat["ssim_phase"], flat["frc50_phase"]) == (0.5, 0.7, 0.2)
    else:
        assert "ssim_phase" not in flat
    assert "frc50_amp" not in flat  # the client would drop None without a word
    assert not set(flat) & set(RunConfig.model_fields)
