"""The name of a run: `run_id`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fno_runner.config import IN_NO_RUN_ID, N, RunConfig
from fno_runner.data import patch_size_of
from fno_runner.data.formats import fingerprint_scan
from fno_runner.data.npz import fingerprint
from fno_runner.data.source import Hints

ARRAYS, SCANS = ("train_npz", "test_npz", "val_npz"), ("scan", "probe_file")
"""The keys that name a data file, which counts by its content: of plain arrays, of a scan."""

OF_VERSION_0_1 = {
    "architecture", "input_transform", "conditioning", "modes", "width", "blocks", "cnn_blocks",
    "epochs", "batch_size", "learning_rate", "grad_clip", "loss", "seed", "replicates",
    "train_patterns", "precision", "infer_batch_size", "nimgs_train", "nimgs_test", "nphotons",
    "data_seed", "probe_radius", "probe_stop", "probe_defocus", "probe_astigmatism", "probe_coma",
    "probe_curvature",
}  # fmt: skip
"""The keys whose values always count. Any other key counts only where it is not at its default, so
that a new knob renames no run that was made before it."""


def run_id(config: RunConfig) -> str:
    """The name of a run: the same on every machine for the same configuration and data.

    A hash (12 hex digits) of the configuration without paths, device, and keys newer than version
    0.1 that stand at their default; a data file counts by its content's fingerprint, not by where
    it lies. The size of the patterns counts as it is, whether it was given or found in a scan, but
    for 64 px, which were all that version 0.1 knew; in NPZ files it is part of their content.

    Raises:
        UserError: a data file that the configuration names cannot be read, or a key is out of the
            bounds that the size of its patterns sets.
    """
    decisive = decisive_keys(config)
    decisive.pop("patch_size", None)
    if config.train_npz is None:
        size = patch_size_of(config)
        config = config.of_size(size)
        if size != N:
            decisive["patch_size"] = size
    for key in (*ARRAYS, *SCANS):
        if (path := getattr(config, key)) is not None:
            decisive[key] = (
                fingerprint(Path(path))
                if key in ARRAYS
                else fingerprint_scan(Path(path), Hints.of(config))
            )
    return short_hash(decisive)


def decisive_keys(config: RunConfig) -> dict[str, Any]:
    """The keys that count, with their values: without paths, device, and newer ones at default."""
    return {
        key: value
        for key, value in config.model_dump(exclude=set(IN_NO_RUN_ID)).items()
        if key in OF_VERSION_0_1 or value != type(config).model_fields[key].default
    }


def short_hash(content: object) -> str:
    """12 hex digits of what JSON can hold, in whatever order its keys are."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
