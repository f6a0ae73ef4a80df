"""The weights of a network in a row, so that what is done to each weight is one kernel's work.

A GPU's step is bound by the number of its kernels. All weights in a row are cast to bfloat16 at
once, their gradients are cast back at once, and one norm and one update do for all of them.

Of a network of 85 million weights what is done to them is half of the memory that a step moves. So
no array is made of the gradients as they come: each goes where it belongs as it is cast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from fno_runner.reconstructor import Reconstructor
from fno_runner.train.adam import ALIGNED, memory_order, size_of_pieces


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


class Row:
    """Some weights of a model in a row; the model's own become views of it.

    numbers: float32 (P,), the parameter that is trained in their place; its gradient is always
        there, and is overwritten by `take`.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        """`weights`: by the model's names."""
        names = sorted(weights, key=lambda name: -_alignment(weights[name].numel()))
        self._places = {name: _Place.of(weights[name]) for name in names}
        parts = [place.numbers(weights[name]) for name, place in self._places.items()]
        self.numbers = nn.Parameter(torch.cat([part.detach() for part in parts]))
        self.numbers.grad = torch.zeros_like(self.numbers, requires_grad=False)
        self._piece = size_of_pieces(len(self.numbers))
        self._of_grad = self._pieces(self._split(self.numbers.grad))
        for name, view in self.named(self.numbers.detach()).items():
            weights[name].data = view

    def named(self, numbers: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Views of such a row, of weights or of what belongs to each of them, by their names."""
        return {
            name: place.view(part)
            for (name, place), part in zip(self._places.items(), self._split(numbers), strict=True)
        }

    def take(self, gradients: Mapping[str, Tensor]) -> None:
        """Make these, of whatever type, the gradient of `numbers`, in a launch or two."""
        given = [place.numbers(gradients[name]) for name, place in self._places.items()]
        torch._foreach_copy_(self._of_grad, self._pieces(given))

    def _pieces(self, parts: Sequence[Tensor]) -> list[Tensor]:
        return [piece for part in parts for piece in part.split(self._piece)]

    def _split(self, numbers: Tensor) -> tuple[Tensor, ...]:
        return numbers.split([place.shape.numel() for place in self._places.values()])


class FlatWeights:
    """The weights of a model, those that learn at one rate in one row."""

    def __init__(self, model: Reconstructor, names_by_share: Mapping[float, Sequence[str]]) -> None:
        """`names_by_share`: as `fno_runner.train.rates` gives it."""
        self._model = model
        weights = dict(model.named_parameters())
        self.rows = {
            share: Row({name: weights[name] for name in names})
            for share, names in names_by_share.items()
        }
        self._type = model.product_type
        self._weights: dict[str, Tensor] = {}
        self._constants = {
            name: constant.to(self._type) for name, constant in model.network_constants().items()
        }

    def forward(self, *batch: Any) -> Tensor:
        """What the model's `forward` gives of these arguments, as a function of the rows."""
        weights: dict[str, Tensor] = {}
        for row in self.rows.values():
            weights |= row.named(row.numbers.detach().to(self._type))
        if torch.is_grad_enabled():
            # Each is a leaf, so that its gradient comes as it is.
            self._weights = {name: weight.requires_grad_() for name, weight in weights.items()}
        given = self._constants | weights
        predicted: Tensor = functional_call(self._model, given, batch)
        return predicted

    def backward(self, loss: Tensor) -> None:
        """Let the rows have the gradient of a loss on what `forward` gave last."""
        weights, self._weights = self._weights, {}
        gradients = torch.autograd.grad(loss, list(weights.values()))
        of_weights = dict(zip(weights, gradients, strict=True))
        for row in self.rows.values():
            row.take(of_weights)


def _alignment(count: int) -> int:
    """The largest power of two, up to `ALIGNED`, that divides `count`."""
    return min(count & -count, ALIGNED)
