"""The training loop: Adam, one cycle, the best state by a validation loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset, Freeform, Patterns
from fno_runner.errors import DivergedError
from fno_runner.memory import halve_until_it_fits
from fno_runner.physics import LOSSES
from fno_runner.reconstructor import Reconstructor, input_scale_factor
from fno_runner.step import CapturedStep, Step

VALIDATION = 0.05
"""The share of the training patterns that the best state is chosen by."""
REPORT_STEPS = 10
"""Steps between two reports: each one waits until the device has caught up."""

Epoch = dict[str, float | int | None]
"""One line of the history: epoch, train_loss, val_loss, learning_rate, epoch_time_s, …"""
OnStep = Callable[[int, int, float], None]
"""Called after a step with its number, the number of all steps, and a recent loss."""
OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True)
class Inputs:
    """Patterns as `Reconstructor` takes them, on one device.

    x (B, 1, N, N), positions (B, 1, 2, 1) [px], probe (N, N), scale (1, 1, 1, 1).
    """

    x: Tensor
    positions: Tensor
    probe: Tensor
    scale: Tensor

    @classmethod
    def of(cls, patterns: Patterns, scale: float, device: torch.device) -> Inputs:
        return cls(
            x=torch.from_numpy(patterns.amplitude)[:, None].to(device),
            positions=torch.from_numpy(patterns.positions)[:, None, :, None].to(device),
            probe=torch.from_numpy(patterns.probe).to(device),
            scale=torch.full((1, 1, 1, 1), scale, device=device),
        )

    def batch(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four arguments of `forward` and `forward_predict` for these patterns."""
        x = self.x[rows]
        return x, self.positions[rows], self.probe, self.scale.expand(len(x), 1, 1, 1)


@dataclass(frozen=True)
class Trained:
    """A model with its best state loaded, and how it came about."""

    model: Reconstructor
    scale: float
    history: list[Epoch]
    train_time_s: float
    patterns_per_s: float


def train(
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    *,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train the configuration's network on `dataset.train`; same seed, same machine, same result.

    Raises:
        DivergedError: a loss is NaN or infinite.
    """
    fit, validation, scale = prepare(config, dataset, device)
    model = build_model(config, dataset, device)
    loss_of = LOSSES[config.loss]
    on_gpu = device.type == "cuda"
    optimiser = torch.optim.Adam(
        model.parameters(),
        # A captured step reads its rate from the device.
        lr=torch.tensor(config.learning_rate, device=device) if on_gpu else config.learning_rate,
        capturable=on_gpu,
        fused=True,
    )
    step: Callable[[Tensor], Tensor]
    step = Step(model, fit.batch, optimiser, config.loss, config.grad_clip)
    if on_gpu:
        step = CapturedStep(step, config.batch_size)
    steps_an_epoch = math.ceil(len(fit.x) / config.batch_size)
    steps = steps_an_epoch * config.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=config.learning_rate,
        total_steps=max(steps, 2),
        pct_start=0.2,
        cycle_momentum=False,
    )
    shuffle = torch.Generator().manual_seed(config.seed)
    history: list[Epoch] = []
    best_loss, best_state = math.inf, model.state_dict()
    slice_size = config.infer_batch_size
    start = perf_counter()
    done = 0
    for epoch in range(1, config.epochs + 1):
        model.train()
        epoch_start = perf_counter()
        total = torch.zeros((), device=device)
        # The whole order is sent at once: a copy a step would wait for the device.
        order = torch.randperm(len(fit.x), generator=shuffle).to(device)
        for rows in order.split(config.batch_size):
            loss = step(rows)
            schedule.step()
            total += loss * len(rows)
            done += 1
            if on_step is not None and done % REPORT_STEPS == 0:
                on_step(done, steps, float(loss))
        train_loss = float(total) / len(fit.x)
        elapsed = perf_counter() - epoch_start
        val_loss, slice_size = halve_until_it_fits(
            partial(_validate, model, validation, loss_of), slice_size
        )
        entry: Epoch = {
            "epoch": epoch,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "learning_rate": float(schedule.get_last_lr()[0]),
            "epoch_time_s": elapsed,
            "patterns_per_s": len(fit.x) / elapsed,
        }
        history.append(entry)
        if on_epoch is not None:
            on_epoch(entry)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise DivergedError(
                f"epoch {epoch}: training loss {train_loss}, validation loss {val_loss}"
            )
        if val_loss < best_loss:
            best_loss = val_loss
            best_state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    model.load_state_dict(best_state)
    seconds = perf_counter() - start
    return Trained(model, scale, history, seconds, len(fit.x) * config.epochs / seconds)


def prepare(
    config: RunConfig, dataset: Dataset, device: torch.device
) -> tuple[Inputs, Inputs, float]:
    """Training patterns, validation patterns (never of the test set), and the input scale."""
    rng = np.random.default_rng(config.seed)
    rows = rng.permutation(len(dataset.train))[: config.train_patterns]
    held = max(1, round(VALIDATION * len(rows)))
    fit, validation = dataset.train.take(rows[held:]), dataset.train.take(rows[:held])
    mean_intensity = np.square(fit.amplitude).sum(dtype=np.float64) / len(fit)
    scale = input_scale_factor(float(mean_intensity), torch.from_numpy(fit.probe))
    return Inputs.of(fit, scale, device), Inputs.of(validation, scale, device), scale


def build_model(config: RunConfig, dataset: Dataset, device: torch.device) -> Reconstructor:
    """The untrained model of a configuration; its weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        subpixel = isinstance(dataset.geometry, Freeform)
        return Reconstructor(config, subpixel=subpixel).to(device)


@torch.inference_mode()
def _validate(
    model: Reconstructor,
    inputs: Inputs,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    batch_size: int,
) -> float:
    model.eval()
    total = torch.zeros((), device=inputs.x.device)
    for first in range(0, len(inputs.x), batch_size):
        batch = inputs.batch(slice(first, first + batch_size))
        total += loss_of(model(*batch), batch[0]) * len(batch[0])
    return float(total) / len(inputs.x)
