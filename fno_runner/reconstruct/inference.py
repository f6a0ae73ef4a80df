"""Batched inference."""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from jaxtyping import Complex64, Float32
from torch import Tensor

from fno_runner.batches import Inputs
from fno_runner.data.dataset import Patterns
from fno_runner.errors import DivergedError
from fno_runner.physics import amplitude_of, local_probe, subpixel_remainder
from fno_runner.reconstructor import Reconstructor

CPU = torch.device("cpu")
IN_FLIGHT = {"cpu": 1, "cuda": 2}
"""Slices begun and not yet taken, by the kind of device."""


@torch.inference_mode()
def predict(
    model: Reconstructor,
    patterns: Patterns,
    scale: float,
    device: torch.device,
    infer_batch_size: int,
) -> Complex64[np.ndarray, "b n n"]:
    """The object patch of every pattern, complex64 (B, N, N), on the CPU.

    Walks the patterns in slices of `infer_batch_size`: only a slice is ever worked on, so the
    memory it needs on the device does not grow with the number of patterns. On a GPU the host
    prepares the next slice, and takes the last one's result, meanwhile.

    Raises:
        DivergedError: a prediction is not a finite number.
    """
    model.eval()
    inputs = Inputs.of(patterns, [scale], CPU)
    probe = inputs.probe.to(device)
    patches = np.empty(patterns.amplitude.shape, np.complex64)
    in_flight: deque[tuple[slice, _OnItsWay]] = deque()

    def land() -> None:
        rows, prediction = in_flight.popleft()
        patches[rows] = prediction.arrived()[:, 0].numpy()
        if not np.isfinite(patches[rows]).all():
            raise DivergedError("a predicted patch is not finite")

    for first in range(0, len(patterns), infer_batch_size):
        rows = slice(first, first + infer_batch_size)
        x, positions, _, factor = (_sent(one, device) for one in inputs.batch(rows))
        prediction = model.forward_predict(x, positions, probe, factor)
        in_flight.append((rows, _OnItsWay(prediction)))
        if len(in_flight) == IN_FLIGHT[device.type]:
            land()
    while in_flight:
        land()
    return patches


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """`values` on the device. A GPU fetches them itself, from pinned memory: nobody waits."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class _OnItsWay:
    """A prediction that a GPU will have computed, and copied to pinned memory, some time later."""

    def __init__(self, prediction: Tensor) -> None:
        self._values = prediction
        self._copied: torch.cuda.Event | None = None
        if prediction.is_cuda:
            self._values = torch.empty_like(prediction, device=CPU, pin_memory=True)
            self._values.copy_(prediction, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def arrived(self) -> Tensor:
        """The prediction on the CPU; waits for it."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values


@torch.inference_mode()
def predicted_amplitude(
    patches: Complex64[np.ndarray, "b n n"], patterns: Patterns, infer_batch_size: int
) -> Float32[np.ndarray, "b n n"]:
    """What the patches would diffract to under the probe as it stood: float32 (B, N, N).

    0 at bad pixels, as measured amplitudes are.
    """
    amplitude = np.empty(patterns.amplitude.shape, np.float32)
    inputs = Inputs.of(patterns, [1.0], CPU)
    for first in range(0, len(patterns), infer_batch_size):
        rows = slice(first, first + infer_batch_size)
        probe = local_probe(
            inputs.probe, subpixel_remainder(inputs.positions[rows], patches.shape[-1])
        )
        patch = torch.from_numpy(patches[rows])[:, None]
        amplitude[rows] = amplitude_of(patch, probe)[:, 0].numpy()
    return amplitude if patterns.mask is None else amplitude * patterns.mask
