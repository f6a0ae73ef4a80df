"""The simulated dataset on disk: made once, reused while its parameters are the same."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from time import perf_counter
from typing import Any

from filelock import FileLock

from fno_runner.config import N, RunConfig
from fno_runner.data.dataset import Dataset, load_npz_pair
from fno_runner.data.gridlines import GENERATOR_VERSION, Split, simulate
from fno_runner.data.npz import fingerprint, write_npz
from fno_runner.data.scan import load_scan
from fno_runner.errors import UserError
from fno_runner.files import make_folder, write_text_atomically

log = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("train", "test")
PARAMETERS = (
    "nimgs_train",
    "nimgs_test",
    "nphotons",
    "data_seed",
    "probe_radius",
    "probe_stop",
    "probe_defocus",
    "probe_astigmatism",
    "probe_coma",
    "probe_curvature",
)
"""The keys of a configuration that decide what is simulated."""


def load_dataset(config: RunConfig) -> Dataset:
    """The data that a configuration asks for: its scan, its NPZ files, or simulated grid lines.

    Raises:
        UserError: a given file cannot be used.
        MachineError: the cache cannot be written.
    """
    if config.scan is not None:
        return load_scan(Path(config.scan), config.data_seed)
    if config.train_npz is not None and config.test_npz is not None:
        return load_npz_pair(Path(config.train_npz), Path(config.test_npz))
    return _load_simulated(config)


def _load_simulated(config: RunConfig) -> Dataset:
    """Grid lines from `data_dir`/N64/gs1, made there when missing, damaged or of other parameters.

    The lock is held while the files are read too: another process with other parameters may
    replace them at any other moment.
    """
    folder = make_folder(Path(config.data_dir) / f"N{N}" / "gs1")
    train, test = (folder / f"{split}.npz" for split in SPLITS)
    with FileLock(folder / ".lock"):
        if _is_current(folder, config):
            try:
                return load_npz_pair(train, test)
            except UserError as error:
                log.warning("the cached dataset is damaged and made again: %s", error)
        _make(folder, config)
        return load_npz_pair(train, test)


def _parameters(config: RunConfig) -> dict[str, Any]:
    return {
        "generator_version": GENERATOR_VERSION,
        **{key: getattr(config, key) for key in PARAMETERS},
    }


def _is_current(folder: Path, config: RunConfig) -> bool:
    """Whether the manifest names these parameters and the files are the ones that it names."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        return bool(
            manifest["parameters"] == _parameters(config)
            and manifest["content"] == _content(folder)
        )
    except (FileNotFoundError, UserError, ValueError, KeyError, TypeError):
        return False


def _content(folder: Path) -> dict[str, str]:
    return {split: fingerprint(folder / f"{split}.npz") for split in SPLITS}


def _make(folder: Path, config: RunConfig) -> None:
    start = perf_counter()
    # Without a manifest nobody believes the files, whenever this process should die.
    (folder / "manifest.json").unlink(missing_ok=True)
    for split in SPLITS:
        write_npz(folder / f"{split}.npz", simulate(config, split))
    manifest = {"parameters": _parameters(config), "content": _content(folder)}
    write_text_atomically(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    log.info("simulated grid lines in %.1f s: %s", perf_counter() - start, folder)
