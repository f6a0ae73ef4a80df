"""One step of training: gradient, clipping, update."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

from fno_runner.physics import LOSSES
from fno_runner.reconstructor import Reconstructor


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

    def __init__(self, parameters: list[Tensor], rate: Tensor) -> None:
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


class Step:
    """Gradient, clipping and update on some patterns; what it computes stays on the device.

    It reads no number back and branches on no data, so that it can be captured.
    """

    def __init__(
        self,
        model: Reconstructor,
        batch_of: Callable[[Tensor], tuple[Tensor, ...]],
        optimiser: Adam,
        loss: str,
        grad_clip: float,
    ) -> None:
        """`batch_of`: from row numbers, int64 (B,), to the arguments of `Reconstructor.forward`."""
        self._model, self._batch_of, self._optimiser = model, batch_of, optimiser
        self._loss_of, self._grad_clip = LOSSES[loss], grad_clip

    def __call__(self, rows: Tensor) -> Tensor:
        """Train on the patterns of these row numbers, int64 (B,); their loss, float32 ()."""
        batch = self._batch_of(rows)
        loss = self._loss_of(self._model(*batch), batch[0])
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._grad_clip)
        self._optimiser.step()
        return loss.detach()
