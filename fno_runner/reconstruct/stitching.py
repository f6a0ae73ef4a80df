"""Patches → object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Float, Float32

from fno_runner.config import centre
from fno_runner.data.dataset import Dataset, Patterns, Raster
from fno_runner.physics import shift_probe
from fno_runner.reconstruct.predictor import slices

LIT = 16
"""Positions whose probe is computed at a time."""
COVERED, DIM = 0.05, 0.05
"""A pixel of a free scan counts as seen above this share of the usual illumination: the median of
the pixels that are left without the dimmest ones, which hold so much of the light together. It is
the same however far a window is dark about its beam, and however bright a few places are."""


@runtime_checkable
class Improve(Protocol):
    """What makes a better object of a stitched one: `fno_runner.overlap`. It keeps of each call the
    misfit of the patterns before and after, and the time that it took [s]."""

    r_before: list[float]
    r_after: list[float]
    seconds: list[float]

    def __call__(self, obj: np.ndarray, seen: np.ndarray, patterns: Patterns, /) -> np.ndarray: ...


def stitch(
    patches: Complex64[np.ndarray, "b n n"], dataset: Dataset, improve: Improve | None = None
) -> tuple[Complex64[np.ndarray, "o h w"], np.ndarray]:
    """The objects that the patches of `dataset.test` make, and where they are known.

    Args:
        improve: what makes more of each object and all patterns of it.

    Returns:
        complex64 (objects, H, W), and a bool mask of the same shape.
    """
    if isinstance(dataset.geometry, Raster):
        if improve is None:
            objects = tile(patches, dataset.geometry)
        else:
            objects = _improved_rasters(patches, dataset.test, dataset.geometry, improve)
        return objects * np.float32(dataset.geometry.scale), np.ones(objects.shape, bool)
    stitched, seen = average(patches, dataset.test, dataset.geometry.shape, improve)
    return stitched[None], seen[None]


def _improved_rasters(
    patches: np.ndarray, patterns: Patterns, raster: Raster, improve: Improve
) -> Complex64[np.ndarray, "o h w"]:
    """The part of each object that `tile` tiles, improved as the whole that its patches cover."""
    size = patterns.size
    rows, cols = raster.rows * raster.step, raster.cols * raster.step
    border = (size - raster.step) // 2
    objects = []
    for own in np.arange(len(patterns)).reshape(-1, raster.rows * raster.cols):
        some = patterns.take(own)
        some = replace(some, positions=some.positions - some.positions[0] + centre(size))
        shape = rows + 2 * border, cols + 2 * border
        obj, _ = average(patches[own], some, shape, improve)
        objects.append(obj[border : border + rows, border : border + cols])
    return np.stack(objects)


def tile(patches: Complex64[np.ndarray, "b n n"], raster: Raster) -> Complex64[np.ndarray, "o h w"]:
    """The central step × step pixels of every patch, side by side, row by row."""
    step = raster.step
    border = (patches.shape[-1] - step) // 2
    centres = patches[:, border : border + step, border : border + step]
    tiles = centres.reshape(-1, raster.rows, raster.cols, step, step)  # (O, R, C, step, step)
    tiles = tiles.transpose(0, 1, 3, 2, 4)  # (O, R, step, C, step)
    return tiles.reshape(-1, raster.rows * step, raster.cols * step)


def average(
    patches: Complex64[np.ndarray, "b n n"],
    patterns: Patterns,
    shape: tuple[int, int],
    improve: Improve | None = None,
) -> tuple[Complex64[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The mean of all patches over a pixel, weighted by the intensity of each one's probe.

    Returns:
        the object (zero where no patch reaches), and where enough light fell for it to be known.
    """
    canvas = Canvas(shape)
    canvas.add(patches, patterns.positions, patterns.probe)
    obj, seen = canvas.mean(), canvas.seen()
    return obj if improve is None else improve(obj, seen, patterns), seen


def lights(
    positions: Float32[np.ndarray, "b 2"], probe: Complex64[np.ndarray, "*m n n"]
) -> Iterator[tuple[Float32[np.ndarray, "n n"], tuple[slice, slice]]]:
    """Of each position in turn: the probe's intensity there, and the pixels that it falls on.

    The probe is moved by the sub-pixel remainder, of `LIT` positions at a time: of all at once it
    would take far more memory than their patterns do.
    """
    size = probe.shape[-1]
    first = positions - centre(size)
    corner = np.rint(first)
    for rows in slices(len(positions), LIT):
        remainder = torch.from_numpy(first[rows] - corner[rows])
        light = shift_probe(torch.from_numpy(probe), remainder).abs().square()
        intensity = (light if light.ndim == 3 else light.sum(1)).numpy()  # (B, N, N)
        for of_one, (row, col) in zip(intensity, corner[rows].astype(int), strict=True):
            yield of_one, (slice(row, row + size), slice(col, col + size))


