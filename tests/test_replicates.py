"""Replicates: seeds that train together are each what they would be alone, and all are recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from agent.server.tracker import summary
from agent.study.records import table
from fno_runner.config import RunConfig, load_config
from fno_runner.data.dataset import Dataset
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.reconstructor import Reconstructor
from fno_runner.result import ErrorInfo, Metrics, RunResult, SeedResult, Status
from fno_runner.runner import run
from fno_runner.score import evaluation
from fno_runner.train import network
from fno_runner.train.network import build_model
from fno_runner.train.training import train

CPU = torch.device("cpu")


def changed(config: RunConfig, **changes: object) -> RunConfig:
    return RunConfig.model_validate({**config.model_dump(), **changes})


def poison(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Start this seed with a weight that is not a number."""

    def poisoned(config: RunConfig, dataset: Dataset, device: torch.device) -> Reconstructor:
        model = build_model(config, dataset, device)
        if config.seed == seed:
            next(model.parameters()).data.fill_(float("nan"))
        return model

    monkeypatch.setattr(network, "build_model", poisoned)


def test_a_run_records_every_seed(
    tiny: Dataset, tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU one after the other: bit for bit what single runs give."""
    # Two epochs need not recover anything.
    monkeypatch.setattr(evaluation, "COLLAPSED_PEARSON", -1)
    monkeypatch.setattr(evaluation, "COLLAPSED_STD_RATIO", 0)
    poison(monkeypatch, seed=0)
    steps: list[tuple[int, int]] = []
    epochs: list[Any] = []
    outcome = run(
        changed(tiny_config, replicates=3),
        on_step=lambda step, of, _: steps.append((step, of)),
        on_epoch=lambda epoch: epochs.append(epoch["epoch"]),
    )
    result = RunResult.model_validate_json((outcome.folder / "result.json").read_text())
    config = changed(tiny_config, seed=2)
    assert result.run_id not in (run_id(config), run_id(tiny_config))
    assert [seed.seed for seed in result.seeds] == [0, 1, 2]
    assert [seed.status for seed in result.seeds] == ["diverged", "finished", "finished"]
    assert result.status == "finished" and result.error is None
    metrics = [result.metrics, *(seed.metrics for seed in result.seeds)]
    mean, a, b = (metrics[k].pairs["ssim"][1] for k in (0, 2, 3))
    assert a is not None and b is not None
    assert a != b and mean == pytest.approx((a + b) / 2)
    assert [len(seed.history) for seed in result.seeds] == [1, 2, 2]
    assert result.history == result.seeds[0].history and epochs == [1]
    # 12 steps a seed, the first one's second epoch left out: told every tenth.
    assert steps == [(22, 36), (34, 36)]
    total, each = (
        float(result.timing[key] or 0) for key in ("train_time_s", "train_time_per_seed_s")
    )
    assert total == pytest.approx(3 * each)
    assert result.inference_time_s is not None

    # Picture and weights are those of the first seed that finished; others' weights lie beside.
    assert {path.name for path in outcome.folder.iterdir()} == {
        *("result.json", "recon.npz", "recon.png", "log.txt"),
        *("model.safetensors", "model-seed2.safetensors"),
    }
    weights = load_file(outcome.folder / "model-seed2.safetensors")
    alone = train(config, tiny, CPU)[0].model.state_dict()
    assert all((weights[name] == alone[name].numpy()).all() for name in alone)

    # In the table each seed has its row; in the mirror the run has one, with the means.
    rows = table([result])
    assert rows["seed"].tolist() == [0, 1, 2] and set(rows["run_id"]) == {result.run_id}
    assert rows["status"].tolist() == ["diverged", "finished", "finished"]
    assert rows["ssim_phase"].tolist() == [None, a, b]
    assert summary(result)["ssim_phase"] == mean and summary(result)["status"] == "finished"


NOTHING = Metrics()
MEASURED = Metrics({"psnr": (1.0, None)}, {"r_factor": {"train": 0.1}})
OTHER = Metrics({"psnr": (3.0, 4.0)}, {"r_factor": {"train": 0.3}})


@pytest.mark.parametrize(
    ("seeds", "status", "metrics"),
    [
        (
            [("diverged", NOTHING), ("finished", MEASURED), ("finished", OTHER)],
            "finished",
            Metrics({"psnr": (2.0, None)}, {"r_factor": {"train": 0.2}}),
        ),
        ([("collapsed", MEASURED), ("collapsed", MEASURED)], "collapsed", MEASURED),
        ([("collapsed", MEASURED), ("diverged", NOTHING)], "diverged", NOTHING),
        ([("failed", NOTHING), ("diverged", NOTHING)], "failed", NOTHING),
    ],
)
def test_what_a_run_says_of_its_seeds(
    seeds: list[tuple[Status, Metrics]], status: Status, metrics: Metrics, tiny_config: RunConfig
) -> None:
    result = RunResult(run_id="0" * 12, status="failed", config=tiny_config.model_dump())
    result.conclude(
        [
            SeedResult(
                seed=k,
                status=ended,
                error=None if ended == "finished" else ErrorInfo(type="X", message=ended),
                metrics=measured,
            )
            for k, (ended, measured) in enumerate(seeds)
        ]
    )
    assert result.status == status
    assert (result.error is None) == (status == "finished")
    assert result.error is None or result.error.message == status
    assert result.metrics.pairs == metrics.pairs
    assert result.metrics.scan == {key: pytest.approx(r) for key, r in metrics.scan.items()}
    assert RunResult.model_validate_json(result.to_json()) == result


def test_replicates_are_checked() -> None:
    for replicates in (0, 65):
        with pytest.raises(UserError, match="allowed is an integer ≥ 1 and ≤ 64"):
            load_config({"replicates": replicates})
    last = load_config({"seed": 2**31 - 2, "replicates": 3})
    assert [replica.seed for replica in last.replicas()] == [2**31 - 2, 2**31 - 1, 0]
