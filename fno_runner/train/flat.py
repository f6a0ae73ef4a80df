"""All weights of a network in one row, so that what is done to each weight is one kernel's work.

A GPU's step is bound by the number of its kernels. All weights in a row are cast to bfloat16 at
once, their gradients are cast back at once, and one norm and one update do for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from fno_runner.reconstructor import Reconstructor
from fno_runner.train.adam import memory_order

ALIGNED = 64
"""Weights begin at multiples of so many numbers where that needs no gaps: libraries have slower
kernels for addresses that are not multiples of 16 bytes."""


@dataclass(frozen=True)
class _Place:
    """How a tensor lies in memory: its axes from the slowest to the fastest."""

    shape: torch.Size
    axes: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> _Place:
        return cls(tensor.shape, memory_order(tensor))

    def numbers(self, tensor: Tensor) -> Tensor:
        """The tensor's numbers in the order in which they lie in memory; a view."""
        return tensor.permute(self.axes).reshape(-1)

    def view(self, numbers: Tensor) -> Tensor:
        """The tensor that `numbers` were of."""
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return numbers.view([self.shape[axis] for axis in self.axes]).permute(back)


class FlatWeights:
    """The weights of a model in a row; the model's own become views of it.

    row: float32 (P,), the one parameter that is trained.
    """

    def __init__(self, model: Reconstructor) -> None:
        self._model = model
        parameters = dict(model.named_parameters())
        names = sorted(parameters, key=lambda name: -_alignment(parameters[name].numel()))
        self._places = {name: _Place.of(parameters[name]) for name in names}
        numbers = [place.numbers(parameters[name]) for name, place in self._places.items()]
        self.row = nn.Parameter(torch.cat([part.detach() for part in numbers]))
        for name, view in self.named(self.row.detach()).items():
            parameters[name].data = view
        self._type = model.product_type
        self._constants = {
            name: constant.to(self._type) for name, constant in model.network_constants().items()
        }

    def named(self, row: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Views of a row, of weights or of what belongs to each of them, by the model's names."""
        parts = row.split([place.shape.numel() for place in self._places.values()])
        return {
            name: place.view(part)
            for (name, place), part in zip(self._places.items(), parts, strict=True)
        }

    def forward(self, *batch: Tensor) -> Tensor:
        """What the model's `forward` gives of these arguments, as a function of `row`."""
        weights = self.named(self.row.to(self._type))
        predicted: Tensor = functional_call(self._model, weights | self._constants, batch)
        return predicted


def _alignment(count: int) -> int:
    """The largest power of two, up to `ALIGNED`, that divides `count`."""
    return min(count & -count, ALIGNED)
