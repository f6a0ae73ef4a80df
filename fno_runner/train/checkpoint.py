"""Where an unfinished training stands, on disk: the next process of the same run goes on there."""

from __future__ import annotations

import json
import logging
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fno_runner.config import RunConfig
from fno_runner.errors import DivergedError, MachineError, UnbelievableError
from fno_runner.files import make_folder, set_aside, write_atomically
from fno_runner.train.progress import Epoch, Progress

log = logging.getLogger("fno_runner")

SCHEMA_VERSION: Literal[1] = 1
INTERVAL_S = 30.0
"""Between two checkpoints at least [s]: a killed run loses so much, and the epoch it was in."""
SHARE = 0.01
"""Of a training's time that writing checkpoints may take: a slow disk gets fewer."""
HEADER_BYTES = 32 * 2**20
"""The most that is not tensors: names, and histories of 100,000 epochs [bytes]."""


class _SeedFacts(BaseModel):
    model_config = ConfigDict(extra="forbid")

    best_loss: float | None
    history: list[Epoch]
    error: str | None


class _Facts(BaseModel):
    """What a checkpoint says beside its tensors."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    schema_version: Literal[1] = SCHEMA_VERSION
    identity: str
    epoch: int = Field(ge=1)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    slice_size: int = Field(ge=1)
    seeds: list[_SeedFacts]


@dataclass
class Checkpoint:
    """The checkpoint of one training.

    identity: what must be the same for it to be taken up.
    """

    path: Path
    identity: str

    def __post_init__(self) -> None:
        self._not_before = monotonic() + INTERVAL_S
        self._refused = False

    def resume(self, progress: Progress) -> None:
        """Bring `progress` to where the checkpoint stands; without one it is left as it is.

        A checkpoint that is torn, foreign or of another version is kept aside, and named in the
        log; the training then starts at its beginning.
        """
        try:
            facts, tensors = self._read(progress)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s: %s; training starts over", self.path, error.strerror or error)
            return
        except UnbelievableError as error:
            aside = set_aside(self.path, error.kind)
            log.warning("%s; training starts over; it is kept as %s", error, aside)
            return
        progress.epoch, progress.seconds = facts.epoch, facts.seconds
        progress.slice_size = facts.slice_size
        for seed, known in zip(progress.seeds, facts.seeds, strict=True):
            seed.history = known.history
            if known.best_loss is not None:
                seed.best_loss = known.best_loss
            if known.error is not None:
                seed.error = DivergedError(known.error)
        progress.restore(tensors)
        log.info("training goes on after epoch %d", facts.epoch)

    def save(self, progress: Progress, *, now: bool = False) -> None:
        """Write where `progress` stands, if it is time to, or `now`.

        A disk that refuses is named in the log, once: the training itself needs no checkpoint.
        """
        start = monotonic()
        if self._refused or (start < self._not_before and not now):
            return
        try:
            self._write(progress)
        except MachineError as error:
            self._refused = True
            log.warning("%s; training goes on without checkpoints", error)
        took = monotonic() - start
        self._not_before = monotonic() + max(INTERVAL_S, took / SHARE)

    def _write(self, progress: Progress) -> None:
        facts = _Facts(
            identity=self.identity,
            epoch=progress.epoch,
            seconds=progress.seconds,
            slice_size=progress.slice_size,
            seeds=[
                _SeedFacts(
                    best_loss=None if seed.best_loss == float("inf") else seed.best_loss,
                    history=seed.history,
                    error=None if seed.error is None else str(seed.error),
                )
                for seed in progress.seeds
            ],
        ).model_dump_json()
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in progress.tensors().items()
        }
        metadata = {"facts": facts, "crc32": _checksum(facts, tensors)}
        write_atomically(self.path, lambda stream: stream.write(save(tensors, metadata=metadata)))

    def _read(self, progress: Progress) -> tuple[_Facts, dict[str, Tensor]]:
        """
        Raises:
            OSError: it is not there, or cannot be read.
            UnbelievableError: it is not a checkpoint of this training.
        """
        found = self.path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnbelievableError("foreign", f"{self.path}: not a regular file")
        if found.st_size == 0:
            raise UnbelievableError("empty", f"{self.path}: empty")
        everything = progress.expected([True] * len(progress.seeds))
        most = sum(shape.numel() * dtype.itemsize for shape, dtype in everything.values())
        if found.st_size > most + HEADER_BYTES:
            raise UnbelievableError("foreign", f"{self.path}: {found.st_size} bytes are too many")
        try:
            # It lies in memory-mapped pages of the file until it is copied.
            with safe_open(self.path, "pt") as stored:
                metadata = stored.metadata() or {}
                facts = self._facts(metadata)
                if len(facts.seeds) != len(progress.seeds):
                    raise UnbelievableError("foreign", f"{self.path}: of other seeds")
                expected = progress.expected([one.best_loss is not None for one in facts.seeds])
                if set(stored.keys()) != set(expected):
                    raise UnbelievableError("foreign", f"{self.path}: of another network")
                tensors = {name: stored.get_tensor(name) for name in expected}
        except SafetensorError as error:
            raise UnbelievableError("torn", f"{self.path}: {error}") from None
        for name, (shape, dtype) in expected.items():
            if tensors[name].shape != shape or tensors[name].dtype != dtype:
                raise UnbelievableError("foreign", f"{self.path}: {name} is of another network")
        if metadata.get("crc32") != _checksum(metadata["facts"], tensors):
            raise UnbelievableError("torn", f"{self.path}: its checksum does not fit")
        return facts, tensors

    def _facts(self, metadata: Mapping[str, str]) -> _Facts:
        try:
            version = json.loads(metadata["facts"])["schema_version"]
            if version != SCHEMA_VERSION:
                reason = f"schema_version is {version!r}; known is {SCHEMA_VERSION}"
                raise UnbelievableError("future", f"{self.path}: {reason}")
            facts = _Facts.model_validate_json(metadata["facts"])
        except UnbelievableError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError, ValidationError):
            raise UnbelievableError("foreign", f"{self.path}: not a checkpoint") from None
        if facts.identity != self.identity:
            raise UnbelievableError("foreign", f"{self.path}: of other data")
        return facts


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in a folder that this process alone uses meanwhile."""

    folder: Path
    identity: str

    def of(self, configs: Sequence[RunConfig], device: torch.device) -> Checkpoint:
        """That of configurations which train together.

        A GPU and a CPU each have their own: what they compute differs by rounding.
        """
        seeds = "-".join(str(one.seed) for one in configs[:: max(1, len(configs) - 1)])
        name = f"{device.type}-seed-{seeds}.safetensors"
        return Checkpoint(self.folder / name, self.identity)

    def remove(self) -> None:
        """The run has its record: nobody will go on from here."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def held_checkpoints(output_dir: Path, run_id: str, data: str) -> Iterator[Checkpoints | None]:
    """The checkpoints of a run, in `output_dir`/checkpoints/<run_id>, held by this process alone.

    None where another process trains the same run at this moment, or the folder cannot be written:
    the run then does without. A killed process holds nothing.

    Args:
        data: the fingerprint of the data.
    """
    folder = output_dir / "checkpoints" / run_id
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        make_folder(folder)
        lock.acquire()
    except Timeout:
        log.warning("%s is in use: this run leaves no checkpoints", folder)
        yield None
        return
    except (MachineError, OSError) as error:
        log.warning("%s; this run leaves no checkpoints", error)
        yield None
        return
    try:
        yield Checkpoints(folder, f"{run_id} {data}")
    finally:
        lock.release()


def _checksum(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """Of everything: a flipped bit in a weight would otherwise be believed."""
    total = zlib.crc32(facts.encode())
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
