"""From a scan's frames to its object, in slices, and how well the two agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from jaxtyping import Bool, Complex64, Float32

from fno_runner.apply.prepared import Prepared
from fno_runner.apply.stream import Stream
from fno_runner.data.dataset import Patterns
from fno_runner.device import halve_until_it_fits
from fno_runner.reconstruct.inference import make_predictor, predicted_amplitude
from fno_runner.reconstruct.predictor import Predictor
from fno_runner.reconstruct.stitching import Canvas, cut

OnFrames = Callable[[int], None]
"""Called with the number of frames that have been dealt with since the last call."""
SLICE = 128
"""Frames whose amplitudes an object predicts at a time."""


@dataclass(frozen=True)
class Assembled:
    """An object and what it was made of.

    obj: complex64 (H, W), in the units in which |far field of probe · object| is the amplitude.
    seen: where enough light fell for it to be known. weight: the light.
    r_own: Σ|predicted − measured| / Σ measured of each frame's own answer. r: of what the object,
        stitched from all of them, predicts.
    seconds: of inference and stitching, reading included [s].
    """

    obj: Complex64[np.ndarray, "h w"]
    seen: Bool[np.ndarray, "h w"]
    weight: Float32[np.ndarray, "h w"]
    r_own: float
    r: float
    seconds: float


class Misfit:
    """R = Σ|predicted − measured| / Σ measured, a block after the other."""

    def __init__(self) -> None:
        self.off = self.all = 0.0

    def add(self, predicted: np.ndarray, measured: np.ndarray) -> None:
        self.off += float(np.abs(predicted - measured).sum(dtype=np.float64))
        self.all += float(measured.sum(dtype=np.float64))

    @property
    def r(self) -> float:
        return self.off / self.all if self.all else float("nan")


class Assembler:
    """Frames in, an object that grows: what a whole file and a scan in progress have in common."""

    def __init__(self, prepared: Prepared, canvas: Canvas) -> None:
        self._prepared, self._slice_size = prepared, prepared.infer_batch_size
        self._predictor: Predictor | None = None
        self.canvas, self.own = canvas, Misfit()

    def add(self, patterns: Patterns) -> None:
        """Reconstruct some frames and lay their patches on the canvas.

        Raises:
            DivergedError: a prediction is not a finite number.
        """

        def predicted(size: int) -> Complex64[np.ndarray, "b n n"]:
            device = self._prepared.device
            if self._predictor is None or size != self._slice_size:
                network, scale = self._prepared.network, self._prepared.scale
                self._predictor = make_predictor(network, patterns.probe, scale, device, size)
            if device.type == "cpu":
                return self._predictor(patterns)
            # Whole slices only, so that one recorded graph does for all: the last frame again.
            count = len(patterns)
            rows = np.minimum(np.arange(math.ceil(count / size) * size), count - 1)
            return self._predictor(patterns.take(rows))[:count]

        patches, self._slice_size = halve_until_it_fits(predicted, self._slice_size)
        self.own.add(predicted_amplitude(patches, patterns, self._slice_size), patterns.amplitude)
        self.canvas.add(patches, patterns.positions, patterns.probe)


def assemble(prepared: Prepared, on_frames: OnFrames | None = None) -> Assembled:
    """The object of all frames of a scan.

    Only a block of frames is ever held. They are read for the object, and again for what it
    predicts.

    Raises:
        DivergedError: a prediction is not a finite number.
    """
    start = perf_counter()
    stream, canvas = prepared.stream, Canvas(prepared.stream.scan.shape)
    assembler = Assembler(prepared, canvas)
    for patterns in stream.blocks(prepared.infer_batch_size):
        assembler.add(patterns)
        if on_frames is not None:
            on_frames(len(patterns))
    obj = canvas.mean()
    seconds = perf_counter() - start
    return Assembled(
        obj=obj,
        seen=canvas.seen(),
        weight=canvas.weight,
        r_own=assembler.own.r,
        r=_misfit(obj, stream),
        seconds=seconds,
    )


def _misfit(obj: Complex64[np.ndarray, "h w"], stream: Stream) -> float:
    """R of what an object predicts for all frames of a scan."""
    of_object = Misfit()
    for patterns in stream.blocks():
        patches = cut(obj, patterns.positions, patterns.amplitude.shape[-1])
        of_object.add(predicted_amplitude(patches, patterns, SLICE), patterns.amplitude)
    return of_object.r
