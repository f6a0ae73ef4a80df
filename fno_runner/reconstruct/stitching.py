"""Patches → object."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex64, Float32

from fno_runner.config import CENTRE, N
from fno_runner.data.dataset import Dataset, Raster
from fno_runner.physics import shift_probe

COVERED = 0.1
"""A pixel of a free scan counts as seen above this share of the median illumination."""


def stitch(
    patches: Complex64[np.ndarray, "b n n"], dataset: Dataset
) -> tuple[Complex64[np.ndarray, "o h w"], np.ndarray]:
    """The objects that the patches of `dataset.test` make, and where they are known.

    Returns:
        complex64 (objects, H, W), and a bool mask of the same shape.
    """
    if isinstance(dataset.geometry, Raster):
        objects = tile(patches, dataset.geometry) * np.float32(dataset.geometry.scale)
        return objects, np.ones(objects.shape, bool)
    stitched, weight = average(
        patches, dataset.test.positions, dataset.test.probe, dataset.geometry.shape
    )
    covered = weight > COVERED * np.median(weight[weight > 0])
    return stitched[None], covered[None]


def tile(patches: Complex64[np.ndarray, "b n n"], raster: Raster) -> Complex64[np.ndarray, "o h w"]:
    """The central step × step pixels of every patch, side by side, row by row."""
    step = raster.step
    border = (N - step) // 2
    centres = patches[:, border : border + step, border : border + step]
    tiles = centres.reshape(-1, raster.rows, raster.cols, step, step)  # (O, R, C, step, step)
    tiles = tiles.transpose(0, 1, 3, 2, 4)  # (O, R, step, C, step)
    return tiles.reshape(-1, raster.rows * step, raster.cols * step)


def average(
    patches: Complex64[np.ndarray, "b n n"],
    positions: Float32[np.ndarray, "b 2"],
    probe: Complex64[np.ndarray, "*m n n"],
    shape: tuple[int, int],
) -> tuple[Complex64[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """The mean of all patches over a pixel, weighted by the intensity of each one's probe.

    The probe stands where the frame was taken, the sub-pixel remainder of `positions` [px]
    included: where it is bright the pattern knows the object.

    Returns:
        the object (zero where no patch reaches) and the summed weight.
    """
    first = positions - CENTRE
    corner = np.rint(first)
    remainder = torch.from_numpy(first - corner)
    light = shift_probe(torch.from_numpy(probe), remainder).abs().square()
    intensity = (light if light.ndim == 3 else light.sum(1)).numpy()  # (B, N, N)
    total = np.zeros(shape, np.complex64)
    weight = np.zeros(shape, np.float32)
    for patch, light, (row, col) in zip(patches, intensity, corner.astype(int), strict=True):
        window = slice(row, row + N), slice(col, col + N)
        total[window] += light * patch
        weight[window] += light
    np.divide(total, weight, out=total, where=weight > 0)
    return total, weight
