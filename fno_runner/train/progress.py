"""All that a training changes as it goes on: what a checkpoint holds, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fno_runner.errors import DivergedError
from fno_runner.reconstructor import Reconstructor
from fno_runner.train.stacked import states

Epoch = dict[str, float | int | None]
"""One line of the history: epoch, train_loss, val_loss, learning_rate, epoch_time_s, …

Of seeds that train together, the times are those of all of them."""


class Seed:
    """What has become of one seed so far: history, best state, divergence."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        """`weights`: views that follow the training."""
        self._weights = weights
        self.best_loss = math.inf
        self.best_state = weights
        self.history: list[Epoch] = []
        self.error: DivergedError | None = None

    def record(self, epoch: int | float, train_loss: float, val_loss: float, of_all: Epoch) -> None:
        """
        Args:
            epoch: its number; how many there were so far, where the last one was broken off.
            of_all: what the entry has in common with the other seeds'.
        """
        self.history.append(
            {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, **of_all}
        )
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            self.error = DivergedError(
                f"epoch {epoch}: training loss {train_loss}, validation loss {val_loss}"
            )
        elif val_loss < self.best_loss:
            self.best_loss = val_loss
            self.best_state = {name: weight.clone() for name, weight in self._weights.items()}


@dataclass
class Progress:
    """How far the training of K networks has come.

    steps: steps an epoch.
    epoch: epochs that are complete.
    seconds: time that they took [s], in whatever processes.
    resumed: epochs of them that an earlier process trained.
    """

    model: Reconstructor
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.OneCycleLR
    shuffles: list[torch.Generator]
    seeds: list[Seed]
    slice_size: int
    steps: int
    epoch: int = 0
    seconds: float = 0.0
    resumed: int = 0

    @property
    def over(self) -> bool:
        """Whether no seed can be trained further."""
        return all(seed.error is not None for seed in self.seeds)

    def tensors(self) -> dict[str, Tensor]:
        """name -> tensor, on whatever device; views where possible."""
        named = {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
        for number, parameter in enumerate(self.model.parameters()):
            state = self.optimiser.state[parameter]
            named |= {f"adam.{number}.{key}": state[key] for key in _adam(parameter)}
        for number, (shuffle, seed) in enumerate(zip(self.shuffles, self.seeds, strict=True)):
            named[f"shuffle.{number}"] = shuffle.get_state()
            if math.isfinite(seed.best_loss):
                best = seed.best_state.items()
                named |= {f"best.{number}.{name}": weight for name, weight in best}
        return named

    def expected(self, with_best: list[bool]) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """What `tensors` gives after an epoch: name -> shape and type.

        Args:
            with_best: for each seed whether it has a best state.
        """
        named = {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
        for number, parameter in enumerate(self.model.parameters()):
            state = _adam(parameter)
            named |= {f"adam.{number}.{key}": tensor for key, tensor in state.items()}
        for number, (shuffle, best) in enumerate(
            zip(self.shuffles, states(self.model), strict=True)
        ):
            named[f"shuffle.{number}"] = shuffle.get_state()
            if with_best[number]:
                named |= {f"best.{number}.{name}": weight for name, weight in best.items()}
        return {name: (tensor.shape, tensor.dtype) for name, tensor in named.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state of `tensors` up; histories, losses and `epoch` are set already.

        Args:
            tensors: as `expected` says.
        """
        own = self.model.state_dict()
        for name, weight in own.items():
            weight.copy_(tensors[f"model.{name}"])
        for number, parameter in enumerate(self.model.parameters()):
            self.optimiser.state[parameter] = {
                key: empty.copy_(tensors[f"adam.{number}.{key}"])
                for key, empty in _adam(parameter).items()
            }
        for number, (shuffle, seed) in enumerate(zip(self.shuffles, self.seeds, strict=True)):
            shuffle.set_state(tensors[f"shuffle.{number}"])
            if math.isfinite(seed.best_loss):
                seed.best_state = {
                    name: tensors[f"best.{number}.{name}"].to(weight.device, copy=True)
                    for name, weight in seed.best_state.items()
                }
        # The rate is a function of the number of steps alone, and is set by the last of them.
        done = self.epoch * self.steps
        self.schedule.load_state_dict({"last_epoch": done - 1, "_step_count": done})
        self.schedule.step()
        self.resumed = self.epoch


def _adam(parameter: Tensor) -> dict[str, Tensor]:
    """What Adam keeps of a parameter, in the order in which the parameter's numbers are stored.

    A fused step walks all three side by side, so that a moment of another order would be silently
    that of another weight.
    """
    return {
        "step": torch.empty((), device=parameter.device),
        "exp_avg": torch.empty_like(parameter, requires_grad=False),
        "exp_avg_sq": torch.empty_like(parameter, requires_grad=False),
    }
