"""Weights in a row: the same network, the same step, whatever order they lie in."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from fno_runner.batches import Inputs
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.models.blocks import FourierBlock
from fno_runner.reconstruct.weights import load_weights, write_weights
from fno_runner.reconstructor import Reconstructor
from fno_runner.train import rates
from fno_runner.train.flat import FlatWeights
from fno_runner.train.network import build_model
from fno_runner.train.rates import names_of_shares
from tests.test_step import make_network

CPU = torch.device("cpu")


def changed(config: RunConfig, **changes: object) -> RunConfig:
    return RunConfig.model_validate({**config.model_dump(), **changes})


SCALING = pytest.mark.parametrize("scaling", ["none", "fan_in"])


@pytest.fixture(autouse=True)
def every_level_has_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "FULL_RATE_CHANNELS", 4)


def flat(model: Reconstructor, config: RunConfig) -> FlatWeights:
    return FlatWeights(model, names_of_shares(model, config))


@SCALING
@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_a_row_holds_each_weight_once_and_where_fast_kernels_want_it(
    architecture: str, scaling: str, tiny: Dataset, tiny_config: RunConfig
) -> None:
    config = changed(tiny_config, architecture=architecture, width=8, rate_scaling=scaling)
    model, plain = (build_model(config, tiny, CPU) for _ in range(2))
    rows = flat(model, config).rows.values()
    assert (len(rows) > 1) == (scaling == "fan_in" and architecture == "hybrid")
    count = sum(len(row.numbers) for row in rows)
    assert count == sum(weight.numel() for weight in plain.parameters())
    named: dict[str, torch.Tensor] = {}
    for row in rows:
        named |= row.named(row.numbers.detach())
    for name, weight in plain.named_parameters():
        ours = model.get_parameter(name)
        assert torch.equal(ours, weight) and ours.stride() == weight.stride(), name
        assert ours.data_ptr() == named[name].data_ptr()
        if weight.numel() % 64 == 0:
            assert ours.storage_offset() % 64 == 0, name
    with torch.no_grad():
        for row in rows:
            row.numbers.add_(1.0)
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), weight + 1)


@SCALING
@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_row_predicts_what_its_model_does(
    architecture: str,
    precision: str,
    scaling: str,
    tiny: Dataset,
    tiny_config: RunConfig,
) -> None:
    """In bf16, too, bit for bit: a cast of all weights at once is that of each in autocast."""
    how = {"architecture": architecture, "precision": precision, "rate_scaling": scaling}
    config = changed(tiny_config, **how)
    model = build_model(config, tiny, CPU)
    weights = flat(model, config)
    batch = Inputs.of(tiny.train, 0.5, CPU).batch(torch.arange(8))
    expected, predicted = model(*batch), weights.forward(*batch)
    assert torch.equal(predicted, expected)
    given = torch.randn_like(predicted)
    expected.backward(given)
    weights.backward((predicted * given).sum())
    rounding = 1e-6 if precision == "float32" else 2**-8  # of sums that are bf16 there
    for row in weights.rows.values():
        assert row.numbers.grad is not None
        for name, ours in row.named(row.numbers.grad).items():
            theirs = model.get_parameter(name).grad
            assert theirs is not None
            assert (ours - theirs).norm() <= rounding * theirs.norm(), name


@SCALING
@pytest.mark.parametrize("grad_clip", [0.02, 1e3], ids=["clipped", "whole"])
@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_a_flat_step_is_a_step(
    architecture: str, grad_clip: float, scaling: str, tiny: Dataset, tiny_config: RunConfig
) -> None:
    """Clipping and Adam over rows, and fused blocks, against what PyTorch does of the formulas."""
    how = {"architecture": architecture, "grad_clip": grad_clip, "rate_scaling": scaling}
    config = changed(tiny_config, **how)
    flat, plain = (make_network(config, tiny, flat=way) for way in (True, False))
    for rows in torch.arange(64).split(16):
        theirs = plain.step(rows)
        with patch.object(FourierBlock, "forward", FourierBlock.fused):
            ours = flat.step(rows)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for name, weight in plain.model.state_dict().items():
        moved = (weight - build_model(config, tiny, CPU).state_dict()[name]).norm()
        assert (flat.model.state_dict()[name] - weight).norm() < 1e-3 * moved, name


def test_weights_in_a_row_are_written_as_all_others(
    tiny: Dataset, tiny_config: RunConfig, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    network = make_network(tiny_config, tiny, flat=True)
    network.step(torch.arange(16))
    write_weights(path, network.model, 0.5)
    read = build_model(tiny_config, tiny, CPU)
    assert load_weights(path, read) == 0.5
    for name, weight in network.model.state_dict().items():
        assert torch.equal(read.state_dict()[name], weight)
