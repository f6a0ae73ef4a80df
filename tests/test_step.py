"""A training step can be captured: it reads nothing back and decides nothing by data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.step import CapturedStep, Step
from fno_runner.training import build_model, prepare

CPU = torch.device("cpu")
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
    fit, _, _ = prepare(config, data, CPU)
    model = build_model(config, data, CPU)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    return Step(model, fit.batch, optimiser, config.loss, config.grad_clip)


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("conditioning", ["projection", "amplitude"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_reads_nothing_back(
    architecture: str, conditioning: str, precision: str, tiny: Dataset, tiny_config: RunConfig
) -> None:
    changes = {"architecture": architecture, "conditioning": conditioning, "precision": precision}
    step = make_step(tiny_config.model_copy(update=changes), tiny)
    rows = torch.arange(16)
    step(rows)  # what is made only once may look at what it likes
    with NoReadBack():
        loss = step(rows)
    assert loss.isfinite()


def test_the_check_itself_can_fail() -> None:
    with pytest.raises(AssertionError, match="in a step"), NoReadBack():
        float(torch.ones(1).sum())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_captured_step_trains_as_a_plain_one(tiny: Dataset, tiny_config: RunConfig) -> None:
    losses: dict[str, list[float]] = {}
    makers: dict[str, Callable[[Step], Step | CapturedStep]] = {
        "plain": lambda step: step,
        "captured": lambda step: CapturedStep(step, 16),
    }
    device = torch.device("cuda")
    for name, wrap in makers.items():
        fit, _, _ = prepare(tiny_config, tiny, device)
        model = build_model(tiny_config, tiny, device)
        rate = torch.tensor(tiny_config.learning_rate, device=device)
        optimiser = torch.optim.Adam(model.parameters(), lr=rate, capturable=True, fused=True)
        step = wrap(Step(model, fit.batch, optimiser, "mae", tiny_config.grad_clip))
        order = [torch.arange(n, n + 16, device=device) % len(fit.x) for n in range(0, 160, 16)]
        losses[name] = [float(step(rows)) for rows in order]
    assert losses["captured"] == pytest.approx(losses["plain"], rel=1e-4)
