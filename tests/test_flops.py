"""Operations, against what one counts by hand: two a multiply-add, FFTs by 5 N log₂ N."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fno_runner.config import N, RunConfig
from fno_runner.models.blocks import FourierBlock
from fno_runner.models.spectral import SpectralConv2d
from fno_runner.reconstructor import Reconstructor
from fno_runner.score.flops import OperationCounter, fft_flops, flops_per_pattern

PROBE = np.ones((N, N), np.complex64)
SMALL = RunConfig(width=4, modes=6, blocks=2, conditioning="amplitude")


@torch.inference_mode()
def counted(layer: nn.Module, x: torch.Tensor) -> int:
    with OperationCounter() as flops:
        layer(x)
    return flops.total


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_multiplies_every_weight_with_every_pixel(kernel: int) -> None:
    convolution = nn.Conv2d(3, 5, kernel, padding=kernel // 2)
    assert counted(convolution, torch.ones(1, 3, 8, 8)) == 2 * kernel**2 * 3 * 5 * 8 * 8


def test_a_spectral_layer_is_its_five_products() -> None:
    """16 × 16 px, 3 → 5 channels, 6 rows and 4 columns of modes, complex numbers as two real."""
    by_hand = 2 * (
        (6 * 2) * 16 * (16 * 3)  # rows: 6 complex modes of 16 real numbers, for 16 columns
        # columns: 4 modes of 16 complex numbers, for 6 rows; each part given twice
        + (4 * 4) * (16 * 2) * (6 * 3)
        + (6 * 4) * 2 * 3 * (5 * 2)  # every mode's matrix
        + (16 * 2) * (4 * 2) * (6 * 5)  # back: 16 columns
        + 16 * (6 * 2) * (16 * 5)  # 16 rows, real
    )
    assert counted(SpectralConv2d(3, 5, 6, 16), torch.ones(1, 3, 16, 16)) == by_hand


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_pytorch_s_own_counter_counts_the_same(architecture: str) -> None:
    update = {"architecture": architecture, "conditioning": "amplitude"}
    model = Reconstructor(SMALL.model_copy(update=update))
    x = torch.ones(1, 1, N, N)
    with FlopCounterMode(display=False) as theirs, torch.inference_mode():
        model.network(x)
    assert counted(model.network, x) == theirs.get_total_flops() > 0


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_a_gpu_s_blocks_are_as_many_operations(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two devices one number: it is a cost that no machine changes."""
    model = Reconstructor(SMALL.model_copy(update={"architecture": architecture}))
    plain = flops_per_pattern(model, PROBE)
    monkeypatch.setattr(FourierBlock, "forward", FourierBlock.fused)
    assert flops_per_pattern(model, PROBE) == plain


def test_ffts_count_by_formula() -> None:
    assert fft_flops((3, 8, 8), (1, 2)) == 3 * 5 * 64 * log2(64)
    with OperationCounter() as flops:
        torch.fft.ifft2(torch.fft.fft2(torch.ones(3, 8, 16, dtype=torch.complex64)))
    assert flops.total == 3 * (5 * 128 * 7) * 2


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_the_projection_input_costs_two_ffts_and_two_channels(architecture: str) -> None:
    def of(conditioning: str, precision: str = "float32") -> int:
        update = {
            "architecture": architecture, "conditioning": conditioning, "precision": precision,
        }  # fmt: skip
        return flops_per_pattern(Reconstructor(SMALL.model_copy(update=update)), PROBE)

    two_ffts = 2 * 5 * N**2 * log2(N**2)
    two_channels = 2 * 9 * 2 * SMALL.width * N**2
    assert of("projection") - of("amplitude") == two_ffts + two_channels
    assert of("amplitude", "bf16") == of("amplitude")


def test_every_mode_of_the_probe_has_its_ffts() -> None:
    model = Reconstructor(SMALL.model_copy(update={"conditioning": "projection"}))
    three = flops_per_pattern(model, np.stack([PROBE] * 3))
    assert three - flops_per_pattern(model, PROBE) == 2 * 2 * 5 * N**2 * log2(N**2)


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_a_gpu_s_way_takes_as_many(architecture: str) -> None:
    """On the `meta` device, which goes a GPU's way: sums of the spectral layers in place."""
    model = Reconstructor(SMALL.model_copy(update={"architecture": architecture}))
    assert flops_per_pattern(model, PROBE) == flops_per_pattern(model.to("meta"), PROBE)


def test_counting_leaves_the_weights_as_they_are() -> None:
    model = Reconstructor(SMALL)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert flops_per_pattern(model, PROBE) == flops_per_pattern(model, PROBE) > 0
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
