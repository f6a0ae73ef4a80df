"""Diffraction patterns: simulated grid lines, experimental scans, their files and their cache."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter

from fno_runner.config import N, RunConfig
from fno_runner.data.cache import load_simulated
from fno_runner.data.contents import state_of
from fno_runner.data.dataset import Dataset
from fno_runner.data.formats import size_of_scan
from fno_runner.data.npz_pair import load_npz_pair
from fno_runner.data.scan import load_scan
from fno_runner.data.source import Hints

NOT_OF_DATA = {
    *("architecture", "input_transform", "conditioning", "modes", "width", "blocks", "cnn_blocks"),
    *("epochs", "batch_size", "learning_rate", "rate_scaling", "grad_clip", "loss", "seed"),
    *("replicates", "train_patterns", "precision", "infer_batch_size", "overlap_passes", "device"),
    "output_dir",
}
"""The keys that leave the data as they are. A new key counts as one that does not."""


def load_dataset(config: RunConfig) -> Dataset:
    """The data that a configuration asks for: its scan, its NPZ files, or simulated grid lines.

    Raises:
        UserError: a given file cannot be used.
        MachineError: the cache cannot be written.
    """
    start = perf_counter()
    dataset = _load(config)
    return replace(dataset, loading_s=perf_counter() - start)


def _load(config: RunConfig) -> Dataset:
    if config.scan is not None:
        return load_scan(
            Path(config.scan), config.data_seed, config.patch_size, config.bin, Hints.of(config)
        )
    if config.train_npz is not None and config.test_npz is not None:
        validation = None if config.val_npz is None else Path(config.val_npz)
        return load_npz_pair(
            Path(config.train_npz), Path(config.test_npz), validation, config.patch_size
        )
    return load_simulated(config.of_size(patch_size_of(config)))


def patch_size_of(config: RunConfig) -> int:
    """N of simulated data or of a scan [px]: as configured, else 64, or what suits the scan.

    A scan of more than 64 px has to be read for that, once in a process.

    Raises:
        UserError: the scan cannot be used.
    """
    if config.patch_size is not None or config.scan_file is None:
        return config.patch_size or N
    path = Path(config.scan_file)
    return _chosen(path, Hints.of(config), config.bin, state_of(path))


@lru_cache(maxsize=64)
def _chosen(path: Path, hints: Hints, binning: int, state: tuple[int, ...]) -> int:
    """`size_of_scan`, remembered as long as the file is the same."""
    return size_of_scan(path, hints, binning)
