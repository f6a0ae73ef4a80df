"""A trained network, found in a run's folder, in a study's folder, or where it was exported to."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex64
from pydantic_core import from_json

from fno_runner.config import RunConfig
from fno_runner.data.contents import readable
from fno_runner.data.npz import array_names, read_array
from fno_runner.data.probe import zone_plate_probe
from fno_runner.errors import UnbelievableError, UserError
from fno_runner.reconstruct.weights import load_weights, weights_of_seed
from fno_runner.reconstructor import Reconstructor
from fno_runner.result import RECON, RECORD, WEIGHTS, RunResult, read_result, run_folder

log = logging.getLogger("fno_runner")

RECOMMENDATION = "recommendation.json"
"""What `python -m agent.export` leaves in a study's folder."""
KNOWN_RECOMMENDATIONS = (1, 2)
MAX_RECOMMENDATION = 64 * 2**20
"""A larger one is refused unread [bytes]."""
RUN_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class TrainedModel:
    """A trained network and what its run says of it.

    record: of the seed alone, so that its metrics are this network's.
    weights: the file that holds it.
    """

    record: RunResult
    config: RunConfig
    weights: Path

    @property
    def name(self) -> str:
        """'run 0123456789ab, seed 0'."""
        return f"run {self.record.run_id}, seed {self.config.seed}"

    def load(
        self, device: torch.device, mask: Bool[torch.Tensor, "n n"] | None = None
    ) -> Reconstructor:
        """The network on a device, for patterns of a detector with this mask.

        Raises:
            UserError: the weights are missing, torn, or of another configuration.
        """
        model = Reconstructor(self.config, subpixel=True, mask=mask)
        load_weights(self.weights, model)
        return model.to(device)

    def training_probe(self) -> Complex64[np.ndarray, "m n n"] | None:
        """The probe that it was trained with; None where its run does not say.

        Runs of version 0.1 kept none; that of simulated data follows from the configuration.

        Raises:
            UserError: what the run kept cannot be read.
        """
        path = self.weights.with_name(RECON)
        if path.is_file() and "probe" in array_names(path):
            probe = read_array(path, "probe").astype(np.complex64)
            if probe.ndim not in (2, 3) or not np.isfinite(probe).all() or not probe.any():
                raise UserError(f"{path}: 'probe' is {probe.dtype} {probe.shape}, no probe")
            return probe if probe.ndim == 3 else probe[None]
        if self.config.is_simulated and self.config.probe_file is None:
            return zone_plate_probe(self.config)[None]
        return None


def find_model(path: Path) -> TrainedModel:
    """The network of a run's folder, of an exported model's, or the recommended one of a study's.

    Of several seeds, and of the recommended configuration's several runs, it is the one that is
    best on validation: by `fitness`.

    Raises:
        UserError: there is none, or it cannot be told which; says what to do.
    """
    if path.is_file():
        raise UserError(f"{path}: a file; give the folder that it lies in, {path.parent}")
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    if (path / RECORD).is_file():
        candidates = list(_networks(path))
        if not candidates:
            status = _record(path).status
            raise UserError(f"{path}: the run has {status}; only a finished one has a network")
    elif (path / "runs").is_dir():
        candidates = _recommended(path)
    else:
        raise UserError(
            f"{path}: neither a run's folder or an exported model ({RECORD}) nor a study's (runs/)"
        )
    return max(candidates, key=lambda model: fitness(model.record))


def fitness(record: RunResult) -> tuple[int, float]:
    """How well a seed did where it was not trained; the larger is the better.

    In this order, whichever there is: the validation object's phase SSIM; of a scan, R of held-out
    frames as the object predicts them, or by their own answers; the lowest validation loss.
    """
    _, ssim = record.validation.get("ssim", (None, None))
    if ssim is not None:
        return 3, ssim
    r_factor = record.metrics.scan.get("r_factor", {})
    for name, order in (("held_out_from_object", 2), ("held_out", 1)):
        if (r := r_factor.get(name)) is not None:
            return order, -r
    losses = [epoch.get("val_loss") for epoch in record.history]
    return 0, -min((loss for loss in losses if loss is not None), default=math.inf)


def _networks(folder: Path) -> Iterator[TrainedModel]:
    """The networks of a run that finished, with the record of each seed alone."""
    record = _record(folder)
    if record.status != "finished":
        return
    seeds = record.by_seed()
    # The first seed that finished is the run's own; the others have a file each.
    finished = [seed for seed in seeds if seed.status == "finished"]
    for place, seed in enumerate(finished):
        config = seed.run_config.model_copy(update={"replicates": 1})
        name = WEIGHTS if place == 0 else weights_of_seed(config.seed)
        yield TrainedModel(seed, config, folder / name)


def _record(folder: Path) -> RunResult:
    path = folder / RECORD
    try:
        with readable(path):
            return read_result(path)
    except UnbelievableError as error:
        raise UserError(f"{path}: {error}") from error


def _recommended(study: Path) -> list[TrainedModel]:
    """The networks of a study's recommended configuration.

    Raises:
        UserError: nothing is recommended, or there are several recommendations.
    """
    path = study / RECOMMENDATION
    again = f"python -m agent.export {study} makes it"
    if not path.is_file():
        raise UserError(f"{study}: has no {RECOMMENDATION}; {again}")
    try:
        series = _recommendations(read_json(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is no recommendation of this program ({error}); {again}"
        ) from None
    if not series:
        raise UserError(f"{study}: no finished run to recommend")
    if len(series) > 1:
        each = "; ".join(f"{name}: {run_folder(study, runs[0])}" for name, runs in series.items())
        raise UserError(
            f"{study}: recommends a configuration for each of {len(series)} series of runs that "
            f"are not compared; give the folder of a run: {each}"
        )
    ((_, run_ids),) = series.items()
    newest = max((record.stat().st_mtime for record in study.glob(f"runs/*/{RECORD}")), default=0.0)
    if newest > path.stat().st_mtime:
        log.warning("%s: is older than the newest run; %s", path, again.replace("makes", "renews"))
    networks = [
        network
        for run_id in run_ids
        if (run_folder(study, run_id) / RECORD).is_file()
        for network in _networks(run_folder(study, run_id))
        if network.weights.is_file()
    ]
    if not networks:
        raise UserError(
            f"{study}: no run of the recommended configuration ({', '.join(run_ids)}) has its "
            f"weights here"
        )
    return networks


def read_json(path: Path) -> Any:
    """What a JSON file of this program holds.

    Raises:
        OSError, ValueError: it cannot be read, is too large, or is no JSON.
    """
    if path.stat().st_size > MAX_RECOMMENDATION:
        raise ValueError(f"{path} is too large")
    return from_json(path.read_bytes())


def _recommendations(content: Any) -> dict[str, list[str]]:
    """A series' name -> the run_ids of its recommended configuration.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is something else.
    """
    if content["schema_version"] not in KNOWN_RECOMMENDATIONS:
        raise ValueError(f"schema_version is {content['schema_version']!r}")
    recommended = {}
    for series in content["series"]:
        if (chosen := series["recommended"]) is not None:
            run_ids = [str(run_id) for run_id in chosen["run_ids"]]
            if not run_ids or not all(map(RUN_ID.fullmatch, run_ids)):
                raise ValueError("run_ids are no names of runs")
            recommended[str(series["name"]) or "all"] = run_ids
    return recommended
