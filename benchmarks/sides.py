"""Who races: the fit without a network, pty-chi, and networks, each with more and more effort."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks import pty_chi
from benchmarks.contest import Contest
from fno_runner.apply.adapt import adapt
from fno_runner.apply.assemble import assemble
from fno_runner.apply.model import TrainedModel
from fno_runner.apply.prepared import Prepared
from fno_runner.apply.stream import Stream
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset, Freeform
from fno_runner.data.frames import Scan
from fno_runner.data.scan import patterns_of
from fno_runner.reconstruct.weights import load_weights, write_weights
from fno_runner.reconstructor import Reconstructor
from fno_runner.result import RunResult
from fno_runner.scan.choice import choose
from fno_runner.scan.iterative import Fit, reconstruct
from fno_runner.train.training import train

PASSES = (2, 3, 4, 5, 10, 20)
LSQML, EPIE = (2, 3, 5, 10, 20), (5, 10, 20, 40)
"""Epochs of pty-chi."""
AFTER = (2, 5, 10)
"""Passes of the fit from a network's object."""
STEPS, BATCH = 400, 16
"""Of a network's training."""

Entry = tuple[str, Callable[[], Fit]]
"""An effort in words, and the work: its `seconds` are what the race counts."""


def network_config(device: torch.device, frames: int, **changes: Any) -> RunConfig:
    """The small `fno` that races, for about `STEPS` steps, but for changes."""
    usual = {
        "width": 16,
        "modes": 12,
        "learning_rate": 5e-3,
        "batch_size": BATCH,
        "epochs": ceil(STEPS / ceil(0.95 * frames / BATCH)),
        "device": "cuda" if device.type == "cuda" else "cpu",
    }
    return RunConfig(**(usual | changes))


@dataclass(frozen=True)
class Learnt:
    """A network, and how long it learnt [s]; NaN where it learnt in an earlier call."""

    network: Reconstructor
    config: RunConfig
    seconds: float

    def prepared(self, scan: Scan, device: torch.device) -> Prepared:
        """For a scan."""
        stream = Stream.of(scan)
        record = RunResult(run_id="0" * 12, status="finished", config=self.config.model_dump())
        model = TrainedModel(record, self.config, Path())
        return Prepared(model, stream, self.network, stream.input_scale, device, 128, None)


def learn(scan: Scan, device: torch.device, **changes: Any) -> Learnt:
    """A network that learnt from a scan's frames, without labels; changes: of the usual one."""
    frames = patterns_of(scan)
    dataset = Dataset(
        train=frames,
        test=frames,
        held_out=np.zeros(len(scan), bool),
        geometry=Freeform(scan.shape),
        reference=None,
        reference_kind=None,
        fingerprint="race",
    )
    config = network_config(device, len(scan), **changes)
    start = perf_counter()
    trained = train(config, dataset, device)[0]
    return Learnt(trained.model, config, perf_counter() - start)


def learnt_before(place: Path, frames: Callable[[], Scan], device: torch.device) -> Learnt:
    """The same, kept in a file, so that it learns once."""
    if place.exists():
        config = network_config(device, 1600)
        model = Reconstructor(config, subpixel=True)
        load_weights(place, model)
        return Learnt(model.to(device), config, math.nan)
    learnt = learn(frames(), device)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_weights(place, learnt.network, 1.0)
    return learnt


def answer(learnt: Learnt, scan: Scan, device: torch.device) -> Fit:
    """The object of a scan by a network; where no light fell it is the mean of the rest."""
    made = assemble(learnt.prepared(scan, device))
    assert scan.probe is not None
    level = (made.weight * made.obj).sum() / made.weight.sum()
    obj = np.where(made.seen, made.obj, level).astype(np.complex64)
    return Fit(obj, scan.probe, scan.positions, made.seconds, ())


def fits(
    contest: Contest, device: torch.device, passes: tuple[int, ...] = PASSES
) -> Mapping[str, list[Entry]]:
    """The fit: the probe held, fitted, blind, and held with weight and passes chosen.

    Of a scan without a probe only blind.
    """
    scan = contest.kept
    modes = 1 if scan.probe is None else len(scan.probe)
    blind = replace(scan, probe=None)
    held = partial(reconstruct, modes=modes, fit_probe=False, device=device)
    fitted = partial(reconstruct, modes=modes, device=device)

    def ladder(fit: Callable[..., Fit], of: Scan) -> list[Entry]:
        return [(f"{n} passes", partial(fit, of, iterations=n)) for n in passes]

    sides = {"fit, blind": ladder(fitted, blind)}
    if scan.probe is not None:
        sides |= {
            "fit, probe held": ladder(held, scan),
            "fit, probe fitted": ladder(fitted, scan),
            "fit, probe held, all chosen": [("chosen", partial(chosen, held, scan))],
        }
    return sides


def chosen(fit: Callable[..., Fit], scan: Scan) -> Fit:
    """Weight and passes chosen by frames left out, and the fit to all: the time of it all."""
    start = perf_counter()
    choice = choose(fit, scan, None, None)
    made = fit(scan, smooth=choice.smooth, iterations=choice.passes)
    return replace(made, seconds=perf_counter() - start)


def others(contest: Contest, device: torch.device) -> Mapping[str, list[Entry]]:
    """pty-chi with the probe held: its defaults, a smaller batch, and what served it best.

    The last is the best of sixteen settings that were tried on the star and on simulated lines
    (docs/when-a-network.md).
    """
    scan = replace(contest.kept, reference=None)
    fit = partial(pty_chi.fit, scan, device=device)

    def ladder(algorithm: str, epochs: tuple[int, ...], **how: Any) -> list[Entry]:
        return [(f"{n} epochs", partial(fit, algorithm, n, **how)) for n in epochs]

    return {
        "pty-chi LSQML, batch 100": ladder("LSQML", LSQML),
        "pty-chi LSQML, batch 32": ladder("LSQML", LSQML, batch=32),
        "pty-chi LSQML, momentum": ladder("LSQML", LSQML, momentum=0.5),
        "pty-chi EPIE, batch 100": ladder("EPIE", EPIE),
    }


def networks(
    name: str, learnt: Learnt, contest: Contest, device: torch.device, *, adapted: bool
) -> Iterator[tuple[str, list[Entry]]]:
    """A network's object, the same after passes of the fit, and after adapting to the scan."""
    scan = contest.kept

    def then(passes: int, who: Learnt, before: float = 0.0) -> Fit:
        first = answer(who, scan, device)
        seconds = first.seconds + before
        if not passes:
            return replace(first, seconds=seconds)
        assert scan.probe is not None
        fit = reconstruct(
            scan,
            modes=len(scan.probe),
            fit_probe=False,
            iterations=passes,
            first_object=first.obj,
            device=device,
        )
        return replace(fit, seconds=fit.seconds + seconds)

    yield name, [("inference", partial(then, 0, learnt))]
    yield f"{name}, then the fit", [(f"{n} passes", partial(then, n, learnt)) for n in AFTER]
    if adapted:

        def adapting(epochs: int) -> Fit:
            made = adapt(learnt.prepared(scan, device), epochs)
            return then(0, replace(learnt, network=made.network), made.seconds[-1])

        yield f"{name}, adapted", [(f"{n} epochs", partial(adapting, n)) for n in (1, 3)]
