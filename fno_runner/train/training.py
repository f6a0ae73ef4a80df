"""The training loop: Adam, one cycle, the best state by a validation loss."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from fno_runner.batches import Inputs, mask_of
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset, Freeform
from fno_runner.device import halve_until_it_fits, keep_freed_memory
from fno_runner.errors import DivergedError
from fno_runner.physics import LOSSES
from fno_runner.reconstructor import Reconstructor, input_scale_factor
from fno_runner.train.checkpoint import Checkpoint, Checkpoints
from fno_runner.train.progress import Epoch, Progress, Seed
from fno_runner.train.stacked import Loss, losses, stack, states
from fno_runner.train.step import Adam, CapturedStep, Step

log = logging.getLogger("fno_runner")

VALIDATION = 0.05
"""The share of the training patterns that the best state is chosen by."""
REPORT_STEPS = 10
"""Steps between two reports: each one waits until the device has caught up."""

OnStep = Callable[[int, int, float], None]
"""Called after a step with its number, the number of all steps, and a recent loss."""
OnEpoch = Callable[[Epoch], None]
StopAsked = Callable[[], bool]
"""Asked after every step whether the training is to end there, on purpose."""


def never() -> bool:
    """Nobody asks the training to end early."""
    return False


@dataclass(frozen=True)
class Trained:
    """A model with its best state loaded, and how it came about.

    error: a loss became NaN or infinite; the history ends there.
    train_time_s: of seeds that train together, each one's equal share.
    resumed: epochs that an earlier process trained, up to the checkpoint it left.
    stopped: the epochs, and parts of one, after which it was ended on purpose; None where it was
        not.
    """

    model: Reconstructor
    scale: float
    history: list[Epoch]
    error: DivergedError | None
    train_time_s: float
    patterns_per_s: float
    resumed: int = 0
    stopped: float | None = None


def train(
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    *,
    together: bool | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    stop_asked: StopAsked = never,
    checkpoints: Checkpoints | None = None,
) -> list[Trained]:
    """Train the configuration's network on `dataset.train`, once for each of its seeds.

    Same seed, same machine, same result, whatever the other seeds: together they differ from each
    one alone only as sums in another order do.

    Args:
        together: whether one program trains all seeds. By default on a GPU, which one small network
            does not fill, and not on a CPU, which it does (nor does a CPU's autocast to bf16 reach
            stacked convolutions).
        on_epoch: hears of the first seed's epochs only; of those before a checkpoint as well.
        stop_asked: where it says so, every training ends with what it has reached. The epoch that
            it is in becomes the last line of its history, as far as it came.
        checkpoints: where they are left and taken up; None: nowhere.
    """
    configs = config.replicas()
    if together is None:
        together = device.type == "cuda"
    if together:
        checkpoint = checkpoints.of(configs, device) if checkpoints else None
        return _train(configs, dataset, device, on_step, on_epoch, stop_asked, checkpoint)
    trained = []
    for done, one in enumerate(configs):
        report = on_step and partial(_as_part, on_step, done, len(configs))
        checkpoint = checkpoints.of([one], device) if checkpoints else None
        hears = None if done else on_epoch
        trained += _train([one], dataset, device, report, hears, stop_asked, checkpoint)
        if len(configs) > 1:
            log.info("seed %d: trained in %.1f s", one.seed, trained[-1].train_time_s)
    return trained


def _as_part(on_step: OnStep, done: int, parts: int, step: int, steps: int, loss: float) -> None:
    on_step(done * steps + step, parts * steps, loss)


def _train(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    device: torch.device,
    on_step: OnStep | None,
    on_epoch: OnEpoch | None,
    stop_asked: StopAsked,
    checkpoint: Checkpoint | None,
) -> list[Trained]:
    """Train K configurations that differ in their seeds, in one program."""
    config = configs[0]
    if device.type == "cpu":
        keep_freed_memory()
    inputs, fit, held = prepare(configs, dataset, device)
    models = [build_model(one, dataset, device) for one in configs]
    model = stack(models)
    seeds = [Seed(weights) for weights in states(model)]
    optimiser = _optimiser(model, config.learning_rate, device)
    step: Callable[[Tensor], Tensor]
    step = Step(model, inputs.batch, optimiser, config.loss, config.grad_clip)
    if device.type == "cuda":
        step = CapturedStep(step, config.batch_size)
    count = fit.shape[1]
    steps_an_epoch = math.ceil(count / config.batch_size)
    steps = steps_an_epoch * config.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=config.learning_rate,
        total_steps=max(steps, 2),
        pct_start=0.2,
        cycle_momentum=False,
    )
    shuffles = [torch.Generator().manual_seed(one.seed) for one in configs]
    progress = Progress(
        model, optimiser, schedule, shuffles, seeds, config.infer_batch_size, steps_an_epoch
    )
    if checkpoint is not None:
        checkpoint.resume(progress)
    if on_epoch is not None:
        for entry in seeds[0].history:
            on_epoch(entry)
    start = perf_counter() - progress.seconds
    done = progress.epoch * steps_an_epoch
    stopped: float | None = None
    while progress.epoch < config.epochs and not progress.over:
        if stop_asked():
            stopped = float(progress.epoch)
            break
        epoch = progress.epoch + 1
        model.train()
        epoch_start = perf_counter()
        total = torch.zeros(len(configs), device=device)
        # The whole order is sent at once: a copy a step would wait for the device.
        seen = 0
        order = torch.stack([torch.randperm(count, generator=shuffle) for shuffle in shuffles])
        for rows in fit.gather(1, order.to(device)).split(config.batch_size, dim=1):
            loss = step(rows)
            schedule.step()
            total += loss * rows.shape[1]
            seen += rows.shape[1]
            done += 1
            if on_step is not None and done % REPORT_STEPS == 0:
                on_step(done, steps, float(loss[0]))
            if seen < count and stop_asked():
                stopped = progress.epoch + seen / count
                break
        train_losses = (total / seen).tolist()
        elapsed = perf_counter() - epoch_start
        val_losses, progress.slice_size = halve_until_it_fits(
            partial(_validate, model, inputs, held, LOSSES[config.loss]),
            progress.slice_size,
        )
        of_all: Epoch = {
            "learning_rate": float(schedule.get_last_lr()[0]),
            "epoch_time_s": elapsed,
            "patterns_per_s": seen * len(configs) / elapsed,
        }
        so_far = epoch if stopped is None else round(stopped, 3)
        for seed, train_loss, val_loss in zip(seeds, train_losses, val_losses, strict=True):
            if seed.error is None:
                seed.record(so_far, train_loss, val_loss, of_all)
                if on_epoch is not None and seed is seeds[0]:
                    on_epoch(seed.history[-1])
        progress.seconds = perf_counter() - start
        if stopped is not None:
            break
        progress.epoch = epoch
        if checkpoint is not None:
            checkpoint.save(progress, now=progress.over or epoch == config.epochs)
    for one, seed in zip(models, seeds, strict=True):
        one.load_state_dict(seed.best_state)
    seconds, reached = progress.seconds, progress.epoch if stopped is None else stopped
    return [
        Trained(
            model=one,
            scale=float(scale),
            history=seed.history,
            error=seed.error,
            train_time_s=seconds / len(seeds),
            patterns_per_s=fit.numel() * reached / seconds if seconds else 0.0,
            resumed=progress.resumed,
            stopped=stopped,
        )
        for one, seed, scale in zip(models, seeds, inputs.scale, strict=True)
    ]


def _optimiser(model: Reconstructor, rate: float, device: torch.device) -> Adam:
    on_gpu = device.type == "cuda"
    return Adam(
        model.parameters(),
        # A captured step reads its rate from the device.
        lr=torch.tensor(rate, device=device) if on_gpu else rate,
        capturable=on_gpu,
        fused=True,
    )


def prepare(
    configs: Sequence[RunConfig], dataset: Dataset, device: torch.device
) -> tuple[Inputs, Tensor, Tensor]:
    """What K configurations that differ in their seeds are trained on.

    Returns:
        all of `dataset.train`; of each seed the patterns that it is trained on, int64 (K, n); and
        those that its best state is chosen by, int64 (K, m), which are never of the test set.
    """
    intensity = np.square(dataset.train.amplitude).sum((1, 2), dtype=np.float64)
    probe = torch.from_numpy(dataset.train.probe)
    mask = mask_of(dataset.train)
    fit, held, scale = [], [], []  # by seed
    for config in configs:
        rows = np.random.default_rng(config.seed).permutation(len(dataset.train))
        rows = rows[: config.train_patterns]
        count = max(1, round(VALIDATION * len(rows)))
        held.append(torch.from_numpy(rows[:count]))
        fit.append(torch.from_numpy(rows[count:]))
        scale.append(input_scale_factor(float(intensity[rows[count:]].mean()), probe, mask))
    inputs = Inputs.of(dataset.train, scale, device)
    return inputs, torch.stack(fit).to(device), torch.stack(held).to(device)


def build_model(config: RunConfig, dataset: Dataset, device: torch.device) -> Reconstructor:
    """The untrained model of a configuration; its weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        subpixel = isinstance(dataset.geometry, Freeform)
        mask = mask_of(dataset.train)
        size = dataset.train.size
        return Reconstructor(config, size=size, subpixel=subpixel, mask=mask).to(device)


@torch.inference_mode()
def _validate(
    model: Reconstructor, inputs: Inputs, rows: Tensor, loss_of: Loss, batch_size: int
) -> list[float]:
    model.eval()
    total = torch.zeros(len(rows), device=rows.device)
    for some in rows.split(batch_size, dim=1):
        batch = inputs.batch(some)
        total += losses(loss_of, model(*batch), batch[0], len(rows)) * some.shape[1]
    return (total / rows.shape[1]).tolist()
