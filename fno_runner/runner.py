"""One run: data, training, inference, stitching, scoring, and its folder of results."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from fno_runner.config import RunConfig
from fno_runner.data import load_dataset
from fno_runner.data.dataset import Dataset
from fno_runner.data.npz import write_npz
from fno_runner.device import (
    allow_tf32,
    check_device,
    check_free_memory,
    machine_failure,
    pick_device,
)
from fno_runner.errors import DivergedError, MachineError, UserError
from fno_runner.files import make_folder
from fno_runner.footprint import memory_need
from fno_runner.identity import run_id
from fno_runner.models import count_parameters
from fno_runner.overlap import Overlap
from fno_runner.pictures import draw_reconstruction
from fno_runner.provenance import peak_memory_bytes, provenance
from fno_runner.reconstruct.weights import weights_of_seed, write_weights
from fno_runner.result import (
    BESIDE,
    BESIDE_COLUMN,
    RECON,
    WEIGHTS,
    ErrorInfo,
    RunResult,
    SeedResult,
    Status,
    write_result,
)
from fno_runner.score.evaluation import Reconstruction, evaluate
from fno_runner.score.floors import floors
from fno_runner.score.flops import flops_per_pattern
from fno_runner.train.checkpoint import held_checkpoints
from fno_runner.train.compiled import COMPILED
from fno_runner.train.training import OnEpoch, OnStep, StopAsked, Trained, never, train
from fno_runner.working_folder import working_folder

log = logging.getLogger("fno_runner")

MIN_FREE_BYTES = 512 * 2**20
"""Free space that the study's disk must have before a run begins. The largest network of sweep.yaml
leaves 324 MiB of weights."""


@dataclass(frozen=True)
class Outcome:
    """A run's record, and the folder that holds it."""

    result: RunResult
    folder: Path


def preflight(config: RunConfig) -> Dataset:
    """Find out whether this machine and this input can do the run, before it is spent.

    Returns:
        the data, for `run`.

    Raises:
        UserError: input that cannot be used; nothing was written.
        MachineError: no such device, or it is busy or broken, or has too little memory free; the
            disk is full or refuses.
    """
    device = pick_device(config.device)
    check_device(device)
    folder = make_folder(Path(config.output_dir))
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise MachineError(
            f"{folder}: {free / 2**20:.0f} MiB free; a run needs {MIN_FREE_BYTES / 2**20:.0f} MiB"
        )
    dataset = load_dataset(config)
    on_device = dataset.train.amplitude.nbytes
    # Of several networks at once fewer train at once where memory asks for it.
    alone = config.of_size(dataset.test.size).model_copy(update={"replicates": 1})
    check_free_memory(device, lambda: memory_need(alone, on_device))
    return dataset


def run(
    config: RunConfig,
    dataset: Dataset | None = None,
    *,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    stop_asked: StopAsked = never,
) -> Outcome:
    """Run one configuration and leave `output_dir`/runs/<run_id> behind.

    Whatever goes wrong with the point itself (an exception, a loss that is not finite, a collapse)
    is the outcome's status and error; the folder is there all the same. A result that was there
    already is moved to `output_dir`/superseded, never lost.

    Args:
        dataset: what `preflight` found; by default it is called here.
        stop_asked: asked after every step: the training ends there, on purpose, and what it has
            reached is scored and recorded as `stopped`.

    Raises:
        UserError: input that cannot be used; nothing was written.
        MachineError: no such device, or it fails; the disk refuses.
    """
    device = pick_device(config.device)
    start = perf_counter()
    with _machine_failures_told(device):
        allow_tf32(config.precision == "tf32")
        if dataset is None:
            dataset = preflight(config)
        else:
            start -= dataset.loading_s  # by `preflight`, for this run
        config = config.of_size(dataset.test.size)
        identifier = run_id(config)
        output_dir = Path(config.output_dir)
        result = RunResult(
            run_id=identifier,
            status="failed",
            config=config.model_dump(),
            provenance={**provenance(device), "dataset": dataset.fingerprint},
        )
        if dataset.validation is not None:
            result.provenance["validation_object"] = dataset.validation.fingerprint
        if dataset.counts_held is not None:
            result.provenance["counts_held"] = dataset.counts_held
        result.provenance["train_patterns_used"] = _patterns_used(config, dataset)
        with (
            working_folder(output_dir, identifier) as (folder, publish),
            held_checkpoints(output_dir, identifier, dataset.fingerprint) as checkpoints,
        ):
            where = result.provenance["device_name"]
            log.info("run %s on %s: %s", identifier, where, _title(config))
            if checkpoints is not None:
                _say_what_others_left(checkpoints.folder, device)
            with _recorded(result, device):
                # First, so that a run that fails in training has them as well.
                result.metrics_against = dataset.reference_kind
                result.floors = floors(dataset, Path(config.data_dir), device)
                trained = train(
                    config,
                    dataset,
                    device,
                    on_step=on_step,
                    on_epoch=on_epoch,
                    stop_asked=stop_asked,
                    checkpoints=checkpoints,
                    cache=output_dir / COMPILED,
                )
                _evaluate(config, dataset, device, trained, result, folder)
            result.timing |= {
                "data_time_s": dataset.loading_s,
                "total_time_s": perf_counter() - start,
                "peak_memory_bytes": peak_memory_bytes(device),
            }
            write_result(result, folder)
            log.info("run %s %s", identifier, result.status)
            outcome = Outcome(result, publish())
            if checkpoints is not None and result.status != "failed":
                checkpoints.remove()
            return outcome


