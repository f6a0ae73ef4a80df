"""Training without labels that goes on, on the frames of another scan."""

from __future__ import annotations

import hashlib
import logging
import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch

from fno_runner.apply.prepared import Prepared
from fno_runner.batches import Inputs
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Patterns
from fno_runner.data.npz import write_npz
from fno_runner.data.scan import hold_out, patterns_of, probe_of
from fno_runner.data.source import Hints
from fno_runner.errors import DivergedError
from fno_runner.files import make_folder
from fno_runner.physics import LOSSES
from fno_runner.provenance import Provenance, provenance
from fno_runner.reconstruct.inference import predict, predicted_amplitude
from fno_runner.reconstruct.weights import write_weights
from fno_runner.reconstructor import Reconstructor
from fno_runner.result import RECON, WEIGHTS, Metrics, RunResult, write_result
from fno_runner.score.metrics import r_factor
from fno_runner.train.adam import PlainAdam
from fno_runner.train.rates import names_of_shares
from fno_runner.train.schedule import one_cycle

log = logging.getLogger("fno_runner")

GENTLER = 0.3
"""Of the training's highest learning rate: the network is near already."""
Layers = Literal["all", "last"]
LAST = ("mix", "refine", "head")
"""The layers after the Fourier blocks."""
OF_OTHER_DATA = {"train_npz", "test_npz", "val_npz", "probe_file", "objects"}
"""Keys that a configuration with a scan leaves at their default."""


@dataclass(frozen=True)
class Adapted:
    """A network and how it came from another one.

    layers: which ones were trained.
    r: of the held-out frames' own answers, before, and after each epoch. best: which of them the
        network is of; 0 is the one it began as. seconds: since the beginning, after each of them.
    made: by what code, where and when.
    """

    network: Reconstructor
    layers: Layers
    r: tuple[float, ...]
    seconds: tuple[float, ...]
    made: Provenance

    @property
    def best(self) -> int:
        return int(np.argmin(self.r))


def adapt(prepared: Prepared, epochs: int, layers: Layers = "all") -> Adapted:
    """Train a network on, on a scan's frames, and keep what is best on those held out.

    A tenth of the frames, here and there, and 5 % in one place are not trained on, as in a run of
    the same `data_seed`. They choose between the epochs, the network as it was among them.

    Raises:
        DivergedError: a loss is no longer a finite number.
    """
    rate = GENTLER * prepared.model.config.learning_rate
    return _train(deepcopy(prepared.network), layers, prepared, epochs, rate)


def train_from_nothing(prepared: Prepared) -> Adapted:
    """The same with new weights, by the run's own epochs and rate, to compare with."""
    config = prepared.model.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        mask = prepared.network.mask
        network = Reconstructor(config, subpixel=True, mask=mask).to(prepared.device)
    return _train(network, "all", prepared, config.epochs, config.learning_rate)


def _train(
    network: Reconstructor, layers: Layers, prepared: Prepared, epochs: int, rate: float
) -> Adapted:
    config, device = prepared.model.config, prepared.device
    patterns = patterns_of(prepared.stream.whole)
    held_out, region = hold_out(prepared.stream.scan.positions, config.data_seed)
    held = patterns.take(held_out | region)
    inputs = Inputs.of(patterns.take(~(held_out | region)), prepared.scale, device)
    count = len(inputs.x)
    loss_of = LOSSES[config.loss]
    for name, layer in network.network.named_children():
        layer.requires_grad_(layers == "all" or name in LAST)
    of_shares = {
        share: [weight for weight in map(network.get_parameter, names) if weight.requires_grad]
        for share, names in names_of_shares(network, config).items()
    }
    weights = [weight for some in of_shares.values() for weight in some]
    optimiser = PlainAdam([{"params": some} for some in of_shares.values()], rate)
    done, steps = 0, math.ceil(count / config.batch_size) * epochs
    shuffle = torch.Generator().manual_seed(config.seed)
    made, start = provenance(device), perf_counter()
    r, seconds = [_misfit(network, held, prepared)], [0.0]
    best = deepcopy(network.state_dict())
    for epoch in range(1, epochs + 1):
        network.train()
        # Sent at once: a copy a step would wait for the device.
        order = torch.randperm(count, generator=shuffle).to(device)
        for rows in order.split(config.batch_size):
            batch = inputs.batch(rows)
            loss = loss_of(network(*batch), batch[0])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, config.grad_clip)
            for group, share in zip(optimiser.param_groups, of_shares, strict=True):
                group["lr"] = share * one_cycle(rate, done, steps)
            optimiser.step()
            done += 1
        if not math.isfinite(float(loss.detach())):
            raise DivergedError(f"epoch {epoch}: the loss is {float(loss.detach())}")
        r.append(_misfit(network, held, prepared))
        seconds.append(perf_counter() - start)
        if r[-1] < min(r[:-1]):
            best = deepcopy(network.state_dict())
        log.info("epoch %d: R of held-out frames %.4f", epoch, r[-1])
    network.load_state_dict(best)
    return Adapted(network.requires_grad_(True), layers, tuple(r), tuple(seconds), made)


def _misfit(network: Reconstructor, patterns: Patterns, prepared: Prepared) -> float:
    """R of a network's own answers."""
    size = prepared.infer_batch_size
    patches = predict(network, patterns, prepared.scale, prepared.device, size)
    return r_factor(predicted_amplitude(patches, patterns, size), patterns.amplitude)


def write_adapted(
    adapted: Adapted,
    prepared: Prepared,
    scan: Path,
    hints: Hints,
    fingerprint: str,
    folder: Path,
) -> None:
    """Leave the adapted network where `find_model` finds it.

    Args:
        folder: is made; it gets weights, record and the scan's probe.

    Raises:
        MachineError: the disk refuses.
    """
    make_folder(folder)
    before = prepared.model.record
    epochs = len(adapted.r) - 1
    named = f"{before.run_id} {fingerprint} {epochs} {adapted.layers}"
    config = RunConfig.model_validate(
        prepared.model.config.model_dump(exclude=OF_OTHER_DATA)
        | {"scan": str(scan.resolve()), "scan_data": hints.data, "scan_entry": hints.entry,
           "epochs": epochs, "patch_size": prepared.model.config.size,
           "bin": prepared.stream.scan.crop.binning}
    )  # fmt: skip
    record = RunResult(
        run_id=hashlib.sha256(named.encode()).hexdigest()[:12],
        status="finished",
        config=config.model_dump(),
        metrics=Metrics(scan={"r_factor": {"held_out": adapted.r[adapted.best]}}),
        model_params=before.model_params,
        history=[{"epoch": epoch, "val_loss": r} for epoch, r in enumerate(adapted.r) if epoch > 0],
        provenance={
            **adapted.made,
            "dataset": fingerprint,
            "adapted_from": before.run_id,
            "adapted_layers": adapted.layers,
        },
    )
    write_weights(folder / WEIGHTS, adapted.network, prepared.scale)
    write_npz(folder / RECON, {"probe": probe_of(prepared.stream.scan)})
    write_result(record, folder)
