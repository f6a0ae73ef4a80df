"""What a machine with a GPU is tried with: `make test-gpu`, some three minutes.

SUITE_DEVICE=cpu tries the bodies of these tests on a CPU, those of them that have a sense there.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
import torch

from fno_runner.config import RunConfig

T = TypeVar("T")

# cuBLAS repeats itself with streams beside each other only so; it reads this when it begins.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


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
    yield device
    torch.cuda.set_per_process_memory_fraction(1.0)
    _free()


@pytest.fixture
def sums_in_order(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The libraries' algorithms that repeat themselves bit for bit, where there are such."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def given_half(work: Callable[[], T], card: torch.device) -> T:
    """What `work` gives with all of the card; from then on it has half the memory that it took.

    What libraries keep for themselves is there before: call it once the work was done before.
    """
    _free()
    before = torch.cuda.memory_reserved(card)
    torch.cuda.reset_peak_memory_stats(card)
    result = work()
    took = torch.cuda.max_memory_reserved(card) - before
    _free()
    allowed = torch.cuda.memory_reserved(card) + took // 2
    total = torch.cuda.get_device_properties(card).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed / total, card)
    return result


def _free() -> None:
    gc.collect()  # graphs of what refers to itself
    torch.cuda.empty_cache()


@pytest.fixture
def config(tiny_config: RunConfig, device: torch.device) -> RunConfig:
    """Four epochs of five steps of 16 and one of 11; wide enough for the fast kernels."""
    changes = {"device": device.type, "width": 8, "epochs": 4, "grad_clip": 0.5}
    return RunConfig.model_validate({**tiny_config.model_dump(), **changes})
