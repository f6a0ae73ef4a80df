"""Where an unfinished training stands, on disk: the next process of the same run goes on there."""

from __future__ import annotations

import json
import logging
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from fno_runner.provenance import code
from fno_runner.train.progress import Epoch, Progress

log = logging.getLogger("fno_runner")

SCHEMA_VERSION: Literal[2] = 2
"""2: a file for each network, which names the code that made it. Version 0.1's is 1."""
INTERVAL_S = 30.0
"""Between two checkpoints at least [s]: a killed run loses so much, and the epoch it was in."""
SHARE = 0.01
"""Of a training's time that writing checkpoints may take: a slow disk gets fewer."""
HEADER_BYTES = 32 * 2**20
"""The most that is not tensors: names, and histories of 100,000 epochs [bytes]."""


class _Facts(BaseModel):
    """What a checkpoint says beside its tensors."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    schema_version: Literal[2] = SCHEMA_VERSION
    code: str
    identity: str
    epoch: int = Field(ge=1)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    slice_size: int = Field(ge=1)
    best_loss: float | None
    history: list[Epoch]
    error: str | None


class Checkpoint:
    """The checkpoint of networks that train at once: a file for each of them."""

    def __init__(self, paths: Sequence[Path], identity: str) -> None:
        """`identity`: what must be the same for it to be taken up.

        So must the code be: a record names one that computed it.
        """
        self._paths, self._identity, self._code = tuple(paths), identity, code()
        self._written: dict[Path, int] = {}
        self._not_before = monotonic() + INTERVAL_S
        self._refused = False

    def resume(self, networks: Sequence[Progress]) -> None:
        """Bring each network to where its file stands; without one it is left as it is.

        A file that is torn, foreign, of another version or made by other code is kept aside, and
        named in the log; the network's training then starts at its beginning.
        """
        for path, progress in zip(self._paths, networks, strict=True):
            try:
                self._resume(path, progress)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("%s: %s; training starts over", path, error.strerror or error)
            except UnbelievableError as error:
                aside = set_aside(path, error.kind)
                log.warning("%s; training starts over; it is kept as %s", error, aside)

    def save(self, networks: Sequence[Progress], *, now: bool = False) -> None:
        """Write where the networks stand, if it is time to, or `now`.

        A disk that refuses is named in the log, once: the training itself needs no checkpoint.
        """
        start = monotonic()
        if self._refused or (start < self._not_before and not now):
            return
        try:
            for path, progress in zip(self._paths, networks, strict=True):
                if progress.epoch != self._written.get(path):
                    self._write(path, progress)
                    self._written[path] = progress.epoch
        except MachineError as error:
            self._refused = True
            log.warning("%s; training goes on without checkpoints", error)
        took = monotonic() - start
        self._not_before = monotonic() + max(INTERVAL_S, took / SHARE)

    def _write(self, path: Path, progress: Progress) -> None:
        facts = _Facts(
            code=self._code,
            identity=self._identity,
            epoch=progress.epoch,
            seconds=progress.seconds,
            slice_size=progress.slice_size,
            best_loss=None if progress.best_loss == float("inf") else progress.best_loss,
            history=progress.history,
            error=None if progress.error is None else str(progress.error),
        ).model_dump_json()
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in progress.tensors().items()
        }
        metadata = {"facts": facts, "crc32": _checksum(facts, tensors)}
        write_atomically(path, lambda stream: stream.write(save(tensors, metadata=metadata)))

    def _resume(self, path: Path, progress: Progress) -> None:
        """
        Raises:
            OSError: it is not there, or cannot be read.
            UnbelievableError: it is not a checkpoint of this training.
        """
        facts, tensors = self._read(path, progress)
        progress.epoch, progress.seconds = facts.epoch, facts.seconds
        progress.slice_size = facts.slice_size
        progress.history = facts.history
        if facts.best_loss is not None:
            progress.best_loss = facts.best_loss
        if facts.error is not None:
            progress.error = DivergedError(facts.error)
        progress.restore(tensors)
        self._written[path] = progress.epoch
        log.info("training goes on after epoch %d", facts.epoch)

    def _read(self, path: Path, progress: Progress) -> tuple[_Facts, dict[str, Tensor]]:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnbelievableError("foreign", f"{path}: not a regular file")
        if status.st_size == 0:
            raise UnbelievableError("empty", f"{path}: empty")
        everything = progress.expected(has_best=True)
        most = sum(shape.numel() * dtype.itemsize for shape, dtype in everything.values())
        if status.st_size > most + HEADER_BYTES:
            raise UnbelievableError("foreign", f"{path}: {status.st_size} bytes are too many")
        try:
            # It lies in memory-mapped pages of the file until it is copied.
            with safe_open(path, "pt") as stored:
                metadata = stored.metadata() or {}
                facts = self._facts(path, metadata)
                expected = progress.expected(has_best=facts.best_loss is not None)
                if set(stored.keys()) != set(expected):
                    raise UnbelievableError("foreign", f"{path}: of another network")
                tensors = {name: stored.get_tensor(name) for name in expected}
        except SafetensorError as error:
            raise UnbelievableError("torn", f"{path}: {error}") from None
        for name, (shape, dtype) in expected.items():
            if tensors[name].shape != shape or tensors[name].dtype != dtype:
                raise UnbelievableError("foreign", f"{path}: {name} is of another network")
        if metadata.get("crc32") != _checksum(metadata["facts"], tensors):
            raise UnbelievableError("torn", f"{path}: its checksum does not fit")
        return facts, tensors

    def _facts(self, path: Path, metadata: Mapping[str, str]) -> _Facts:
        try:
            version = json.loads(metadata["facts"])["schema_version"]
            if version == 1:
                raise UnbelievableError("foreign", f"{path}: made by version 0.1")
            if version != SCHEMA_VERSION:
                reason = f"schema_version is {version!r}; known is {SCHEMA_VERSION}"
                raise UnbelievableError("future", f"{path}: {reason}")
            facts = _Facts.model_validate_json(metadata["facts"])
        except UnbelievableError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError, ValidationError):
            raise UnbelievableError("foreign", f"{path}: not a checkpoint") from None
        if facts.identity != self._identity:
            raise UnbelievableError("foreign", f"{path}: of other data")
        if facts.code != self._code:
            reason = f"made by the code {facts.code}, and this is {self._code}"
            raise UnbelievableError("foreign", f"{path}: {reason}")
        return facts


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in a folder that this process alone uses meanwhile."""

    folder: Path
    identity: str

    def of(self, configs: Sequence[RunConfig], device: torch.device) -> Checkpoint:
        """That of configurations which differ in their seed and train at once.

        A GPU and a CPU each have their own files: what they compute differs by rounding.
        """
        names = [f"{device.type}-seed-{config.seed}.safetensors" for config in configs]
        return Checkpoint([self.folder / name for name in names], self.identity)

    def remove(self) -> None:
        """The run has its record: nobody will go on from here. What was set aside stays."""
        ours = (*self.folder.glob("*.safetensors"), *self.folder.glob(".*"))
        for path in ours:  # and the lock, and what a killed writer had begun
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            self.folder.rmdir()


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
