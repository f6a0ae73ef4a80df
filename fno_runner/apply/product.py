"""An object with all that belongs to it: what the files of a reconstruction are written from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Float32

from fno_runner.apply.prepared import Prepared
from fno_runner.data.frames import Outline, Scan
from fno_runner.data.scan import patterns_of
from fno_runner.provenance import provenance
from fno_runner.reconstruct.stitching import covered, lights
from fno_runner.scan.iterative import Fit


@dataclass(frozen=True)
class Product:
    """A reconstruction.

    obj: complex64 (H, W). seen: where it is known. weight: the light that a pixel had.
    scan: of what, with the probe and the positions that belong to `obj`.
    record: what there is to say in words and numbers, for reconstruction.json.
    """

    obj: Complex64[np.ndarray, "h w"]
    seen: Bool[np.ndarray, "h w"]
    weight: Float32[np.ndarray, "h w"]
    scan: Outline
    title: str
    record: dict[str, Any]

    @classmethod
    def of_fit(cls, fit: Fit, scan: Scan, title: str, record: dict[str, Any]) -> Product:
        """What a fit to a scan came to, and the light of its probe at its positions."""
        fitted = fit.fitted(scan)
        patterns, weight = patterns_of(fitted), np.zeros(fit.obj.shape, np.float32)
        for light, window in lights(patterns.positions, patterns.probe):
            weight[window] += light
        return cls(fit.obj, covered(weight), weight, fitted, title, record)

    @property
    def probe(self) -> Complex64[np.ndarray, "m n n"]:
        """Modes, so that |far field of probe · object| is the amplitude."""
        assert self.scan.probe is not None
        return self.scan.probe


def record_of(prepared: Prepared, **told: Any) -> dict[str, Any]:
    """What reconstruction.json says of network, scan and machine, and what is `told`."""
    model = prepared.model
    network = {
        "run_id": model.record.run_id,
        "config": model.record.config,
        "trained_on": model.record.provenance.get("dataset"),
    }
    return record_of_scan(
        prepared.stream.scan,
        prepared.device,
        network=network,
        probes_alike=prepared.likeness,
        input_scale_factor=prepared.scale,
        **told,
    )


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record_of_scan(
    scan: Outline, device: torch.device, *, command: str, **told: Any
) -> dict[str, Any]:
    """What reconstruction.json says of scan and machine, and what is `told`.

    Args:
        command: the line that made it.
    """
    try:
        installed = version("fno-study")
    except PackageNotFoundError:  # a checkout that is run as it lies
        installed = "(not installed)"
    return {
        "program": f"fno-study {installed}",
        "command": command,
        "written": now(),
        "scan": {"source": scan.source, "frames": len(scan)},
        **told,
        "provenance": provenance(device),
    }
