"""The simulated dataset on disk: made once, reused while its parameters are the same."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from fno_runner.config import PROBE, RunConfig
from fno_runner.data.beam import beam_of
from fno_runner.data.dataset import Dataset
from fno_runner.data.formats import fingerprint_scan
from fno_runner.data.gridlines import GENERATOR_VERSION, Split, simulate
from fno_runner.data.npz import array_names, fingerprint, read_array, write_npz
from fno_runner.data.npz_pair import load_npz_pair
from fno_runner.data.source import Hints
from fno_runner.errors import Kind, UserError
from fno_runner.files import make_folder, set_aside, write_text_atomically

log = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = get_args(Split)
PARAMETERS = ("nimgs_train", "nimgs_test", "nphotons", "data_seed", *PROBE)
"""The keys of a configuration that decide what is simulated."""


def load_simulated(config: RunConfig) -> Dataset:
    """Simulated data from `data_dir`/N64/gs1, made there when missing, damaged or of other
    parameters; from N64/scan those under the probe of a scan.

    Every N has a folder of its own, and keeps what is there while another N is made.

    The lock is held while the files are read too: another process with other parameters may
    replace them at any other moment.
    """
    folder = make_folder(
        Path(config.data_dir) / f"N{config.size}" / ("scan" if config.probe_file else "gs1")
    )
    load = partial(load_npz_pair, size=config.size, freeform=config.probe_file is not None)
    train, test, validation = files = [folder / f"{split}.npz" for split in SPLITS]
    with FileLock(folder / ".lock"):
        manifest = _read_manifest(folder)
        if manifest is not None and manifest.parameters == _parameters(config):
            try:
                if manifest.content == _content(folder):
                    return load(train, test, validation)
            except UserError:
                pass  # which of them, and how, is found out now
            for split, path in zip(SPLITS, files, strict=True):
                _set_aside_if_damaged(path, manifest.content[split])
        _make(folder, config)
        return load(train, test, validation)


def _parameters(config: RunConfig) -> dict[str, Any]:
    parameters: dict[str, Any] = {"generator_version": GENERATOR_VERSION}
    parameters |= {key: getattr(config, key) for key in PARAMETERS}
    # What version 0.1 did not know counts where it is not the default: its files stay believed.
    if config.nimgs_val != 1:
        parameters["nimgs_val"] = config.nimgs_val
    if not config.is_grid_lines:
        parameters["objects"] = config.objects
    if config.probe_file is not None:
        parameters["probe_file"] = fingerprint_scan(Path(config.probe_file), Hints.of(config))
        parameters |= {key: getattr(config, key) for key in ("bin", "scan_data", "scan_entry")}
    return parameters


class _Manifest(BaseModel):
    """What the files of the cache are: the parameters they were made with, their fingerprints."""

    model_config = ConfigDict(extra="forbid", strict=True)

    parameters: dict[str, float | int | str | None]
    content: dict[Split, str]


def _read_manifest(folder: Path) -> _Manifest | None:
    """The cache's manifest; None where there is none, or none that is believed."""
    path = folder / "manifest.json"
    try:
        content = path.read_bytes()
        manifest = _Manifest.model_validate_json(content)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        torn = error.errors()[0]["type"] == "json_invalid"
        kind: Kind = "empty" if not content.strip() else "torn" if torn else "foreign"
        _report(path, kind, "not a manifest")
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    # One that was made before there was a validation object names fewer files.
    return manifest if len(manifest.content) == len(SPLITS) else None


def _set_aside_if_damaged(path: Path, expected: str) -> None:
    """Keep a file of the cache aside that is not what the manifest says, or cannot be read."""
    if not path.exists():
        return
    try:
        if path.stat().st_size == 0:
            _report(path, "empty", "empty")
        elif fingerprint(path) != expected:
            _report(path, "foreign", "not the file that was made here")
        else:
            for name in array_names(path):
                read_array(path, name)
    except UserError as error:
        _report(path, "torn", str(error))


def _report(path: Path, kind: Kind, reason: str) -> None:
    aside = set_aside(path, kind)
    log.warning("%s: %s; it is made again, and kept as %s", path, reason, aside.name)


def _content(folder: Path) -> dict[str, str]:
    return {split: fingerprint(folder / f"{split}.npz") for split in SPLITS}


def _make(folder: Path, config: RunConfig) -> None:
    start = perf_counter()
    # Without a manifest nobody believes the files, whenever this process should die.
    (folder / "manifest.json").unlink(missing_ok=True)
    with ThreadPoolExecutor() as pool:
        files, beam = [folder / f"{split}.npz" for split in SPLITS], beam_of(config)
        arrays = (simulate(config, split, beam=beam) for split in SPLITS)
        list(pool.map(write_npz, files, arrays))
    manifest = {"parameters": _parameters(config), "content": _content(folder)}
    write_text_atomically(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    what = "grid lines" if config.is_grid_lines else config.objects
    log.info("simulated %s in %.1f s: %s", what, perf_counter() - start, folder)
