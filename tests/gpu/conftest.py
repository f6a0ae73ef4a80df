"""What a machine with a GPU is tried with: `make test-gpu`, some three minutes.

SUITE_DEVICE=cpu tries the bodies of these tests on a CPU, those of them that have a sense there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from fno_runner.config import RunConfig


@pytest.fixture
def device() -> torch.device:
    name = os.environ.get("SUITE_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device: make test-gpu on a machine that has one")
    return torch.device(name)


@pytest.fixture
def card(device: torch.device) -> Iterator[torch.device]:
    """A CUDA device, whose memory this process may be denied; it is given back afterwards."""
    if device.type == "cpu":
        pytest.skip("a CPU's memory is not limited so")
    torch.cuda.empty_cache()
    yield device
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture
def config(tiny_config: RunConfig, device: torch.device) -> RunConfig:
    """Four epochs of five steps of 16 and one of 11; wide enough for the fast kernels."""
    changes = {"device": device.type, "width": 8, "epochs": 4, "grad_clip": 0.5}
    return RunConfig.model_validate({**tiny_config.model_dump(), **changes})
