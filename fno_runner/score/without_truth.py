"""How good a reconstruction of a scan is, where nobody knows the truth."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Complex64

from fno_runner.config import centre
from fno_runner.data.dataset import Dataset, Freeform
from fno_runner.physics import poisson_deviance, shift_probe
from fno_runner.reconstruct.inference import predicted_amplitude
from fno_runner.reconstruct.stitching import COVERED, average
from fno_runner.result import Metrics
from fno_runner.score.metrics import align, crop_to, first_below, r_factor

HALVES_THRESHOLD = 1 / 7
"""Of the Fourier ring correlation of two halves of the data (Banterle et al., 2013)."""
KNOWN = 0.9
"""A frame is predicted from an object where this share of its light falls on known pixels."""


def score_without_truth(
    patches: Complex64[np.ndarray, "b n n"], dataset: Dataset, infer_batch_size: int
) -> Metrics:
    """Scores of a scan's patches that need no truth.

    r_factor: R = Σ|predicted − measured| / Σ measured. deviance: of Poisson counts, relative to
        the mean count, less its value at a perfect fit. Both of the network's own answers, on the
        frames that were trained on (train), on frames here and there that were not (held_out), and
        on those of one place (region); and of what the object that is stitched out of training
        frames only predicts for the latter two (…_from_object), where it knows the place.
    frc_halves: [amplitude, phase], the frequency [1/px] at which the Fourier ring correlation of
        two objects, each stitched out of its half of the frames, falls below 1/7.
    resolution: its half period of the phase, in px and, where the pixel's size is known, in nm.
    """
    assert isinstance(dataset.geometry, Freeform)
    test = dataset.test
    region = np.zeros(len(test), bool) if dataset.region is None else dataset.region
    train = ~(dataset.held_out | region)
    own = predicted_amplitude(patches, test, infer_batch_size)
    from_object, known = _from_object(patches, dataset, train, infer_batch_size)
    r: dict[str, float | None] = {}
    deviance: dict[str, float | None] = {}
    for name, frames, predicted in (
        ("train", train, own),
        ("held_out", dataset.held_out, own),
        ("region", region, own),
        ("held_out_from_object", dataset.held_out & known, from_object),
        ("region_from_object", region & known, from_object),
    ):
        there = frames.any()
        r[name] = r_factor(predicted[frames], test.amplitude[frames]) if there else None
        deviance[name] = _deviance(predicted[frames], test.amplitude[frames]) if there else None
    pair = frc_halves(patches, dataset)
    half_period = 0.5 / pair[1]
    size = dataset.pixel_size
    resolution = {"px": half_period, "nm": None if size is None else half_period * size * 1e9}
    return Metrics(
        {"frc_halves": pair}, {"r_factor": r, "deviance": deviance, "resolution": resolution}
    )


def frc_halves(patches: Complex64[np.ndarray, "b n n"], dataset: Dataset) -> tuple[float, float]:
    """(amplitude, phase): where two halves of the frames stop agreeing [1/px].

    No frame is in both halves, so they share no noise; each network answers a frame by itself.
    """
    assert isinstance(dataset.geometry, Freeform)
    test = dataset.test
    order = np.random.default_rng(0).permutation(len(test))
    halves = []
    for half in (order[::2], order[1::2]):
        stitched, weight = average(
            patches[half], test.positions[half], test.probe, dataset.geometry.shape
        )
        halves.append((stitched, _known(weight)))
    mask = halves[0][1] & halves[1][1]
    if not mask.any():
        return float("nan"), float("nan")
    first, second, seen = crop_to(mask, halves[0][0], halves[1][0])
    amplitudes, phases = align(first, second, seen)
    return (
        first_below(*amplitudes, seen, HALVES_THRESHOLD),
        first_below(*phases, seen, HALVES_THRESHOLD),
    )


def _from_object(
    patches: Complex64[np.ndarray, "b n n"],
    dataset: Dataset,
    train: Bool[np.ndarray, " b"],
    infer_batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What the object of the training frames predicts for every frame, and where it knows it."""
    assert isinstance(dataset.geometry, Freeform)
    test = dataset.test
    stitched, weight = average(
        patches[train], test.positions[train], test.probe, dataset.geometry.shape
    )
    seen = _known(weight)
    size = test.size
    first = test.positions - centre(size)
    corner = np.rint(first)
    light = shift_probe(torch.from_numpy(test.probe), torch.from_numpy(first - corner))
    light = light.abs().square()
    intensity = (light if light.ndim == 3 else light.sum(1)).numpy()
    windows = [(slice(r, r + size), slice(c, c + size)) for r, c in corner.astype(int)]
    of_object = np.stack([stitched[window] for window in windows])
    lit = np.array([(i * seen[w]).sum() / i.sum() for i, w in zip(intensity, windows, strict=True)])
    return predicted_amplitude(of_object, test, infer_batch_size), lit >= KNOWN


def _known(weight: np.ndarray) -> np.ndarray:
    known: np.ndarray = weight > COVERED * np.median(weight[weight > 0])
    return known


def _deviance(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(poisson_deviance(torch.from_numpy(predicted), torch.from_numpy(measured)))
