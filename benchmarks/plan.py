"""What is measured: which networks, on which sides, on which data, how often."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.measurement import BASELINE
from fno_runner.capture import WARM_UP
from fno_runner.config import N, RunConfig, centre, load_config
from fno_runner.data.dataset import Dataset, Patterns, Raster
from fno_runner.data.probe import zone_plate_probe

SIZES = ((32, 12), (48, 16), (64, 24))
"""(width, modes) of the networks, small to large."""


@dataclass(frozen=True)
class Network:
    """A size, and the patterns of a training step."""

    architecture: Literal["fno", "hybrid"]
    width: int
    modes: int
    batch: int = 16

    @property
    def label(self) -> str:
        return f"{self.architecture} {self.width}/{self.modes}"

    def as_json(self) -> str:
        """For a process of its own, which makes it anew by these names."""
        return json.dumps(asdict(self))

    def config(self, side: str, **changes: Any) -> RunConfig:
        """Its configuration; a side of ours is called by its precision."""
        values = {
            "architecture": self.architecture,
            "width": self.width,
            "modes": self.modes,
            "batch_size": self.batch,
            "conditioning": "amplitude",
            "precision": "float32" if side == BASELINE else side,
        }
        return load_config({**values, **changes})


def network_named(word: str) -> Network:
    """The network that is called so on a command line, such as fno-32-12: width, then modes.

    Raises:
        argparse.ArgumentTypeError: no network is called so.
    """
    match = re.fullmatch(r"(fno|hybrid)-(\d{1,3})-(\d{1,3})", word)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{word}': a network is called fno-32-12, say")
    architecture: Literal["fno", "hybrid"] = "fno" if match[1] == "fno" else "hybrid"
    return Network(architecture, int(match[2]), int(match[3]))


def burn_in(device: torch.device) -> int:
    """Turns that do not count. On a GPU work is replayed from its fourth call on, and only then."""
    return 1 if device.type == "cpu" else WARM_UP + 1


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    steps: of a timed epoch. patterns: of a pass of inference, in each of these `slices`.
    precisions: the sides of ours.
    """

    networks: tuple[Network, ...]
    precisions: tuple[str, ...]
    turns: int
    steps: int
    patterns: int
    slices: tuple[int, ...]

    @property
    def sides(self) -> tuple[str, ...]:
        """The baseline, and ours in each precision."""
        return (BASELINE, *self.precisions)

    @property
    def few_turns(self) -> int:
        """For what takes seconds, a process of its own at least."""
        return (self.turns + 1) // 2


def plan(device: torch.device, *, quick: bool) -> Plan:
    """Enough for medians that repeat within some percent; `quick` for a look."""
    networks = tuple(
        Network(architecture, width, modes)
        for width, modes in (SIZES[:1] if quick else SIZES)
        for architecture in ("fno", "hybrid")
    )
    ours = precisions(device)
    if device.type == "cuda":
        turns = 2 if quick else 5
        return Plan(networks, ours, turns, steps=100, patterns=4096, slices=(128, 512, 2048))
    # All of it in some ten minutes on two cores, where a baseline's step takes up to 4 s.
    return Plan(networks, ours, turns=2 if quick else 4, steps=3, patterns=32, slices=(4, 16))


def precisions(device: torch.device) -> tuple[str, ...]:
    """Ours; without a GPU `tf32` is `float32`."""
    return ("float32", "tf32", "bf16") if device.type == "cuda" else ("float32", "bf16")


def noise(train: int, test: int) -> Dataset:
    """So many patterns without meaning: no time depends on what they show."""
    rng = np.random.default_rng(0)
    probe = zone_plate_probe(RunConfig())

    def patterns(count: int) -> Patterns:
        amplitude = rng.random((count, N, N), np.float32)
        return Patterns(amplitude, np.full((count, 2), centre(N), np.float32), probe)

    raster = Raster(step=10, rows=1, cols=test, scale=1.0)
    held_out = np.ones(test, bool)
    return Dataset(patterns(train), patterns(test), held_out, raster, None, None, "noise")