def _patterns_used(config: RunConfig, dataset: Dataset) -> int:
    """How many patterns are trained on and validated with; says so where there are too few."""
    asked, there = config.train_patterns, len(dataset.train)
    if asked is not None and asked > there:
        log.warning("train_patterns=%d: the data have %d, and all are used", asked, there)
    return there if asked is None else min(asked, there)


def _say_what_others_left(checkpoints: Path, device: torch.device) -> None:
    """Name a checkpoint that this kind of device cannot go on from: it computes otherwise."""
    others = {path.name.split("-")[0] for path in checkpoints.glob("*-seed-*.safetensors")}
    if others and device.type not in others:
        log.warning(
            "half of this run was trained on %s, from which %s cannot go on: training starts over",
            " and ".join(sorted(others)),
            device.type,
        )


@contextmanager
def _machine_failures_told(device: torch.device) -> Iterator[None]:
    """Make an error that is this machine's and not the point's a MachineError."""
    try:
        yield
    except Exception as error:
        if reason := machine_failure(error, device):
            raise MachineError(reason) from error
        raise


@contextmanager
def _recorded(result: RunResult | SeedResult, device: torch.device) -> Iterator[None]:
    """Make what goes wrong with the point itself the result's status and error."""
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except DivergedError as error:
        result.status, result.error = "diverged", ErrorInfo.of(error)
    except Exception as error:
        if machine_failure(error, device):
            raise
        result.status, result.error = "failed", ErrorInfo.of(error)
        log.exception("the run failed")


def _evaluate(
    config: RunConfig,
    dataset: Dataset,
    device: torch.device,
    trained: list[Trained],
    result: RunResult,
    folder: Path,
) -> None:
    """Everything after training; fills `result` and `folder`.

    Inference time, weights and picture are those of the first seed that finished; if none has, of
    the first that collapsed; if none has either, of the first that was stopped, whose inference is
    not timed: whoever stopped it waits, and it is in no front.
    """
    result.model_params = count_parameters(trained[0].model)
    seconds = [network.train_time_s for network in trained]
    rates = [network.patterns_per_s for network in trained]
    result.timing = {
        "flops_per_pattern": flops_per_pattern(trained[0].model, dataset.test.probe),
        "train_time_s": sum(seconds),
        "patterns_per_s": float(np.average(rates, weights=seconds)) if any(seconds) else 0.0,
    }
    if resumed := sum(network.resumed for network in trained):
        result.provenance["resumed_epochs"] = resumed
    if stopped := [network.stopped for network in trained if network.stopped is not None]:
        result.provenance["stopped_epoch"] = round(stopped[0], 3)
    if trained[0].captured is not None:
        result.provenance["captured"] = all(network.captured for network in trained)
    if trained[0].compiled is not None:
        result.provenance["compiled"] = all(network.compiled for network in trained)
    if len(trained) > 1:
        result.timing["train_time_per_seed_s"] = sum(seconds) / len(seconds)
        result.timing["seeds_at_once"] = min(network.at_once for network in trained)
    seeds: list[SeedResult] = []
    first: dict[Status, Reconstruction] = {}
    for replica, network in zip(config.replicas(), trained, strict=True):
        seed = SeedResult(seed=replica.seed, status="failed", history=network.history)
        seeds.append(seed)
        with _recorded(seed, device):
            if network.stopped is not None:
                reached = f"stopped after {network.stopped:.4g} of {config.epochs} epochs"
                seed.status, seed.error = "stopped", ErrorInfo(type="Stopped", message=reached)
                if not network.history:
                    continue
            timed = "finished" not in first and network.stopped is None
            overlap = Overlap(config.overlap_passes, device) if config.overlap_passes else None
            # First, so that no failure of what follows loses the network.
            write_weights(folder / weights_of_seed(replica.seed), network.model, network.scale)
            reconstruction = evaluate(
                replica, dataset, device, network, seed, timed=timed, overlap=overlap
            )
            first.setdefault(seed.status, reconstruction)
        if seed.status == "diverged":
            (folder / weights_of_seed(replica.seed)).unlink(missing_ok=True)
        if len(trained) > 1:
            log.info("seed %d %s", replica.seed, seed.status)
    result.conclude(seeds)
    shown = first.get("finished") or first.get("collapsed") or first.get("stopped")
    if shown is not None:
        _leave_reconstruction(shown, dataset, result, folder)


def _leave_reconstruction(
    shown: Reconstruction, dataset: Dataset, result: RunResult, folder: Path
) -> None:
    """Enter a seed's times in the record, and leave its network, its objects and their picture."""
    result.inference_time_s = shown.timing.get("inference_time_s")
    result.timing |= shown.timing
    if shown.timing and (others := os.environ.get(BESIDE, "")).isdecimal() and int(others):
        result.timing[BESIDE_COLUMN] = int(others)
    (folder / weights_of_seed(shown.config.seed)).rename(folder / WEIGHTS)
    # The probe, because a network that sees amplitudes only is good for this one.
    arrays = {"object": shown.objects, "mask": shown.mask, "probe": dataset.train.probe}
    if dataset.reference is not None:
        arrays["reference"] = dataset.reference
    write_npz(folder / RECON, arrays)
    draw_reconstruction(
        folder / "recon.png",
        _title(shown.config),
        shown.objects[0],
        shown.mask[0],
        None if dataset.reference is None else dataset.reference[0],
        dataset.reference_kind,
        shown.curves,
    )


def _title(config: RunConfig) -> str:
    return (
        f"{config.architecture}, {config.input_transform}, {config.conditioning}, "
        f"modes {config.modes}, width {config.width}, seed {config.seed}"
    )
