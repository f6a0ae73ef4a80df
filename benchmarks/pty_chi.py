"""pty-chi, which a user would take instead of our fit, with its conventions matched.

An optional dependency, PyPI's `ptychi`. It imports torchvision for one filter that is not used
here, and does without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import warnings
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
import torch

from fno_runner.data.frames import Scan
from fno_runner.scan.iterative import Fit

KNOWN = "2.2"
"""The version that this file was written for."""


def missing() -> str | None:
    """Why it cannot be run; None where it can."""
    try:
        there = version("ptychi")
    except PackageNotFoundError:
        return "pty-chi is left out: PyPI's ptychi is not installed"
    if not there.startswith(KNOWN):
        return f"pty-chi is left out: {there} is installed, this was written for {KNOWN}"
    return None


def fit(
    scan: Scan,
    algorithm: str,
    epochs: int,
    *,
    batch: int = 100,
    step_size: float = 1.0,
    momentum: float | None = None,
    device: torch.device | None = None,
) -> Fit:
    """An object by pty-chi's `LSQML` or `EPIE`, from vacuum, the scan's probe held.

    momentum: the gain of LSQML's acceleration, with batches of neighbours (`COMPACT`), which it is
        meant for; None: neither.
    """
    start = perf_counter()
    device = device or torch.device("cpu")
    try:
        task = task_of(scan, algorithm, epochs, batch, step_size, device, momentum)
        task.run()
        obj = task.get_data_to_cpu("object", as_numpy=True)[0].astype(np.complex64)
        probe = task.get_data_to_cpu("probe", as_numpy=True)[0].astype(np.complex64) * scan.size
    finally:
        torch.set_default_device(None)  # it sets one, which slows every later call of PyTorch
    return Fit(obj, probe, scan.positions, perf_counter() - start, ())


def task_of(
    scan: Scan,
    algorithm: str,
    epochs: int,
    batch: int,
    step_size: float,
    device: torch.device,
    momentum: float | None = None,
) -> Any:
    """Its task, not run yet; the object is the scan's reference, or vacuum where it has none.

    Its transforms are unnormalised, so its probe is ours / N. Its positions are of a patch's
    centre, half a pixel before the pixel N/2 that ours name. It moves the first mode only.
    """
    assert scan.probe is not None and len(scan.probe) == 1, "one mode"
    api, task_module = _imported()
    options = getattr(api, f"{algorithm}Options")()
    specified = api.ObjectPosOriginCoordsMethods.SPECIFIED
    options.object_options.determine_position_origin_coords_by = specified
    options.object_options.position_origin_coords = np.array([-0.5, -0.5])
    options.object_options.remove_object_probe_ambiguity.enabled = False
    options.object_options.step_size = step_size
    options.probe_options.optimizable = False
    reconstructor = options.reconstructor_options
    reconstructor.num_epochs, reconstructor.batch_size = epochs, batch
    reconstructor.random_seed = 0
    if momentum is not None:
        reconstructor.batching_mode = api.BatchingModes.COMPACT
        reconstructor.momentum_acceleration_gain = momentum
    reconstructor.default_device = api.Devices.GPU if device.type == "cuda" else api.Devices.CPU
    obj = np.ones(scan.shape, np.complex64) if scan.reference is None else scan.reference
    return task_module.PtychographyTask(
        options,
        diffraction_data=np.square(scan.amplitude),
        object_data=obj[None],
        probe_data=scan.probe[None] / np.float32(scan.size),
        probe_position_x_px=scan.positions[:, 1],
        probe_position_y_px=scan.positions[:, 0],
        valid_pixel_mask=scan.mask,
    )


def _imported() -> tuple[Any, Any]:
    """`ptychi.api` and `ptychi.api.task`; what stands in for torchvision is gone afterwards.

    Torchmetrics would take it for the real one.
    """
    stand_in: dict[str, ModuleType] = {}
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        filters = ModuleType("torchvision.transforms")
        filters.GaussianBlur = None  # type: ignore[attr-defined]
        for module in (ModuleType("torchvision"), filters):
            module.__spec__ = ModuleSpec(module.__name__, None)
            stand_in[module.__name__] = module
    sys.modules.update(stand_in)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("ptychi").setLevel(logging.ERROR)
            return importlib.import_module("ptychi.api"), importlib.import_module("ptychi.api.task")
    finally:
        for name in stand_in:
            del sys.modules[name]
