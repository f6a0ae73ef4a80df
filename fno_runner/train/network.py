"""One network in training: what it learns from, its step, its validation, how far it has come."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fno_runner.batches import Inputs, mask_of
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset, Freeform, Patterns
from fno_runner.physics import LOSSES
from fno_runner.reconstructor import Reconstructor, UnitProbe, input_scale_factor
from fno_runner.train.adam import Adam, AdamOfRows
from fno_runner.train.flat import FlatWeights
from fno_runner.train.progress import Progress
from fno_runner.train.rates import names_of_shares

VALIDATION = 0.05
"""The share of the training patterns that the best state is chosen by."""


@dataclass(frozen=True)
class Split:
    """What a network is trained on.

    fit: row numbers of its patterns, int64 (n,). held: of those that its best state is chosen by,
    int64 (m,), which are never of the test set. scale: the input scale factor of the first.
    """

    fit: Tensor
    held: Tensor
    scale: float


def split(config: RunConfig, patterns: Patterns) -> Split:
    """Draw, by seed, what of the training patterns is trained on and what is held back."""
    rows = np.random.default_rng(config.seed).permutation(len(patterns))
    rows = rows[: config.train_patterns]
    count = max(1, round(VALIDATION * len(rows)))
    held, fit = rows[:count], rows[count:]
    probe = torch.from_numpy(patterns.probe)
    scale = input_scale_factor(float(patterns.intensity[fit].mean()), probe, mask_of(patterns))
    return Split(torch.from_numpy(fit), torch.from_numpy(held), scale)


def build_model(config: RunConfig, dataset: Dataset, device: torch.device) -> Reconstructor:
    """The untrained model of a configuration; its weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        subpixel = isinstance(dataset.geometry, Freeform)
        mask = mask_of(dataset.train)
        size = dataset.train.size
        return Reconstructor(config, size=size, subpixel=subpixel, mask=mask).to(device)


class Network:
    """A network while it is trained."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, inputs: Inputs, rate: Tensor, *, flat: bool
    ) -> None:
        """
        Args:
            inputs: all of `dataset.train` on the device; the scale is replaced by its own.
            rate: the learning rate, float () on the device; read at each step.
            flat: whether its weights are kept in a row, as suits a GPU.
        """
        self.config, self.rate = config, rate
        self.split = split(config, dataset.train)
        self.model = build_model(config, dataset, inputs.x.device)
        scale = torch.full_like(inputs.scale, self.split.scale)
        self._inputs = replace(inputs, scale=scale)
        self._unit_probe = UnitProbe.of(inputs.probe)
        self._loss_of = LOSSES[config.loss]
        names_by_share = names_of_shares(self.model, config)
        self._flat = FlatWeights(self.model, names_by_share) if flat else None
        if self._flat is not None:
            rows = {share: row.numbers for share, row in self._flat.rows.items()}
            self._optimiser: Adam = AdamOfRows(rows, rate)
        else:
            trained = {
                share: [self.model.get_parameter(name) for name in names]
                for share, names in names_by_share.items()
            }
            self._optimiser = Adam(trained, rate)
        self.progress = Progress(self.model, self._optimiser, config.seed, config.infer_batch_size)

    @property
    def is_over(self) -> bool:
        """Whether it has had its epochs, cannot be trained further, or was to end early."""
        ended = self.progress.error is not None or self.progress.stopped is not None
        return ended or self.progress.epoch >= self.config.epochs

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return math.ceil(len(self.split.fit) / self.config.batch_size)

    def order(self) -> Tensor:
        """The row numbers of its patterns in the order of the next epoch, int64 (n,)."""
        fit = self.split.fit
        return fit[torch.randperm(len(fit), generator=self.progress.shuffle)]

    def step(self, rows: Tensor) -> Tensor:
        """Train on the patterns of these row numbers, int64 (B,); their loss, float32 ().

        It reads no number back and branches on no data, so that it can be captured.
        """
        loss = self._loss(rows)
        if self._flat is None:
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
        else:
            self._flat.backward(loss)
        self._optimiser.clip(self.config.grad_clip)
        self._optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def misfit(self, rows: Tensor) -> Tensor:
        """The loss on such patterns, without learning from them."""
        return self._loss(rows)

    def _loss(self, rows: Tensor) -> Tensor:
        # What no batch changes is not computed anew.
        batch = (*self._inputs.batch(rows), self._unit_probe)
        predict = self.model if self._flat is None else self._flat.forward
        return self._loss_of(predict(*batch), batch[0])
