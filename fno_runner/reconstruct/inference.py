"""A trained network at work: patterns to object patches, in slices."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex64, Float32

from fno_runner.batches import Inputs
from fno_runner.data.dataset import Patterns
from fno_runner.device import allow_tf32, halve_until_it_fits
from fno_runner.physics import amplitude_of, local_probe, subpixel_remainder
from fno_runner.reconstruct.overlapped import OverlappedPredictor
from fno_runner.reconstruct.predictor import Predictor, slices
from fno_runner.reconstructor import Reconstructor

CPU = torch.device("cpu")


def predictor_for(device: torch.device) -> type[Predictor]:
    """What reconstructs on that device."""
    return Predictor if device.type == "cpu" else OverlappedPredictor


def make_predictor(
    model: Reconstructor,
    probe: Complex64[np.ndarray, "*m n n"],
    scale: float,
    device: torch.device,
    slice_size: int,
) -> Predictor:
    """What reconstructs patterns with a model that is on `device`, in slices of `slice_size`.

    It may be used for many sets of patterns, as long as the probe is the same.
    """
    allow_tf32(model.precision == "tf32")
    return predictor_for(device)(model, probe, scale, slice_size)


def predict(
    model: Reconstructor,
    patterns: Patterns,
    scale: float,
    device: torch.device,
    infer_batch_size: int,
) -> Complex64[np.ndarray, "b n n"]:
    """The object patch of every pattern, complex64 (B, N, N), in one pass.

    Where memory runs out, again with half the slice.

    Raises:
        DivergedError: a prediction is not a finite number.
        RuntimeError: not even one pattern at a time fits into memory.
    """

    def one_pass(slice_size: int) -> Complex64[np.ndarray, "b n n"]:
        return make_predictor(model, patterns.probe, scale, device, slice_size)(patterns)

    patches, _ = halve_until_it_fits(one_pass, min(infer_batch_size, len(patterns)))
    return patches


@torch.inference_mode()
def predicted_amplitude(
    patches: Complex64[np.ndarray, "b n n"], patterns: Patterns, infer_batch_size: int
) -> Float32[np.ndarray, "b n n"]:
    """What the patches would diffract to under the probe as it stood: float32 (B, N, N).

    0 at bad pixels, as measured amplitudes are.
    """
    amplitude = np.empty(patterns.amplitude.shape, np.float32)
    inputs = Inputs.of(patterns, 1.0, CPU)
    for rows in slices(len(patterns), infer_batch_size):
        probe = local_probe(
            inputs.probe, subpixel_remainder(inputs.positions[rows], patches.shape[-1])
        )
        patch = torch.from_numpy(patches[rows])[:, None]
        amplitude[rows] = amplitude_of(patch, probe)[:, 0].numpy()
    return amplitude if patterns.mask is None else amplitude * patterns.mask
