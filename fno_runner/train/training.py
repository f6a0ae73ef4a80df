"""The training loop: Adam, one cycle, the best state by a validation loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from fno_runner.batches import Inputs
from fno_runner.capture import Captured, Work
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.device import allow_tf32, halve_until_it_fits, keep_freed_memory
from fno_runner.errors import DivergedError
from fno_runner.reconstructor import Reconstructor
from fno_runner.train.checkpoint import Checkpoint, Checkpoints
from fno_runner.train.compiled import compiled_blocks, worth_compiling
from fno_runner.train.network import Network
from fno_runner.train.progress import Epoch
from fno_runner.train.schedule import one_cycle
from fno_runner.train.streams import OnStreams

log = logging.getLogger("fno_runner")

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
    train_time_s: of networks that trained at once, each one's equal share.
    resumed: epochs that an earlier process trained, up to the checkpoint it left.
    stopped: the epochs, and parts of one, after which it was ended on purpose; None where it was
        not.
    at_once: networks that trained at once.
    captured: whether steps were replayed as a CUDA graph; None where that was not tried.
    compiled: whether steps took compiled blocks; None where that was not tried.
    """

    model: Reconstructor
    scale: float
    history: list[Epoch]
    error: DivergedError | None
    train_time_s: float
    patterns_per_s: float
    resumed: int = 0
    stopped: float | None = None
    at_once: int = 1
    captured: bool | None = None
    compiled: bool | None = None


def train(
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    *,
    captured: bool | None = None,
    compiled: bool | None = None,
    cache: Path | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    stop_asked: StopAsked = never,
    checkpoints: Checkpoints | None = None,
) -> list[Trained]:
    """Train the configuration's network on `dataset.train`, once for each of its seeds.

    Same seed, same machine, same result, whatever the other seeds. On a CPU that holds bit for bit,
    on a GPU to rounding: its libraries may sum in the order in which kernels happen to end.

    Args:
        captured: whether steps are recorded once and replayed, those of all seeds at once, or of as
            many as memory allows. By default on a GPU; on a CPU one seed trains after the other.
        compiled: whether steps take compiled blocks. By default on a GPU, where that pays.
        cache: where what is compiled is kept; None: where PyTorch keeps it.
        on_epoch: hears of the first seed's epochs only, once of each; of those before a checkpoint
            as well.
        stop_asked: where it says so, every training ends with what it has reached. The epoch that
            it is in becomes the last line of its history, as far as it came.
        checkpoints: where they are left and taken up; None: nowhere.
    """
    if captured is None:
        captured = device.type == "cuda"
    if device.type == "cpu":
        keep_freed_memory()
    allow_tf32(config.precision == "tf32")
    configs = config.replicas()
    trained: list[Trained] = []
    left: dict[int, int] = {}
    on_epoch = on_epoch and _once(on_epoch)

    def train_the_rest(at_once: int) -> None:
        while len(trained) < len(configs):
            done = len(trained)
            some = configs[done : done + at_once]
            report = on_step and partial(_as_part, on_step, done, len(some), len(configs))
            hear = None if done else on_epoch
            networks = _networks(some, dataset, device, captured)
            checkpoint = checkpoints.of(some, device) if checkpoints else None
            models = [network.model for network in networks]
            pays = captured and worth_compiling(config, config.epochs * networks[0].steps)
            with ExitStack() as stack:
                blocks = None
                if pays if compiled is None else compiled:
                    blocks = stack.enter_context(compiled_blocks(models, config.batch_size, cache))
                if checkpoint:
                    _resume(networks, checkpoint, left)
                group = _train(networks, captured, report, hear, stop_asked, checkpoint)
                how = None if blocks is None else blocks.compiled
                trained.extend(replace(network, compiled=how) for network in group)
            if len(configs) > len(some) == 1:
                log.info("seed %d: trained in %.1f s", some[0].seed, trained[-1].train_time_s)

    most = len(configs) if captured else 1
    halve_until_it_fits(train_the_rest, most, "networks at once")
    return trained


def _resume(networks: list[Network], checkpoint: Checkpoint, left: dict[int, int]) -> None:
    """Bring networks to where their checkpoints stand.

    Args:
        left: seed -> the epochs that an earlier process trained; filled where a seed is new. What
            is taken up after memory ran out is this process's own.
    """
    every = [network.progress for network in networks]
    checkpoint.resume(every)
    for network, progress in zip(networks, every, strict=True):
        earlier = left.setdefault(network.config.seed, progress.resumed)
        progress.resumed = min(progress.resumed, earlier)


def _once(on_epoch: OnEpoch) -> OnEpoch:
    """Tells of each epoch once, also where it is trained again for want of memory."""
    told: set[float | None] = set()

    def hear(entry: Epoch) -> None:
        if entry["epoch"] not in told:
            told.add(entry["epoch"])
            on_epoch(entry)

    return hear


def _as_part(
    on_step: OnStep, done: int, at_once: int, networks: int, step: int, steps: int, loss: float
) -> None:
    on_step(done * steps + at_once * step, networks * steps, loss)


def _networks(
    configs: Sequence[RunConfig], dataset: Dataset, device: torch.device, captured: bool
) -> list[Network]:
    """Untrained networks that share the data, and one learning rate, on the device."""
    # A fused update on a GPU wants a rate of the weights' type, one on a CPU takes it as it is.
    kind = torch.float64 if device.type == "cpu" else torch.float32
    rate = torch.zeros((), dtype=kind, device=device)
    inputs = Inputs.of(dataset.train, 1.0, device)
    return [Network(config, dataset, inputs, rate, flat=captured) for config in configs]


