"""A dataset from NPZ files in the layout of PtychoPINN's study, each opened once."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Complex64, Float32

from fno_runner.config import SIZES
from fno_runner.data.dataset import Dataset, Freeform, Patterns, Raster
from fno_runner.data.npz import LARGEST_BYTES, NpzFile
from fno_runner.errors import UserError


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
    with closing(NpzFile(train_npz)) as file:
        train, trained = _patterns(file, size), file.own_fingerprint()[:16]

    def with_objects(path: Path) -> Dataset:
        with closing(NpzFile(path)) as file:
            return _with_objects(train, file, trained, freeform)

    validation = None if val_npz is None else with_objects(val_npz)
    return replace(with_objects(test_npz), validation=validation)


def _with_objects(train: Patterns, file: NpzFile, trained: str, freeform: bool) -> Dataset:
    """The dataset whose objects to reconstruct are in `file`.

    Args:
        trained: the fingerprint of the training patterns.
    """
    test = _patterns(file, train.size)
    truth = _complex(file, "YY_ground_truth")
    if truth.ndim != 3 or min(truth.shape) == 0:
        raise UserError(f"{file.path}: 'YY_ground_truth' is {truth.shape}, not (H, W, objects)")
    truth = np.ascontiguousarray(np.moveaxis(truth, -1, 0))
    geometry: Raster | Freeform
    if freeform:
        geometry = Freeform((truth.shape[1], truth.shape[2]))
    else:
        scale = float(_finite(file, "norm_Y_I").reshape(-1)[0])
        geometry = _raster(file.path, test, truth, scale)
    return Dataset(
        train=train,
        test=test,
        held_out=np.ones(len(test), bool),
        geometry=geometry,
        reference=truth,
        reference_kind="truth",
        fingerprint=f"{trained}-{file.own_fingerprint()[:16]}",
    )


def _patterns(file: NpzFile, size: int | None) -> Patterns:
    """
    Args:
        size: N, the side that patterns are to have [px]; by default any of `SIZES`.
    """
    amplitude = _amplitude(file, size)
    size = amplitude.shape[-1]
    positions = _finite(file, "coords_offsets").squeeze()
    if positions.shape != (len(amplitude), 2):
        raise UserError(f"{file.path}: 'coords_offsets' is {positions.shape} for {len(amplitude)} "
                        f"patterns, not (patterns, 1, 2, 1): gridsize 1 is read")  # fmt: skip
    mask = None
    if file.has("good_pixels"):
        mask = _finite(file, "good_pixels").astype(bool)
        if mask.shape != (size, size):
            raise UserError(f"{file.path}: 'good_pixels' is {mask.shape}, not ({size}, {size})")
    return Patterns(amplitude, positions.astype(np.float32), _probe(file, size), mask)


def _amplitude(file: NpzFile, size: int | None) -> Float32[np.ndarray, "b n n"]:
    name = "diffraction"
    if not file.has(name):
        has = ", ".join(sorted(file.names()))
        raise UserError(f"{file.path}: has no array '{name}'; it has {has}")
    amplitude = _finite(file, name)
    if amplitude.ndim == 4 and amplitude.shape[-1] == 1:
        amplitude = amplitude[..., 0]
    sides = [(n, n) for n in (SIZES if size is None else (size,))]
    if amplitude.ndim != 3 or amplitude.shape[1:] not in sides or len(amplitude) == 0:
        wanted = "N, N[, 1]), N being 64, 128 or 256" if size is None else f"{size}, {size}[, 1])"
        raise UserError(f"{file.path}: '{name}' is {amplitude.shape}, not (patterns, {wanted}")
    if amplitude.min() < 0:
        count = int((amplitude < 0).sum())
        raise UserError(f"{file.path}: '{name}' has {count} negative values; amplitudes are wanted")
    if not amplitude.any():
        raise UserError(f"{file.path}: '{name}' is zero everywhere")
    return np.ascontiguousarray(amplitude, np.float32)


def _probe(file: NpzFile, size: int) -> Complex64[np.ndarray, "*m n n"]:
    """The probe that was used, or its modes; else the one that the file guesses."""
    name = "probe_simulated" if file.has("probe_simulated") else "probeGuess"
    probe = _complex(file, name)
    if probe.ndim not in (2, 3) or probe.shape[-2:] != (size, size):
        raise UserError(f"{file.path}: '{name}' is {probe.shape}, not ([modes, ]{size}, {size})")
    if not probe.any():
        raise UserError(f"{file.path}: '{name}' is zero everywhere")
    return probe


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


def _complex(file: NpzFile, name: str) -> np.ndarray:
    return np.ascontiguousarray(_finite(file, name)).astype(np.complex64)


def _finite(file: NpzFile, name: str) -> np.ndarray:
    array = file.read(name, LARGEST_BYTES)
    if not (finite := np.isfinite(array)).all():
        count = int((~finite).sum())
        raise UserError(f"{file.path}: '{name}' has {count} values that are NaN or infinite")
    return array
