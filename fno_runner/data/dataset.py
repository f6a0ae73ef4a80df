"""What a run trains on, what it is scored on, and how its patches become an object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64

from fno_runner.config import SIZES
from fno_runner.data.npz import array_names, fingerprint, read_array
from fno_runner.errors import UserError


@dataclass(frozen=True)
class Patterns:
    """Diffraction patterns, where they were taken, and with which probe.

    amplitude: float32 (B, N, N), zero frequency at [N/2, N/2].
    positions: float32 (B, 2), row and column of the patch's centre in the object [px]; the patch's
        first pixel is at position − (N − 1)/2, which need not be whole.
    probe: complex64 (N, N), so that amplitude = |FFT(probe · object patch)| / N; or (M, N, N), M
        incoherent modes, whose intensities add up.
    mask: bool (N, N), true at good pixels; amplitude is 0 at the others. None where all are good.
    """

    amplitude: Float32[np.ndarray, "b n n"]
    positions: Float32[np.ndarray, "b 2"]
    probe: Complex64[np.ndarray, "*m n n"]
    mask: Bool[np.ndarray, "n n"] | None = None

    def __len__(self) -> int:
        return len(self.amplitude)

    @property
    def size(self) -> int:
        """N, the side of a pattern [px]."""
        return self.amplitude.shape[-1]

    @cached_property
    def intensity(self) -> Float64[np.ndarray, " b"]:
        """Σ A² of each pattern, float64 (B,)."""
        return np.square(self.amplitude).sum((1, 2), dtype=np.float64)

    def take(self, rows: np.ndarray) -> Patterns:
        """The patterns of these indices (or of this mask)."""
        return Patterns(self.amplitude[rows], self.positions[rows], self.probe, self.mask)


@dataclass(frozen=True)
class Raster:
    """A regular scan: the central step × step pixels of the patches tile the object.

    scale: what the tiled patches are multiplied by to be in the truth's units.
    """

    step: int
    rows: int
    cols: int
    scale: float


@dataclass(frozen=True)
class Freeform:
    """A scan at any positions: patches are averaged, weighted by the probe's intensity.

    shape: of the object [px].
    """

    shape: tuple[int, int]


@dataclass(frozen=True)
class Dataset:
    """Everything a run needs to know of its data.

    train: patterns to train on. test: patterns to reconstruct from.
    held_out: bool (B,), which of `test` were never trained on.
    region: bool (B,), of a scan the frames of one place that were not trained on either.
    pixel_size: of the object [m], where it is known.
    counts_held: of a scan, the share of the detector's counts that its frames hold.
    reference: complex64 (objects, H, W), what the reconstruction is compared with, if anything:
        the `truth` of simulated data, or another method's `reference` reconstruction of a scan.
    fingerprint: of the files' content, but for the validation object's, which has its own.
    validation: the same with another object to reconstruct: what configurations are chosen by.
    loading_s: how long it took to read, or to simulate [s].
    """

    train: Patterns
    test: Patterns
    held_out: Bool[np.ndarray, " b"]
    geometry: Raster | Freeform
    reference: Complex64[np.ndarray, "n h w"] | None
    reference_kind: Literal["truth", "reference"] | None
    fingerprint: str
    region: Bool[np.ndarray, " b"] | None = None
    pixel_size: float | None = None
    counts_held: float | None = None
    validation: Dataset | None = None
    loading_s: float = 0.0

    @property
    def of_first_object(self) -> Patterns:
        """The test patterns of the first object, of a scan all: what inference is timed on.

        A time of all objects would not compare with that of a run with another number of them.
        """
        if not isinstance(self.geometry, Raster):
            return self.test
        return self.test.take(np.arange(self.geometry.rows * self.geometry.cols))


def load_npz_pair(
    train_npz: Path,
    test_npz: Path,
    val_npz: Path | None = None,
    size: int | None = None,
    *,
    freeform: bool = False,
) -> Dataset:
    """A grid-lines dataset from NPZ files in the layout of PtychoPINN's study.

    Args:
        val_npz: a third object, in the layout of the test file.
        size: the side that the patterns are to have [px]; by default the training file's.
        freeform: whether positions have fractions, and the truth is the whole object.

    Raises:
        UserError: a file is missing or damaged, lacks a key, has another N, or holds amplitudes
            that are negative or not finite.
    """
    train = _read_patterns(train_npz, size)
    trained = fingerprint(train_npz)[:16]
    dataset = _with_objects(train, test_npz, trained, freeform)
    if val_npz is None:
        return dataset
    return replace(dataset, validation=_with_objects(train, val_npz, trained, freeform))


def _with_objects(train: Patterns, path: Path, trained: str, freeform: bool) -> Dataset:
    """The dataset whose objects to reconstruct are in `path`.

    Args:
        trained: the fingerprint of the training patterns.
    """
    test = _read_patterns(path, train.size)
    truth = _complex(path, "YY_ground_truth")
    if truth.ndim != 3 or min(truth.shape) == 0:
        raise UserError(f"{path}: 'YY_ground_truth' is {truth.shape}, not (H, W, objects)")
    truth = np.ascontiguousarray(np.moveaxis(truth, -1, 0))
    geometry: Raster | Freeform
    if freeform:
        geometry = Freeform((truth.shape[1], truth.shape[2]))
    else:
        geometry = _raster(path, test, truth, float(_finite(path, "norm_Y_I").reshape(-1)[0]))
    return Dataset(
        train=train,
        test=test,
        held_out=np.ones(len(test), bool),
        geometry=geometry,
        reference=truth,
        reference_kind="truth",
        fingerprint=f"{trained}-{fingerprint(path)[:16]}",
    )


def read_amplitude(
    path: Path, names: tuple[str, ...], size: int | None = None
) -> Float32[np.ndarray, "b n n"]:
    """Diffraction amplitudes under the first of these names that the file has.

    Args:
        size: N, the side that they are to have [px]; by default any of `SIZES`.

    Raises:
        UserError: none of the names, another N, or values that no amplitude can have.
    """
    present = array_names(path)
    name = next((n for n in names if n in present), None)
    if name is None:
        raise UserError(f"{path}: has no array '{names[0]}'; it has {', '.join(sorted(present))}")
    amplitude = _finite(path, name)
    if amplitude.ndim == 4 and amplitude.shape[-1] == 1:
        amplitude = amplitude[..., 0]
    sides = [(n, n) for n in (SIZES if size is None else (size,))]
    if amplitude.ndim != 3 or amplitude.shape[1:] not in sides or len(amplitude) == 0:
        wanted = "N, N[, 1]), N being 64, 128 or 256" if size is None else f"{size}, {size}[, 1])"
        raise UserError(f"{path}: '{name}' is {amplitude.shape}, not (patterns, {wanted}")
    if amplitude.min() < 0:
        count = int((amplitude < 0).sum())
        raise UserError(f"{path}: '{name}' has {count} negative values; amplitudes are wanted")
    if not amplitude.any():
        raise UserError(f"{path}: '{name}' is zero everywhere")
    return np.ascontiguousarray(amplitude, np.float32)


def read_probe(path: Path, names: tuple[str, ...], size: int) -> Complex64[np.ndarray, "*m n n"]:
    """The probe or its modes, of `size` px a side, under the first of these names that are there.

    Raises:
        UserError: none of the names, another size, not finite, or zero everywhere.
    """
    present = array_names(path)
    name = next((n for n in names if n in present), names[-1])
    probe = _complex(path, name)
    if probe.ndim not in (2, 3) or probe.shape[-2:] != (size, size):
        raise UserError(f"{path}: '{name}' is {probe.shape}, not ([modes, ]{size}, {size})")
    if not probe.any():
        raise UserError(f"{path}: '{name}' is zero everywhere")
    return probe


def read_coordinates(path: Path, name: str, count: int) -> np.ndarray:
    """`count` coordinates [px], float64 (count,) or, for pairs, (count, 2).

    Raises:
        UserError: no such array, another number of them, or not finite.
    """
    coordinates = _finite(path, name).squeeze()
    if coordinates.shape[:1] != (count,) or coordinates.ndim > 2:
        raise UserError(f"{path}: '{name}' is {coordinates.shape} for {count} patterns")
    return coordinates.astype(np.float64)


def _read_patterns(path: Path, size: int | None) -> Patterns:
    amplitude = read_amplitude(path, ("diffraction",), size)
    probe = read_probe(path, ("probe_simulated", "probeGuess"), amplitude.shape[-1])
    positions = read_coordinates(path, "coords_offsets", len(amplitude))
    if positions.shape != (len(amplitude), 2):
        raise UserError(f"{path}: 'coords_offsets' is not (patterns, 1, 2, 1): gridsize 1 is read")
    mask = None
    if "good_pixels" in array_names(path):
        mask = _finite(path, "good_pixels").astype(bool)
        if mask.shape != amplitude.shape[1:]:
            raise UserError(f"{path}: 'good_pixels' is {mask.shape}, not {amplitude.shape[1:]}")
    return Patterns(amplitude, positions.astype(np.float32), probe, mask)


def _raster(path: Path, test: Patterns, truth: np.ndarray, scale: float) -> Raster:
    """The raster that the positions and the truth's size imply."""
    along = np.unique(test.positions[:, 1])
    step = round(float(np.diff(along).min())) if len(along) > 1 else 0
    rows, cols = (side // step if step else 0 for side in truth.shape[1:])
    expected = np.stack(
        np.meshgrid(np.arange(rows) * step, np.arange(cols) * step, indexing="ij"), axis=-1
    )
    first = test.positions[0]
    if (
        step < 1
        or step > test.size
        or (test.size - step) % 2
        or (rows * step, cols * step) != truth.shape[1:]
        or len(test) != len(truth) * rows * cols
        or not np.allclose(
            test.positions.reshape(len(truth), -1, 2) - first, expected.reshape(-1, 2)
        )
    ):
        raise UserError(
            f"{path}: 'coords_offsets' is not the regular raster, row by row, that "
            f"'YY_ground_truth' {truth.shape[1:]} needs (step {step} px, {len(test)} patterns)"
        )
    return Raster(step, rows, cols, scale)


def _complex(path: Path, name: str) -> np.ndarray:
    return np.ascontiguousarray(_finite(path, name)).astype(np.complex64)


def _finite(path: Path, name: str) -> np.ndarray:
    array = read_array(path, name)
    if array.dtype.kind not in "fciub":
        raise UserError(f"{path}: '{name}' is {array.dtype}, not numbers")
    if array.size == 0:
        raise UserError(f"{path}: '{name}' is empty")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise UserError(f"{path}: '{name}' has {count} values that are NaN or infinite")
    return array