class Canvas:
    """Patches laid over each other, weighted by the intensity of each one's probe.

    The probe stands where the frame was taken, the sub-pixel remainder of the position included:
    where it is bright the pattern knows the object.

    total: complex64 (H, W), Σ intensity · patch. weight: float32 (H, W), Σ intensity.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.total = np.zeros(shape, np.complex64)
        self.weight = np.zeros(shape, np.float32)

    def add(
        self,
        patches: Complex64[np.ndarray, "b n n"],
        positions: Float32[np.ndarray, "b 2"],
        probe: Complex64[np.ndarray, "*m n n"],
    ) -> None:
        """Lay patches whose centres are at `positions` [px] of the canvas."""
        for patch, (light, window) in zip(patches, lights(positions, probe), strict=True):
            self.total[window] += light * patch
            self.weight[window] += light

    def mean(self) -> Complex64[np.ndarray, "h w"]:
        """The object; 0 where no patch reaches."""
        obj = np.zeros_like(self.total)
        np.divide(self.total, self.weight, out=obj, where=self.weight > 0)
        return obj

    def seen(self) -> Bool[np.ndarray, "h w"]:
        """Where enough light fell for the object to be known."""
        return covered(self.weight)


class GrowingCanvas(Canvas):
    """A canvas that reaches as far as the patches so far, for scans whose extent is not known yet.

    origin: (2,), the row and column of positions that its first pixel stands for.
    """

    def __init__(self) -> None:
        super().__init__((0, 0))
        self.origin = np.zeros(2, int)

    def add(
        self,
        patches: Complex64[np.ndarray, "b n n"],
        positions: Float32[np.ndarray, "b 2"],
        probe: Complex64[np.ndarray, "*m n n"],
    ) -> None:
        """Lay patches whose centres are anywhere, and grow to hold them."""
        self._reach(positions, patches.shape[-1])
        super().add(patches, positions - self.origin.astype(np.float32), probe)

    def _reach(self, positions: Float32[np.ndarray, "b 2"], size: int) -> None:
        """Grow by whole patches, so that it is seldom needed."""
        low = (np.floor(positions.min(axis=0) / size).astype(int) - 1) * size
        high = (np.ceil(positions.max(axis=0) / size).astype(int) + 1) * size
        if self.total.size:
            low = np.minimum(low, self.origin)
            high = np.maximum(high, self.origin + self.total.shape)
        total, weight = self.total, self.weight
        shape = tuple(int(side) for side in high - low)
        if shape == total.shape:
            return
        row, col = self.origin - low if total.size else (0, 0)
        window = slice(row, row + total.shape[0]), slice(col, col + total.shape[1])
        self.total, self.weight = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
        self.total[window], self.weight[window] = total, weight
        self.origin = low

    def window(self, low: tuple[int, int], shape: tuple[int, int]) -> Canvas:
        """A copy of `shape` px of it from this row and column of positions on."""
        row, col = np.array(low) - self.origin
        cut_out = Canvas(shape)
        part = slice(row, row + shape[0]), slice(col, col + shape[1])
        cut_out.total, cut_out.weight = self.total[part].copy(), self.weight[part].copy()
        return cut_out


def covered(weight: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels of a free scan that had enough light to be known."""
    lit = np.sort(weight[weight > 0], axis=None)
    if not lit.size:
        return np.zeros(weight.shape, bool)
    light = np.cumsum(lit, dtype=np.float64)
    bright = lit[np.searchsorted(light, DIM * light[-1]) :]
    seen: np.ndarray = weight > COVERED * bright[len(bright) // 2]
    return seen


def cut(
    obj: Complex64[np.ndarray, "h w"], positions: Float32[np.ndarray, "b 2"], size: int
) -> Complex64[np.ndarray, "b n n"]:
    """The patches of `size` px of an object whose centres are at `positions`, to whole pixels."""
    corner = np.rint(positions - centre(size)).astype(int)
    return np.stack([obj[row : row + size, col : col + size] for row, col in corner])
