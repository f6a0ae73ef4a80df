"""Several networks of one shape as one, so that a GPU has one large product for many small ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fno_runner.reconstructor import Reconstructor

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of predicted and measured amplitudes, one number."""


class StackedNetwork(nn.Module):
    """K networks side by side; no number of one ever meets a number of another.

    Convolutions become grouped ones, matrix products batched ones (`torch.func.vmap`).

    weights: float32 (K, P), all weights of a network in a row.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        # In a tuple: the network says what to compute, its own weights are none of this module's.
        self._network = (networks[0],)
        self._shapes = {name: weight.shape for name, weight in networks[0].named_parameters()}
        rows = [torch.cat([w.detach().flatten() for w in n.parameters()]) for n in networks]
        self.weights = nn.Parameter(torch.stack(rows))

    def forward(self, x: Float[Tensor, "kb i n n"]) -> Float[Tensor, "kb o n n"]:
        """Each network's answer to its own B inputs, which stand one network after the other."""

        def one(weights: Tensor, x: Tensor) -> Tensor:
            return functional_call(self._network[0], self.named(weights), (x,))

        out: Tensor = vmap(one)(self.weights, x.unflatten(0, (len(self.weights), -1)))
        return out.flatten(0, 1)

    def named(self, row: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """The weights in a row, by their names in a network alone."""
        parts = row.split([shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }


def stack(models: Sequence[Reconstructor]) -> Reconstructor:
    """One model that does what `models` do, each on its share of a batch; they are left as is."""
    if len(models) == 1:
        return models[0]
    together = deepcopy(models[0])
    together.network = StackedNetwork([model.network for model in models])
    return together


def losses(
    loss_of: Loss,
    predicted: Float[Tensor, "kb c n n"],
    measured: Float[Tensor, "kb c n n"],
    networks: int,
) -> Float[Tensor, " k"]:
    """The loss of each stacked network on its share of a batch."""
    shares = (patterns.unflatten(0, (networks, -1)) for patterns in (predicted, measured))
    each: Tensor = vmap(loss_of)(*shares)
    return each


def clip_gradients(model: Reconstructor, most: float) -> None:
    """Scale each stacked network's gradient to a norm of at most `most`."""
    if isinstance(model.network, StackedNetwork):
        assert model.network.weights.grad is not None
        model.network.weights.grad.renorm_(2, 0, most)
    else:
        torch.nn.utils.clip_grad_norm_(model.parameters(), most)


def states(model: Reconstructor) -> list[dict[str, Tensor]]:
    """For each stacked network what `load_state_dict` of its own model takes; views, no copies."""
    if not isinstance(model.network, StackedNetwork):
        return [{name: weight.detach() for name, weight in model.state_dict().items()}]
    return [
        {f"network.{name}": weight for name, weight in model.network.named(row).items()}
        for row in model.network.weights.detach()
    ]
