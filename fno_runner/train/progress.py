"""All that a training changes as it goes on: what a checkpoint holds, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fno_runner.errors import DivergedError
from fno_runner.reconstructor import Reconstructor
from fno_runner.train.adam import Adam

Epoch = dict[str, float | int | None]
"""One line of the history: epoch, train_loss, val_loss, learning_rate, epoch_time_s, …

Of networks that train at once, the times are those of all of them."""


class Progress:
    """How far the training of one network has come.

    epoch: epochs that are complete.
    seconds: time that they took [s], in whatever processes; of networks that trained at once, the
        equal share of each.
    resumed: epochs of them that an earlier process trained.
    best_loss, best_state: the lowest validation loss so far, and the weights that had it.
    error: why it cannot be trained further.
    stopped: the epochs, and parts of one, after which it was ended on purpose.
    slice_size: patterns of a slice in validation, as many as memory allowed.
    """

    def __init__(self, model: Reconstructor, optimiser: Adam, seed: int, slice_size: int) -> None:
        """`seed`: of the order of patterns."""
        self._model, self._optimiser = model, optimiser
        self.shuffle = torch.Generator().manual_seed(seed)
        self.slice_size = slice_size
        self.epoch = self.resumed = 0
        self.seconds = 0.0
        self.history: list[Epoch] = []
        self.best_loss = math.inf
        self.best_state = self._weights()
        self.error: DivergedError | None = None
        self.stopped: float | None = None

    @property
    def reached(self) -> float:
        """The epochs, and parts of one, that it was trained for."""
        return float(self.epoch) if self.stopped is None else self.stopped

    def record(
        self, share: float, train_loss: float, val_loss: float, seconds: float, of_all: Epoch
    ) -> None:
        """Enter an epoch.

        Args:
            share: how much of it was trained: less than 1 where it was broken off, on purpose.
            seconds: this network's share of its time [s].
            of_all: what its entry has in common with the other networks'.
        """
        if share < 1:
            self.stopped = self.epoch + share
        else:
            self.epoch += 1
        self.seconds += seconds
        epoch = self.epoch if share == 1 else round(self.reached, 3)
        self.history.append(
            {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, **of_all}
        )
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            self.error = DivergedError(
                f"epoch {epoch}: training loss {train_loss}, validation loss {val_loss}"
            )
        elif val_loss < self.best_loss:
            self.best_loss = val_loss
            self.best_state = {name: weight.clone() for name, weight in self._weights().items()}

    def tensors(self) -> dict[str, Tensor]:
        """name -> tensor, on whatever device; views where possible."""
        return self._named(math.isfinite(self.best_loss))

    def expected(self, has_best: bool) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """What `tensors` gives once there is a best state, or none: name -> shape and type."""
        named = self._named(has_best)
        return {name: (tensor.shape, tensor.dtype) for name, tensor in named.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state of `tensors` up; history, losses and `epoch` are set already.

        Args:
            tensors: as `expected` says.
        """
        best = math.isfinite(self.best_loss)
        if best:
            self.best_state = {name: weight.clone() for name, weight in self._weights().items()}
        for name, own in self._named(best).items():
            own.copy_(tensors[name])
        self.shuffle.set_state(tensors["shuffle"])
        self.resumed = self.epoch

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self._model.state_dict().items()}

    def _named(self, best: bool) -> dict[str, Tensor]:
        named = {f"model.{name}": weight for name, weight in self._weights().items()}
        for number, state in enumerate(self._optimiser.state.values()):
            named |= {f"adam.{number}.{name}": tensor for name, tensor in state.items()}
        named["shuffle"] = self.shuffle.get_state()
        if best:
            named |= {f"best.{name}": weight for name, weight in self.best_state.items()}
        return named
