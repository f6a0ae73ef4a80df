"""What a trained network is worth: its reconstruction, scored, and how long that took."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex64

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset, Freeform
from fno_runner.errors import DivergedError
from fno_runner.reconstruct.inference import predict
from fno_runner.reconstruct.stitching import Improve, stitch
from fno_runner.result import ErrorInfo, Metrics, Pair, RingCurves, SeedResult
from fno_runner.score.frc import as_curves
from fno_runner.score.metrics import RELATIVE, mean_over_objects, ring_curves, score, score_each
from fno_runner.score.timing import Timing, lengthen_pass, timed_predict
from fno_runner.score.without_truth import add_halves, correlate_halves, score_without_truth
from fno_runner.train.training import Trained

COLLAPSED_PEARSON = 0.1
COLLAPSED_STD_RATIO = 0.05
"""A phase that correlates less with the truth, or spreads less, has recovered nothing."""


@dataclass(frozen=True)
class Reconstruction:
    """What a seed's network made of the test patterns, and how long it took."""

    config: RunConfig
    objects: np.ndarray
    mask: np.ndarray
    timing: Timing
    curves: dict[str, RingCurves]


def evaluate(
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    trained: Trained,
    seed: SeedResult,
    *,
    timed: bool,
    overlap: Improve | None = None,
) -> Reconstruction:
    """Reconstruct and score all test objects; fills `seed`.

    Args:
        overlap: what improves each stitched object. The time that it takes for one object is
            recorded as overlap_time_s, and counts in the times and the throughput of a pass.

    Raises:
        DivergedError: the training, a prediction or a metric is not finite.
    """
    if trained.error is not None:
        raise trained.error
    patches, timing = _predict_test(config, dataset, device, trained, timed=timed)
    objects, mask = stitch(patches, dataset, overlap)
    metrics = Metrics()
    improved: dict[str, float | None] = {}
    if overlap is not None:  # of these objects only: what follows improves others, too
        improved = {
            "r_before": float(np.mean(overlap.r_before)),
            "r_after": float(np.mean(overlap.r_after)),
        }
        timing["overlap_time_s"] = overlap.seconds[0]
        if "inference_time_s" in timing:
            lengthen_pass(timing, overlap.seconds[0])
    of_objects: list[dict[str, Pair]] = []
    curves: dict[str, RingCurves] = {}
    if isinstance(dataset.geometry, Freeform) and dataset.reference_kind != "truth":
        metrics = score_without_truth(patches, dataset, config.infer_batch_size, overlap)
        halves = correlate_halves(patches, dataset, overlap)
        add_halves(metrics, halves, dataset.pixel_size)
        if halves is not None:
            curves["halves"] = as_curves(*halves, halves[1].half_bit)
    if dataset.reference is not None and dataset.reference_kind is not None:
        scores = score_each(objects, dataset.reference, mask)
        of_objects = [dict(of_object) for of_object in scores]
        metrics.pairs |= mean_over_objects(scores)
        curves[dataset.reference_kind] = ring_curves(objects, dataset.reference, mask)
    if improved:
        metrics.scan["overlap"] = improved
    _check_finite(metrics)
    if dataset.validation is not None:
        seed.validation = _validate(config, dataset.validation, device, trained, overlap)
    seed.metrics, seed.curves = metrics, curves
    seed.objects = of_objects if len(of_objects) > 1 else []
    if trained.stopped is None:
        # A scan's reference is another method's answer, or a guess: no network is judged by it.
        seed.error = _collapse(metrics) if dataset.reference_kind == "truth" else None
        seed.status = "collapsed" if seed.error else "finished"
    return Reconstruction(config, objects, mask, timing, curves)


def _predict_test(
    config: RunConfig, dataset: Dataset, device: torch.device, trained: Trained, *, timed: bool
) -> tuple[Complex64[np.ndarray, "b n n"], Timing]:
    """The patches of all test objects. Timed is the pass over the first one's."""
    model, scale = trained.model, trained.scale
    test, first = dataset.test, dataset.of_first_object
    if not timed:
        return predict(model, test, scale, device, config.infer_batch_size), {}
    patches, timing = timed_predict(model, first, scale, device, config.infer_batch_size)
    if len(first) < len(test):
        others = test.take(slice(len(first), None))
        rest = predict(model, others, scale, device, int(timing["infer_batch_size"]))
        patches = np.concatenate([patches, rest])
    return patches, timing


def _validate(
    config: RunConfig,
    validation: Dataset,
    device: torch.device,
    trained: Trained,
    overlap: Improve | None,
) -> dict[str, Pair]:
    """The metrics of the validation objects, their mean, by the way of the test objects."""
    assert validation.reference is not None
    size = config.infer_batch_size
    patches = predict(trained.model, validation.test, trained.scale, device, size)
    objects, mask = stitch(patches, validation, overlap)
    return dict(score(objects, validation.reference, mask))


def _check_finite(metrics: Metrics) -> None:
    """
    Raises:
        DivergedError: a metric is no number, though there are numbers that it could be of.
    """
    values: dict[str, tuple[float | None, ...]] = {
        name: pair for name, pair in metrics.pairs.items() if name not in RELATIVE
    }
    values |= {name: tuple(numbers.values()) for name, numbers in metrics.scan.items()}
    for name, numbers in values.items():
        for number in numbers:
            if number is not None and not math.isfinite(number):
                raise DivergedError(f"the metric {name} is {number}")


def _collapse(metrics: Metrics) -> ErrorInfo | None:
    """What is wrong with a phase that recovered nothing, whatever its other metrics say."""
    phase_correlation, phase_spread = (metrics.pairs[key][1] for key in ("pearson", "std_ratio"))
    assert phase_correlation is not None and phase_spread is not None
    if math.isnan(phase_spread):  # of a truth without a phase
        return None
    if phase_correlation >= COLLAPSED_PEARSON and phase_spread >= COLLAPSED_STD_RATIO:
        return None
    return ErrorInfo(
        type="Collapsed",
        message=f"the phase recovered nothing: Pearson {phase_correlation:.3f}, "
        f"spread {phase_spread:.3f} of the truth's",
    )
