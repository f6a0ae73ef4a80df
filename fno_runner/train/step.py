"""One step of training: as it is written, or captured as a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import torch
from torch import Tensor

from fno_runner.physics import LOSSES
from fno_runner.reconstructor import Reconstructor
from fno_runner.train.stacked import clip_gradients, losses

WARM_UP = 3
"""Steps before a capture: what a library does only once must not be captured."""


Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""The four arguments of `Reconstructor.forward`; the first is the measured amplitude."""


class Adam(torch.optim.Adam):
    """PyTorch's, without what only `torch.compile` wants of it.

    The decorators that are taken off here import the compiler at their first call: a second or more
    between a run's start and its first step.
    """

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


class Step:
    """Gradient, clipping and update on some patterns; what it computes stays on the device.

    It reads no number back and branches on no data, so that it can be captured.
    """

    def __init__(
        self,
        model: Reconstructor,
        batch_of: Callable[[Tensor], Batch],
        optimiser: torch.optim.Optimizer,
        loss: str,
        grad_clip: float,
    ) -> None:
        self._model, self._batch_of, self._optimiser = model, batch_of, optimiser
        self._loss_of, self._grad_clip = LOSSES[loss], grad_clip

    def __call__(self, rows: Tensor) -> Tensor:
        """Train on the patterns of these row numbers, int64 (K, B), B for each of K networks.

        Returns:
            the networks' losses, float32 (K,).
        """
        batch = self._batch_of(rows)
        loss = losses(self._loss_of, self._model(*batch), batch[0], len(rows))
        self._optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        clip_gradients(self._model, self._grad_clip)
        self._optimiser.step()
        return loss.detach()


class CapturedStep:
    """A step recorded once as a CUDA graph; a replay is one launch instead of some hundred.

    Batches of another size (the last one of an epoch) go the plain way.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], batch_size: int) -> None:
        self._step, self._batch_size = step, batch_size
        self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._rows = self._loss = torch.empty(0)

    def __call__(self, rows: Tensor) -> Tensor:
        """As `Step`; the losses are overwritten by the next call."""
        if rows.shape[1] != self._batch_size:
            return self._step(rows)
        if self._graph is None:
            self._seen += 1
            if self._seen <= WARM_UP:
                return self._warm_up(rows)
            self._capture(rows)
        assert self._graph is not None
        self._rows.copy_(rows)
        self._graph.replay()
        return self._loss

    def _warm_up(self, rows: Tensor) -> Tensor:
        # On a stream of its own, as the capture itself will be.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            loss = self._step(rows)
        torch.cuda.current_stream().wait_stream(side)
        return loss

    def _capture(self, rows: Tensor) -> None:
        """Record a step; recording computes nothing, so no pattern is trained on twice."""
        self._rows = rows.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = self._step(self._rows)
