"""Simulated data: grid lines or thin samples, their raster scan, their diffraction patterns.

By default after PtychoPINN's grid-lines study (gridsize 1), with two differences: the phase is
always on, and the probe is complex and asymmetric. The arrays have that study's names and layouts,
so that its tools read these files and this program reads its own.

The objects, and the scan's steps, are the same for every N, as in that study: a larger pattern
sees more of the object, and there are fewer of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Literal

import numpy as np
from jaxtyping import Complex64, Float32

from fno_runner.config import RunConfig, centre
from fno_runner.data.beam import Beam, beam_of
from fno_runner.data.samples import blurred_lines, thin_sample

Split = Literal["train", "test", "validation"]

CANVAS = 784
"""Side of the canvas that the lines are drawn on [px]; its central half is the object."""
OBJECT = CANVAS // 2
"""Side of an object [px]."""
LINES = 400
"""Lines an object."""
STEP: dict[Split, int] = {"train": 4, "test": 10, "validation": 10}
"""Distance of neighbouring scan positions [px]."""
STEP_OF_SAMPLES = 8
"""The same for training on thin samples, of which it takes many to be ready for another one."""
STREAM: dict[Split, int] = {"train": 0, "test": 1, "validation": 2}
"""Which random stream of `data_seed` a split's objects and noise come from."""
CHUNK = 128
"""Patterns made at once; each chunk has a random stream of its own."""
GENERATOR_VERSION = 1
"""Raised whenever the same parameters would give other arrays."""


def grid_lines_object(rng: np.random.Generator) -> Complex64[np.ndarray, "n n"]:
    """One object: blurred random lines a, with a phase φ = π·tanh((a − max(a)/2) / (3·mean(a)))."""
    amplitude = blurred_lines(CANVAS, rng, LINES)
    margin = (CANVAS - OBJECT) // 2
    a = amplitude[margin : margin + OBJECT, margin : margin + OBJECT]
    phase = np.pi * np.tanh((a - a.max() / 2) / (3 * a.mean()))
    return (a * np.exp(1j * phase)).astype(np.complex64)


def step_of(config: RunConfig, split: Split) -> int:
    """Distance of neighbouring scan positions [px]."""
    return STEP[split] if config.is_grid_lines or split != "train" else STEP_OF_SAMPLES


def raster_starts(step: int, size: int) -> np.ndarray:
    """Top-left corners of an object's patches, row by row: int (rows·cols, 2) [px]."""
    along = np.arange(0, OBJECT - size + 1, step)
    rows, cols = np.meshgrid(along, along, indexing="ij")
    return np.stack([rows.ravel(), cols.ravel()], axis=1)


def diffract(
    exit_waves: Complex64[np.ndarray, "b n n"],
) -> Float32[np.ndarray, "b n n"]:
    """Far-field amplitude |FFT(exit wave)| / N (orthonormal), zero frequency at [N/2, N/2]."""
    import scipy.fft  # takes a second, which a run whose data are cached need not wait

    far = scipy.fft.fft2(exit_waves, norm="ortho", overwrite_x=True)
    return scipy.fft.fftshift(np.abs(far), axes=(1, 2)).astype(np.float32, copy=False)


