"""A trained network that reconstructs patterns, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Complex64

from fno_runner.batches import Inputs
from fno_runner.data.dataset import Patterns
from fno_runner.errors import DivergedError
from fno_runner.reconstructor import Reconstructor, UnitProbe


class Predictor:
    """Reconstructs the patterns of one probe, slice by slice, on the CPU.

    Only a slice is ever worked on, so the memory that this needs does not grow with the number of
    patterns.

    device_s: the device's own time for the network in the last pass [s], copies and the host's work
        left out; None on a CPU, where it is not told apart.
    """

    warm_up_slices = 2
    """Computed before a clock starts: plans, caches, kernels."""
    device_s: float | None = None

    def __init__(
        self,
        model: Reconstructor,
        probe: Complex64[np.ndarray, "*m n n"],
        scale: float,
        slice_size: int,
    ) -> None:
        """`scale`: the input scale factor that the model was trained with."""
        self._model, self._scale, self._slice_size = model.eval(), scale, slice_size
        self._probe = torch.from_numpy(probe)
        self._unit_probe = UnitProbe.of(self._probe)

    def warm_up(self, patterns: Patterns) -> None:
        """Do, before a clock starts, what a pass over these patterns does for the first time."""
        first = patterns.take(slice(self._slice_size))
        for _ in range(self.warm_up_slices):
            self(first)

    @torch.inference_mode()
    def __call__(self, patterns: Patterns) -> Complex64[np.ndarray, "b n n"]:
        """The object patch of every pattern, complex64 (B, N, N).

        Raises:
            DivergedError: a prediction is not a finite number.
        """
        inputs = Inputs.of(patterns, self._scale, torch.device("cpu"))
        patches = np.empty(patterns.amplitude.shape, np.complex64)
        for rows in slices(len(patterns), self._slice_size):
            x, positions, _, scale = inputs.batch(rows)
            patch = self._model.forward_predict(x, positions, self._probe, scale, self._unit_probe)
            patches[rows] = patch[:, 0].numpy()
            if not np.isfinite(patches[rows]).all():
                raise DivergedError("a predicted patch is not finite")
        return patches


def slices(count: int, size: int) -> Iterator[slice]:
    """Row numbers 0 … count − 1, `size` at a time."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
