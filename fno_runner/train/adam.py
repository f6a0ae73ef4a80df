"""The optimiser: PyTorch's Adam, begun sooner, and with the gradient's clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

PIECES = 36
"""A row is worked on in so many pieces, as many as go into one launch. PyTorch's kernels for lists
of tensors give each block of threads 65,536 numbers of one: a network of 750,000 would keep 12
blocks busy for a long time, on a card with room for hundreds."""
ALIGNED = 64
"""Pieces begin at multiples of so many numbers: libraries have slower kernels for addresses that
are not multiples of 16 bytes."""


class PlainAdam(torch.optim.Adam):
    """PyTorch's, without what only `torch.compile` wants of it.

    The decorators that are taken off here import the compiler at their first call. That takes a
    second or more, which would be told as the time of whatever is fitted first.
    """

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    _update = unwrap(torch.optim.Adam.step)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every tensor."""
        self._update()


class Adam(PlainAdam):
    """The same, with its state from the start and rates of their own for shares of the weights."""

    def __init__(self, weights: Mapping[float, Sequence[Tensor]], rate: Tensor) -> None:
        """
        Args:
            weights: those that learn at a share of the rate, by this share.
            rate: the learning rate, float (); each step reads it anew, a captured one too.
        """
        self._rate, self._shares = rate, tuple(weights)
        everything = [weight for some in weights.values() for weight in some]
        groups = [{"params": list(some)} for some in weights.values()]
        super().__init__(groups, lr=0.0, capturable=everything[0].is_cuda, fused=True)
        for group, share in zip(self.param_groups, self._shares, strict=True):
            group["lr"] = rate if share == 1 else torch.zeros_like(rate)
        for parameter in everything:
            # Moments are stored in the order in which the parameter's numbers are: a fused update
            # walks all three side by side.
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every weight."""
        self._set_rates()
        self._update()

    def clip(self, longest: float) -> None:
        """Let the next update take a gradient of at most this norm."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, longest)

    def _set_rates(self) -> None:
        for group, share in zip(self.param_groups, self._shares, strict=True):
            if share != 1:
                torch.mul(self._rate, share, out=group["lr"])

    def _init_group(self, group: dict[str, Any], *lists: Any) -> bool:
        """Fill the lists of what is updated: weights, gradients, both moments, and others.

        Each tensor goes as a view whose axes are in the order of memory. A fused update on a CPU
        first copies a gradient whose axes are not: 4 % of a step of `hybrid` 32/12 in bfloat16.
        """
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists[:4]:
            tensors[:] = [tensor.permute(memory_order(tensor)) for tensor in tensors]
        return has_complex


class AdamOfRows(Adam):
    """The same for weights in rows (`fno_runner.train.flat`), with less work for a GPU."""

    def __init__(self, rows: Mapping[float, Tensor], rate: Tensor) -> None:
        """`rows`: float32 (P,), each by the share of the rate that its weights learn at."""
        super().__init__({share: [row] for share, row in rows.items()}, rate)
        self._rows = list(rows.values())
        self._divisor = torch.ones((), device=rate.device)

    def clip(self, longest: float) -> None:
        """Let the next update divide the gradient as it reads it, if its norm is larger."""
        norms = [torch.linalg.vector_norm(row.grad) for row in self._rows]
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        self._divisor = (norm / longest).clamp_min(1.0)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """PyTorch's fused update, of each row in pieces."""
        self._set_rates()
        for row, group in zip(self._rows, self.param_groups, strict=True):
            state = self.state[row]
            size = size_of_pieces(len(row))
            assert row.grad is not None
            weights, gradients, firsts, seconds = (
                tensor.split(size)
                for tensor in (row.detach(), row.grad, state["exp_avg"], state["exp_avg_sq"])
            )
            state["step"].add_(1)
            torch._fused_adam_(
                weights, gradients, firsts, seconds, [], [state["step"]] * len(weights),
                lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1],
                eps=group["eps"], weight_decay=group["weight_decay"],
                amsgrad=group["amsgrad"], maximize=group["maximize"],
                grad_scale=self._divisor, found_inf=None,
            )  # fmt: skip


def size_of_pieces(count: int) -> int:
    """Of a row of so many numbers."""
    return -(-count // (PIECES * ALIGNED)) * ALIGNED


def memory_order(tensor: Tensor) -> tuple[int, ...]:
    """The axes of a tensor from the slowest to the fastest in memory."""
    return tuple(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
