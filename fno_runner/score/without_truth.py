"""How good a reconstruction of a scan is, where nobody knows the truth."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Complex64

from fno_runner.data.dataset import Dataset, Freeform
from fno_runner.physics import poisson_deviance
from fno_runner.reconstruct.inference import predicted_amplitude
from fno_runner.reconstruct.stitching import Improve, average, cut, lights
from fno_runner.result import Metrics, Pair
from fno_runner.score.frc import KERNEL, RingCorrelation, ring_correlation
from fno_runner.score.metrics import align, crop_to, r_factor

KNOWN = 0.9
"""A frame is predicted from an object where this share of its light falls on known pixels."""


def score_without_truth(
    patches: Complex64[np.ndarray, "b n n"],
    dataset: Dataset,
    infer_batch_size: int,
    improve: Improve | None = None,
) -> Metrics:
    """Scores of a scan's patches that need no truth.

    r_factor: R = Σ|predicted − measured| / Σ measured. deviance: of Poisson counts, relative to
        the mean count, less its value at a perfect fit. Both of the network's own answers, on the
        frames that were trained on (train), on frames here and there that were not (held_out), and
        on those of one place (region); and of what the object that is stitched out of training
        frames only, and improved on them, predicts for the latter two (…_from_object), where it
        knows the place.
    """
    assert isinstance(dataset.geometry, Freeform)
    test = dataset.test
    region = np.zeros(len(test), bool) if dataset.region is None else dataset.region
    train = ~(dataset.held_out | region)
    own = predicted_amplitude(patches, test, infer_batch_size)
    of_object, known = from_object(patches, dataset, train, infer_batch_size, improve)
    r: dict[str, float | None] = {}
    deviance: dict[str, float | None] = {}
    for name, frames, predicted in (
        ("train", train, own),
        ("held_out", dataset.held_out, own),
        ("region", region, own),
        ("held_out_from_object", dataset.held_out & known, of_object),
        ("region_from_object", region & known, of_object),
    ):
        there = frames.any()
        r[name] = r_factor(predicted[frames], test.amplitude[frames]) if there else None
        deviance[name] = _deviance(predicted[frames], test.amplitude[frames]) if there else None
    return Metrics(scan={"r_factor": r, "deviance": deviance})


def correlate_halves(
    patches: Complex64[np.ndarray, "b n n"], dataset: Dataset, improve: Improve | None = None
) -> tuple[RingCorrelation, RingCorrelation] | None:
    """(amplitude, phase): the correlation of two objects, each of half the frames.

    No frame is in both halves, so they share no noise; each network answers a frame by itself. What
    a network gets wrong in the same way in both, they agree on. None where the halves overlap
    nowhere, or in too few pixels to tell anything of.
    """
    assert isinstance(dataset.geometry, Freeform)
    test = dataset.test
    order = np.random.default_rng(0).permutation(len(test))
    (one, seen_in_one), (other, seen_in_other) = (
        average(patches[half], test.take(half), dataset.geometry.shape, improve)
        for half in (order[::2], order[1::2])
    )
    mask = seen_in_one & seen_in_other
    if not mask.any():
        return None
    first, second, seen = crop_to(mask, one, other)
    # Not as many rings as are smoothed, or nothing but a rim, where the window is zero.
    if min(seen.shape) < 2 * len(KERNEL) or not seen[1:-1, 1:-1].any():
        return None
    amplitude, phase = (ring_correlation(*pair, seen) for pair in align(first, second, seen))
    return amplitude, phase


def add_halves(
    metrics: Metrics,
    halves: tuple[RingCorrelation, RingCorrelation] | None,
    pixel_size: float | None,
) -> None:
    """Add what the correlation of two halves says of the resolution.

    frc_halves, frc_halves_half_bit: [amplitude, phase], up to which frequency [1/px] the halves
        correlate by 1/7 (and by more than chance), or hold half a bit a coefficient.
    resolution: the half period of the phase by the half-bit curve, in px and, where the pixel's
        size [m] is known, in nm. None where nothing is resolved.
    """
    seventh: Pair = (None, None)
    half_bit: Pair = (None, None)
    px = None
    if halves is not None:
        amplitude, phase = halves
        finest = phase.resolved(phase.half_bit)
        seventh = amplitude.resolved(amplitude.seventh), phase.resolved(phase.seventh)
        half_bit = amplitude.resolved(amplitude.half_bit), finest
        px = 0.5 / finest if finest > 0 else None
    metrics.pairs |= {"frc_halves": seventh, "frc_halves_half_bit": half_bit}
    nm = None if px is None or pixel_size is None else px * pixel_size * 1e9
    metrics.scan["resolution"] = {"px": px, "nm": nm}


def from_object(
    patches: Complex64[np.ndarray, "b n n"],
    dataset: Dataset,
    train: Bool[np.ndarray, " b"],
    infer_batch_size: int,
    improve: Improve | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What the object of the training frames predicts for every frame, and where it knows it."""
    assert isinstance(dataset.geometry, Freeform)
    test = dataset.test
    stitched, seen = average(patches[train], test.take(train), dataset.geometry.shape, improve)
    of_object = cut(stitched, test.positions, test.size)
    lit = np.array(
        [(light * seen[w]).sum() / light.sum() for light, w in lights(test.positions, test.probe)]
    )
    return predicted_amplitude(of_object, test, infer_batch_size), lit >= KNOWN


def _deviance(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(poisson_deviance(torch.from_numpy(predicted), torch.from_numpy(measured)))
