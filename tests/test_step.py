"""A training step can be captured: it reads nothing back and decides nothing by data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.train.stacked import stack
from fno_runner.train.step import Adam, CapturedStep, Step
from fno_runner.train.training import build_model, prepare

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
READS_BACK = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique", "equal")
"""Operations whose result Python, or a shape, depends on: each waits for the device."""


class NoReadBack(TorchDispatchMode):
    """Refuses the operations that would make a GPU's host wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        name = func.__name__.split(".")[0].lstrip("_")
        if name in {forbidden.lstrip("_") for forbidden in READS_BACK}:
            raise AssertionError(f"{func} in a step")
        return func(*args, **(kwargs or {}))


def make_step(config: RunConfig, data: Dataset) -> Step:
    inputs, _, _ = prepare(config.replicas(), data, CPU)
    model = stack([build_model(one, data, CPU) for one in config.replicas()])
    optimiser = Adam(model.parameters(), lr=config.learning_rate, fused=True)
    return Step(model, inputs.batch, optimiser, config.loss, config.grad_clip)


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("conditioning", ["projection", "amplitude"])
@pytest.mark.parametrize(("precision", "replicates"), [("float32", 1), ("bf16", 1), ("float32", 2)])
def test_a_step_reads_nothing_back(
    architecture: str,
    conditioning: str,
    precision: str,
    replicates: int,
    tiny: Dataset,
    tiny_config: RunConfig,
) -> None:
    changes = {
        "architecture": architecture,
        "conditioning": conditioning,
        "precision": precision,
        "replicates": replicates,
    }
    step = make_step(tiny_config.model_copy(update=changes), tiny)
    rows = torch.arange(16).expand(replicates, -1)
    step(rows)  # what is made only once may look at what it likes
    with NoReadBack():
        loss = step(rows)
    assert loss.shape == (replicates,) and loss.isfinite().all()


def test_our_adam_is_pytorch_s() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(5, 7), torch.randn(4, 5, 7)
    ends = []
    for kind in (Adam, torch.optim.Adam):
        weight = torch.nn.Parameter(start.clone())
        optimiser = kind([weight], lr=0.1, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, 4, cycle_momentum=False)
        for gradient in gradients:
            optimiser.zero_grad()
            (weight * gradient).sum().backward()
            optimiser.step()
            schedule.step()
        ends.append(weight.detach())
    assert torch.equal(*ends) and not torch.equal(ends[0], start)


def test_a_training_does_not_import_the_compiler() -> None:
    """It takes a second or more, which every run would wait for."""
    script = """
import sys, torch
from benchmarks.plan import Network, noise
from fno_runner.train.training import train
config = Network("hybrid", 2, 4).config("bf16", epochs=1)
train(config, noise(20, 1), torch.device("cpu"))
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_the_check_itself_can_fail() -> None:
    with pytest.raises(AssertionError, match="in a step"), NoReadBack():
        float(torch.ones(1).sum())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("replicates", [1, 3])
def test_a_captured_step_trains_as_a_plain_one(
    replicates: int, tiny: Dataset, tiny_config: RunConfig
) -> None:
    configs = tiny_config.model_copy(update={"replicates": replicates}).replicas()
    found: dict[str, list[list[float]]] = {}
    makers: dict[str, Callable[[Step], Step | CapturedStep]] = {
        "plain": lambda step: step,
        "captured": lambda step: CapturedStep(step, 16),
    }
    device = torch.device("cuda")
    for name, wrap in makers.items():
        inputs, fit, _ = prepare(configs, tiny, device)
        model = stack([build_model(one, tiny, device) for one in configs])
        rate = torch.tensor(tiny_config.learning_rate, device=device)
        optimiser = Adam(model.parameters(), lr=rate, capturable=True, fused=True)
        step = wrap(Step(model, inputs.batch, optimiser, "mae", tiny_config.grad_clip))
        found[name] = [step(rows).tolist() for rows in 2 * fit[:, :80].split(16, dim=1)]
    for plain, captured in zip(found["plain"], found["captured"], strict=True):
        assert captured == pytest.approx(plain, rel=1e-4)
