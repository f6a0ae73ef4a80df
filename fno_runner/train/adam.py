"""The optimiser: PyTorch's Adam, begun sooner, and with the gradient's clipping."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """PyTorch's, without what only `torch.compile` wants of it, and with its state from the start.

    The decorators that are taken off here import the compiler at their first call: a second or more
    between a run's start and its first step.
    """

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))

    grad_scale: Tensor | None = None
    """What the fused update divides the gradient by, float32 (); PyTorch's scaler of gradients sets
    it on the optimiser likewise."""

    def __init__(self, parameters: Sequence[Tensor], rate: Tensor) -> None:
        """`rate`: the learning rate, float (); each step reads it anew, a captured one too."""
        on_gpu = parameters[0].is_cuda
        super().__init__(parameters, lr=0.0, capturable=on_gpu, fused=True)
        self.param_groups[0]["lr"] = rate
        for parameter in parameters:
            # Moments are stored in the order in which the parameter's numbers are: a fused update
            # walks all three side by side.
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }

    def clip(self, longest: float) -> None:
        """Let the next update take a gradient of at most this norm."""
        weights = self.param_groups[0]["params"]
        if len(weights) > 1:
            torch.nn.utils.clip_grad_norm_(weights, longest)
        else:
            # The update divides by this on its way, which saves a pass over all weights.
            excess = torch.linalg.vector_norm(weights[0].grad) / longest
            self.grad_scale = excess.clamp_min(1.0)

    def _init_group(self, group: dict[str, Any], *lists: Any) -> bool:
        """Fill the lists of what is updated: weights, gradients, both moments, and others.

        Each tensor goes as a view whose axes are in the order of memory. A fused update on a CPU
        first copies a gradient whose axes are not: 4 % of a step of `hybrid` 32/12 in bfloat16.
        """
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists[:4]:
            tensors[:] = [tensor.permute(memory_order(tensor)) for tensor in tensors]
        return has_complex


def memory_order(tensor: Tensor) -> tuple[int, ...]:
    """The axes of a tensor from the slowest to the fastest in memory."""
    return tuple(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))
