"""Diffraction patterns: simulated grid lines, experimental scans, their files and their cache."""

from __future__ import annotations

from pathlib import Path

from fno_runner.config import RunConfig
from fno_runner.data.cache import load_simulated
from fno_runner.data.dataset import Dataset, load_npz_pair
from fno_runner.data.scan import load_scan


def load_dataset(config: RunConfig) -> Dataset:
    """The data that a configuration asks for: its scan, its NPZ files, or simulated grid lines.

    Raises:
        UserError: a given file cannot be used.
        MachineError: the cache cannot be written.
    """
    if config.scan is not None:
        return load_scan(Path(config.scan), config.data_seed)
    if config.train_npz is not None and config.test_npz is not None:
        validation = None if config.val_npz is None else Path(config.val_npz)
        return load_npz_pair(Path(config.train_npz), Path(config.test_npz), validation)
    return load_simulated(config)
