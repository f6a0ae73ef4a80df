"""Inference on a GPU: while it works on one slice, another comes and a third goes."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Complex64
from torch import Tensor

from fno_runner.capture import WARM_UP, Captured
from fno_runner.data.dataset import Patterns
from fno_runner.errors import DivergedError
from fno_runner.reconstruct.predictor import Predictor, slices
from fno_runner.reconstructor import Reconstructor, UnitProbe

SLOTS = 2
"""Slices in flight: one is worked on while the next is sent and the last is fetched."""


class _Slot:
    """What a slice in flight needs, in memory that is kept for the next one.

    The host's side is pinned, so that copies need not wait for it.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        """`shape`: (B, 1, N, N) of a whole slice."""
        pinned = torch.cuda.is_available()
        self.sent = torch.empty(shape, pin_memory=pinned)
        self.x = torch.empty(shape, device=device)
        self.patch = torch.empty(shape, dtype=torch.complex64, device=device)
        self.fetched = torch.empty(shape, dtype=torch.complex64, pin_memory=pinned)
        self.arrived = torch.cuda.Event()
        self.rows: slice | None = None

    def give_up(self) -> None:
        """Forget the slice that a pass left in flight when it failed."""
        if self.rows is not None:
            self.arrived.synchronize()
            self.rows = None

    def land(self, patches: Complex64[np.ndarray, "b n n"]) -> None:
        """Wait for the slice, if one is in flight, and put it where it belongs."""
        if self.rows is None:
            return
        self.arrived.synchronize()
        count = self.rows.stop - self.rows.start
        torch.from_numpy(patches[self.rows]).copy_(self.fetched[:count, 0])
        self.rows = None


class _Work:
    """What is recorded of a slice.

    It does not know the predictor, which keeps the recording: else the graphs, and the memory of
    each, would stay until the next garbage collection.

    largest: float32 (), at least as large as all numbers of the patches so far; infinite or NaN if
        any is.
    """

    def __init__(
        self, model: Reconstructor, probe: Tensor, unit_probe: UnitProbe, factor: Tensor
    ) -> None:
        """`factor`: the input scale factor, (1, 1, 1, 1)."""
        self._model, self._probe, self._unit_probe, self._factor = model, probe, unit_probe, factor
        self.largest = torch.zeros((), device=factor.device)

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        """The patches of a slice."""
        factor = self._factor.expand(len(x), 1, 1, 1)
        patch = self._model.forward_predict(x, positions, self._probe, factor, self._unit_probe)
        peak = torch.linalg.vector_norm(torch.view_as_real(patch), float("inf"))
        self.largest.copy_(torch.maximum(self.largest, peak))
        return patch


class OverlappedPredictor(Predictor):
    """As `Predictor`, on a GPU: a slice is one replayed graph, and nobody waits for a copy."""

    warm_up_slices = WARM_UP + 1

    def __init__(
        self,
        model: Reconstructor,
        probe: Complex64[np.ndarray, "*m n n"],
        scale: float,
        slice_size: int,
    ) -> None:
        super().__init__(model, probe, scale, slice_size)
        device = next(model.parameters()).device
        if model.product_type != torch.float32:
            # Cast once, and not by autocast in every slice.
            self._model = deepcopy(self._model)
            self._model.network.to(model.product_type)
        self._device = device
        factor = torch.full((1, 1, 1, 1), scale, device=device)
        work = _Work(self._model, self._probe.to(device), self._unit_probe.to(device), factor)
        self._largest, self._slice = work.largest, Captured(work)
        self._sending, self._fetching = torch.cuda.Stream(), torch.cuda.Stream()
        shape = (slice_size, 1, *probe.shape[-2:])
        self._slots = [_Slot(shape, device) for _ in range(SLOTS)]
        self._clocks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def warm_up(self, patterns: Patterns) -> None:
        """Record the graphs that a pass takes: that of a whole slice, and that of the last one."""
        sizes = {rows.stop - rows.start for rows in slices(len(patterns), self._slice_size)}
        for size in sorted(sizes, reverse=True):
            few = patterns.take(slice(size))
            for _ in range(self.warm_up_slices):
                self(few)

    @torch.inference_mode()
    def __call__(self, patterns: Patterns) -> Complex64[np.ndarray, "b n n"]:
        patches = np.empty(patterns.amplitude.shape, np.complex64)
        amplitude = torch.from_numpy(patterns.amplitude)
        positions = torch.from_numpy(patterns.positions)[:, None, :, None].to(self._device)
        for slot in self._slots:
            slot.give_up()
        self._largest.zero_()
        self._clocks.clear()
        for number, rows in enumerate(slices(len(patterns), self._slice_size)):
            slot = self._slots[number % SLOTS]
            slot.land(patches)
            self._begin(slot, rows, amplitude[rows], positions[rows])
        for slot in self._slots:
            slot.land(patches)
        if not math.isfinite(float(self._largest)):
            raise DivergedError("a predicted patch is not finite")
        self.device_s = sum(begun.elapsed_time(ended) for begun, ended in self._clocks) / 1e3
        return patches

    def _begin(self, slot: _Slot, rows: slice, amplitude: Tensor, positions: Tensor) -> None:
        """Send a slice, work on it, and have its patches fetched; the host waits for nothing."""
        count, here = len(amplitude), torch.cuda.current_stream()
        slot.sent[:count, 0].copy_(amplitude)
        with torch.cuda.stream(self._sending):
            slot.x[:count].copy_(slot.sent[:count], non_blocking=True)
        here.wait_stream(self._sending)
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        slot.patch[:count].copy_(self._slice(slot.x[:count], positions))
        ended.record()
        self._clocks.append((begun, ended))
        self._fetching.wait_stream(here)
        with torch.cuda.stream(self._fetching):
            slot.fetched[:count].copy_(slot.patch[:count], non_blocking=True)
            slot.arrived.record()
        slot.rows = rows