def simulate(
    config: RunConfig, split: Split, workers: int = 2, beam: Beam | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """All arrays of one split, deterministic in `data_seed` whatever the number of `workers`.

    The noise is drawn while the arrays before it are taken.

    Under the probe of a scan positions have fractions, which the probe is moved by; there are no
    Y_I, Y_phi and norm_Y_I (it is 1), YY_ground_truth is the whole object, probe_simulated has all
    modes, and good_pixels (N, N) bool tells the bad ones, if there are any.

    Args:
        beam: what `beam_of` says of the configuration, where that is known already.

    Yields, float32 unless said (B patterns, n objects):
        diffraction (B, N, N, 1): amplitude; mean total count `nphotons` before rescaling.
        Y_I, Y_phi (B, N, N, 1): illuminated amplitude |P·O| and phase of O [rad].
        coords_offsets (B, 1, 2, 1): row and column of the patch centre [px].
        coords_nominal, coords_true (B, 1, 2, 1): zero at gridsize 1.
        YY_full (n, OBJECT, OBJECT, 1) complex64; probeGuess, probe_simulated (N, N) complex64.
        norm_Y_I () float64: the objects' amplitude scale; the patches are divided by it.
        But for training YY_ground_truth (S, S, n) complex64: what stitching should give; S is 330
            for N = 64, 270 for 128 and 140 for 256.
    """
    beam = beam_of(config) if beam is None else beam
    counts = {"train": config.nimgs_train, "test": config.nimgs_test}
    images = counts.get(split, config.nimgs_val)
    # Independent streams: an object does not depend on how many others there are.
    root = np.random.SeedSequence([config.data_seed, STREAM[split]])
    object_seeds, noise_seed, position_seed = root.spawn(3)
    rngs = map(np.random.default_rng, object_seeds.spawn(images))
    if config.is_grid_lines:
        objects = np.stack([grid_lines_object(rng) for rng in rngs])
    else:
        kinds = zip(cycle(config.kinds), rngs, strict=False)
        objects = np.stack([thin_sample(kind, OBJECT, rng) for kind, rng in kinds])
    step, size = step_of(config, split), beam.size
    windows = np.lib.stride_tricks.sliding_window_view(objects, (size, size), axis=(1, 2))
    windows = windows[:, ::step, ::step]  # (images, rows, cols, N, N), a view
    images, rows, cols = windows.shape[:3]
    norm = _mean_peak(objects, step, size, rows, cols) if config.is_grid_lines else 1.0

    yield "YY_full", objects[..., None]
    yield "probeGuess", beam.probe[0] if beam.probe.ndim == 3 else beam.probe
    yield "probe_simulated", beam.probe
    if beam.mask is not None:
        yield "good_pixels", beam.mask
    if beam.remainders is None:
        yield "norm_Y_I", np.array(norm)
    if split != "train":
        truth = objects
        if beam.remainders is None:
            border = (size - step) // 2
            inside = slice(border, border + rows * step)
            truth = objects[:, inside, inside]
        yield "YY_ground_truth", np.ascontiguousarray(np.moveaxis(truth, 0, -1))

    count = images * rows * cols
    offsets = np.tile(raster_starts(step, size) + centre(size), (images, 1)).astype(np.float32)
    remainders = None
    if beam.remainders is not None:
        drawn = np.random.default_rng(position_seed).integers(len(beam.remainders), size=count)
        remainders = beam.remainders[drawn]
        offsets += remainders
    yield "coords_offsets", offsets[:, None, :, None]
    for name in ("coords_nominal", "coords_true"):
        yield name, np.zeros((count, 1, 2, 1), np.float32)

    diffraction = np.empty((count, size, size), np.float32)
    kept = [np.empty_like(diffraction) for _ in range(2)] if remainders is None else []
    chunks = [slice(first, first + CHUNK) for first in range(0, count, CHUNK)]

    def expose(chunk: slice) -> float:
        waves = windows[np.unravel_index(np.arange(count)[chunk], (images, rows, cols))]
        waves /= np.float32(norm)
        if remainders is None:
            illuminated, phase = kept
            np.arctan2(waves.imag, waves.real, out=phase[chunk])
            waves *= beam.probe
            np.abs(waves, out=illuminated[chunk])
            diffraction[chunk] = diffract(waves)
        else:
            light = beam.at(remainders[chunk]).reshape(len(waves), -1, size, size)  # (b, M, N, N)
            far = diffract((light * waves[:, None]).reshape(-1, size, size))
            diffraction[chunk] = np.linalg.norm(far.reshape(light.shape), axis=1)
        if beam.mask is not None:
            diffraction[chunk] *= beam.mask
        return float(np.square(diffraction[chunk]).sum(dtype=np.float64))

    def add_photon_noise(chunk: slice, seed: np.random.SeedSequence) -> None:
        # A stream a chunk: the result does not depend on which thread draws when.
        rng = np.random.Generator(np.random.SFC64(seed))
        counts = rng.poisson(np.square(diffraction[chunk], dtype=np.float64) * photons)
        diffraction[chunk] = np.sqrt(counts / photons)

    with ThreadPoolExecutor(workers) as pool:
        total = sum(pool.map(expose, chunks))
        photons = beam.photons * count / total  # counts a unit of squared amplitude
        noisy = pool.map(add_photon_noise, chunks, noise_seed.spawn(len(chunks)))
        yield from zip(("Y_I", "Y_phi"), (array[..., None] for array in kept), strict=False)
        list(noisy)
    yield "diffraction", diffraction[..., None]


def _mean_peak(objects: np.ndarray, step: int, size: int, rows: int, cols: int) -> float:
    """The mean over all patches of each one's highest modulus."""
    from scipy.ndimage import maximum_filter

    # A maximum filter sees each pixel once, the windows see it (N / step)² times.
    highest = maximum_filter(np.abs(objects), (1, size, size), origin=(0, -size // 2, -size // 2))
    return float(highest[:, ::step, ::step][:, :rows, :cols].mean(dtype=np.float64))
