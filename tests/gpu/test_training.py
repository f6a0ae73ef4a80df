"""Runs and trainings on a card: right, replayed, resumed, several at once, out of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.runner import run
from fno_runner.train import checkpoint
from fno_runner.train.checkpoint import Checkpoints
from fno_runner.train.training import Trained, train
from tests.gpu.conftest import given_half

CPU = torch.device("cpu")
LOSSES = ("train_loss", "val_loss")
NEAR = {"float32": 5e-3, "tf32": 2e-2, "bf16": 2e-2}
"""How far a loss after some steps may be from the CPU's in float32, relative."""


def changed(config: RunConfig, **changes: object) -> RunConfig:
    return RunConfig.model_validate({**config.model_dump(), **changes})


def losses(trained: Trained) -> list[Any]:
    return [epoch[key] for epoch in trained.history for key in LOSSES]


def assert_alike(first: Trained, other: Trained, *, exactly: bool) -> None:
    """Bit for bit where the libraries repeat themselves, to rounding where they do not."""
    if exactly:
        assert losses(first) == losses(other)
        weights = other.model.state_dict()
        assert all(torch.equal(w, weights[name]) for name, w in first.model.state_dict().items())
    assert losses(first) == pytest.approx(losses(other), rel=1e-4)


def repeats(config: RunConfig, data: Dataset, device: torch.device, first: Trained) -> bool:
    """Whether the same training gives the same bits again here."""
    (again,) = train(config, data, device)
    return losses(again) == losses(first)


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("precision", list(NEAR))
def test_a_run_end_to_end(
    architecture: str, precision: str, config: RunConfig, tiny: Dataset, device: torch.device
) -> None:
    config = changed(config, architecture=architecture, precision=precision)
    result = run(config).result
    assert result.status in ("finished", "collapsed"), result.error
    assert result.inference_time_s and result.metrics.pairs["ssim"]
    (reference,) = train(changed(config, precision="float32", device="cpu"), tiny, CPU)
    of_run = [epoch[key] for epoch in result.history for key in LOSSES]
    assert of_run == pytest.approx(losses(reference), rel=NEAR[precision])
    if device.type == "cuda":
        assert result.provenance["captured"] is True
        assert 0 < float(result.timing["inference_device_s"] or 0) <= result.inference_time_s
        assert result.timing["tf32"] is (precision == "tf32")


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_replayed_steps_train_as_plain_ones(
    architecture: str, config: RunConfig, tiny: Dataset, device: torch.device
) -> None:
    """The whole batches and, of another size, the last one of an epoch; a rate for each level."""
    config = changed(config, architecture=architecture, width=24, rate_scaling="fan_in")
    (replayed,) = train(config, tiny, device)
    (plain,) = train(config, tiny, device, captured=False)
    assert losses(replayed) == pytest.approx(losses(plain), rel=1e-3)


def test_a_training_goes_on_from_its_checkpoint(
    config: RunConfig,
    tiny: Dataset,
    device: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    (whole,) = train(config, tiny, device)
    places = Checkpoints(tmp_path, "a")

    def stop(done: int, steps: int, loss: float) -> None:
        if done >= 20:
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        train(config, tiny, device, on_step=stop, checkpoints=places)
    (resumed,) = train(config, tiny, device, checkpoints=places)
    assert resumed.resumed == 3
    assert_alike(resumed, whole, exactly=repeats(config, tiny, device, whole))


def test_three_replicates_are_each_what_they_are_alone(
    config: RunConfig, tiny: Dataset, device: torch.device
) -> None:
    """To rounding: a GPU's libraries may sum in the order in which kernels happen to end."""
    at_once = train(changed(config, replicates=3), tiny, device)
    for seed, network in enumerate(at_once):
        (alone,) = train(changed(config, seed=seed), tiny, device)
        assert_alike(network, alone, exactly=False)
    if device.type == "cuda":
        assert [network.at_once for network in at_once] == [3, 3, 3]


def test_where_sums_keep_their_order_replicates_are_so_bit_for_bit(
    config: RunConfig, tiny: Dataset, device: torch.device, sums_in_order: None
) -> None:
    at_once = train(changed(config, replicates=3), tiny, device)
    for seed, network in enumerate(at_once):
        (alone,) = train(changed(config, seed=seed), tiny, device)
        assert_alike(network, alone, exactly=True)


def test_where_memory_does_not_suffice_fewer_networks_train_at_once(
    config: RunConfig, tiny: Dataset, card: torch.device
) -> None:
    wide = changed(config, width=64, epochs=1)
    (alone,) = train(wide, tiny, card)
    of_four = changed(wide, replicates=4)
    assert given_half(lambda: train(of_four, tiny, card), card)[0].at_once == 4
    networks = train(of_four, tiny, card)
    assert networks[0].at_once < 4, torch.cuda.memory_summary(card, abbreviated=True)
    assert losses(networks[0]) == pytest.approx(losses(alone), rel=1e-3)