def _train(
    networks: list[Network],
    captured: bool,
    on_step: OnStep | None,
    on_epoch: OnEpoch | None,
    stop_asked: StopAsked,
    checkpoint: Checkpoint | None,
) -> list[Trained]:
    """Train networks that differ in their seeds, at once."""
    every = [network.progress for network in networks]
    if on_epoch is not None:
        for entry in every[0].history:
            on_epoch(entry)
    group = None
    was_captured: set[bool | None] = set()
    while active := _next(networks):
        if stop_asked():
            break
        if group is None or group.networks != active:
            group = None  # the recordings of the old group go before a new one makes its own
            group = _Group(active, captured=captured)
        group.epoch(on_step, stop_asked)
        was_captured.add(group.captured)
        if on_epoch is not None and networks[0] in active:
            on_epoch(every[0].history[-1])
        if active[0].progress.stopped is not None:
            break
        if checkpoint:
            checkpoint.save(every, now=not _next(networks))
    for network in networks:
        if not network.is_over:
            network.progress.stopped = float(network.progress.epoch)
        network.model.load_state_dict(network.progress.best_state)
    how = False if False in was_captured else True in was_captured or None
    return [_trained(network, len(networks), how) for network in networks]


def _trained(network: Network, at_once: int, captured: bool | None) -> Trained:
    progress = network.progress
    patterns = len(network.split.fit) * progress.reached
    return Trained(
        model=network.model,
        scale=network.split.scale,
        history=progress.history,
        error=progress.error,
        train_time_s=progress.seconds,
        patterns_per_s=patterns / progress.seconds if progress.seconds else 0.0,
        resumed=progress.resumed,
        stopped=progress.stopped,
        at_once=at_once,
        captured=captured,
    )


def _next(networks: Sequence[Network]) -> list[Network]:
    """The networks whose next epoch it is: the least far of those that go on."""
    going_on = [network for network in networks if not network.is_over]
    least = min((network.progress.epoch for network in going_on), default=0)
    return [network for network in going_on if network.progress.epoch == least]


class _Group:
    """Networks that are equally far and train at once."""

    def __init__(self, networks: list[Network], *, captured: bool) -> None:
        self.networks = networks
        self._config, self._rate = networks[0].config, networks[0].rate
        # Of each network on its rows, int64 (K, B) → float32 (K,).
        self._step = _at_once([network.step for network in networks])
        self._misfit = _at_once([network.misfit for network in networks])
        if captured:
            # One network alone has no smaller group to go back to.
            self._step = Captured(self._step, plain_if_full=len(networks) == 1)
            self._misfit = Captured(self._misfit)

    @property
    def captured(self) -> bool | None:
        """Whether steps are replayed; None where that was not tried."""
        return self._step.captured if isinstance(self._step, Captured) else None

    def epoch(self, on_step: OnStep | None, stop_asked: StopAsked) -> None:
        """Train one epoch, validate, and enter both in each network's progress."""
        start = perf_counter()
        first = self.networks[0]
        # The whole order is sent at once: a copy a step would wait for the device.
        order = torch.stack([network.order() for network in self.networks])
        order = order.to(self._rate.device)  # (K, n)
        total = torch.zeros(len(self.networks), device=self._rate.device)
        done, steps = first.progress.epoch * first.steps, self._config.epochs * first.steps
        seen, count = 0, order.shape[1]
        for rows in order.split(self._config.batch_size, dim=1):
            self._rate.fill_(one_cycle(self._config.learning_rate, done, steps))
            loss = self._step(rows)
            total += loss * rows.shape[1]
            seen += rows.shape[1]
            done += 1
            if on_step is not None and done % REPORT_STEPS == 0:
                on_step(done, steps, float(loss[0]))
            if seen < count and stop_asked():
                break
        train_losses = (total / seen).tolist()
        elapsed = perf_counter() - start
        val_losses = self._validate()
        of_all: Epoch = {
            "learning_rate": one_cycle(self._config.learning_rate, done - 1, steps),
            "epoch_time_s": elapsed,
            "patterns_per_s": seen * len(self.networks) / elapsed,
        }
        each_s = (perf_counter() - start) / len(self.networks)
        for network, train_loss, val_loss in zip(
            self.networks, train_losses, val_losses, strict=True
        ):
            network.progress.record(seen / count, train_loss, val_loss, each_s, of_all)

    def _validate(self) -> list[float]:
        """The loss of each network on what is held back, in slices that memory allows."""
        held = torch.stack([network.split.held for network in self.networks])
        held = held.to(self._rate.device)  # (K, m)
        for network in self.networks:
            network.model.eval()

        def losses(slice_size: int) -> list[float]:
            total = torch.zeros(len(held), device=held.device)
            for rows in held.split(slice_size, dim=1):
                total += self._misfit(rows) * rows.shape[1]
            return (total / held.shape[1]).tolist()

        size = min(network.progress.slice_size for network in self.networks)
        of_each, size = halve_until_it_fits(losses, size)
        for network in self.networks:
            network.progress.slice_size = size
            network.model.train()
        return of_each


def _at_once(works: Sequence[Work]) -> Work:
    """Each network's work on its own rows."""
    if len(works) == 1:
        return lambda rows: works[0](rows[0])[None]
    return OnStreams(works)
