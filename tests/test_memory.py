"""Where memory does not suffice: smaller slices, or a failed point that says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fno_runner.config import RunConfig
from fno_runner.device import halve_until_it_fits
from fno_runner.physics import local_probe, object_update
from fno_runner.result import RunResult
from fno_runner.runner import run
from fno_runner.score.floors import patterns_at_once
from tests.test_runner import arguments

RUN_IN = """
import resource, sys
from fno_runner import runner
from fno_runner.score import evaluation
from fno_runner.cli import parse_config

headroom, timed_predict = int(sys.argv[1]), evaluation.timed_predict

def capped(*args):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + headroom, hard))
    try:
        return timed_predict(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

evaluation.timed_predict = capped
print(runner.run(parse_config(sys.argv[2:], "test", "")).result.to_json())
"""


def run_capped(config: RunConfig, headroom_mib: int) -> RunResult:
    """A real run whose process may take only so much more memory in inference.

    It has one heap: each thread's own would take 64 MiB of addresses whenever the thread first asks
    for memory, before the cap or after it.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUN_IN, str(headroom_mib * 2**20), *arguments(config)],
        capture_output=True, text=True, check=False, env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return RunResult.model_validate(json.loads(done.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="caps the address space, as Linux does")
def test_inference_halves_its_slices_until_they_fit(tiny_config: RunConfig) -> None:
    # A slice of all 324 patterns takes 127 MB a layer, some 900 MiB in all, of which a training's
    # freed memory may give 100; one alone needs room for code and threads, at times more than 160.
    wide = tiny_config.model_copy(
        update={"width": 24, "blocks": 1, "cnn_blocks": 0, "epochs": 1, "infer_batch_size": 324}
    )
    result = run_capped(wide, 250)
    assert result.status in ("finished", "collapsed"), result.error
    assert result.timing["infer_batch_size_asked"] == 324
    used = result.timing["infer_batch_size"]
    assert isinstance(used, int) and used in (162, 81, 40, 20, 10, 5, 2, 1)
    assert result.metrics.pairs["ssim"]


LAY = """
import numpy as np
from fno_runner.provenance import kernel_says
from fno_runner.reconstruct.stitching import Canvas

def peak():
    return int(kernel_says("self/status", "VmHWM").split()[0])

patches = np.ones((1000, 64, 64), np.complex64)
probe = np.ones((4, 64, 64), np.complex64)
positions = np.full((1000, 2), 40.25, np.float32)
canvas = Canvas((80, 80))
canvas.add(patches[:16], positions[:16], probe)
before = peak()
canvas.add(patches, positions, probe)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stitching_takes_no_memory_for_each_frame() -> None:
    """The probe of a thousand frames, moved to each, would be 125 MiB, and its steps as much."""
    done = subprocess.run([sys.executable, "-c", LAY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 * 1024


def test_it_halves_down_to_one_and_then_gives_up() -> None:
    tried: list[int] = []

    def fits(limit: int, size: int) -> str:
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert halve_until_it_fits(lambda size: fits(3, size), 13) == ("done", 3)
    assert tried == [13, 6, 3]
    tried.clear()
    with pytest.raises(torch.OutOfMemoryError):
        halve_until_it_fits(lambda size: fits(0, size), 4)
    assert tried == [4, 2, 1]


def test_another_error_is_not_tried_again() -> None:
    calls = []

    def broken(size: int) -> None:
        calls.append(size)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        halve_until_it_fits(broken, 8)
    assert calls == [8]


def test_a_training_that_does_not_fit_is_a_failed_point(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("fno_runner.train.training.Reconstructor.forward", full)
    outcome = run(tiny_config)
    assert outcome.result.status == "failed"
    assert outcome.result.error is not None
    assert outcome.result.error.type == "OutOfMemoryError"
    assert (Path(outcome.folder) / "result.json").exists()


class Held(TorchDispatchMode):
    """Adds up the memory of what is made and not yet gone; `most` is the highest sum [bytes]."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most, self._held = 0, dict[int, int]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self._held:
                storage = leaf.untyped_storage()
                self._held[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._held.pop, storage._cdata)
        self.most = max(self.most, sum(self._held.values()))
        return made


@pytest.mark.parametrize(("size", "modes"), [(64, 1), (128, 1), (256, 1), (256, 4)])
def test_floors_take_the_same_share_of_a_gpu_whatever_the_patterns(size: int, modes: int) -> None:
    """Nothing halves their slices: 1,024 patterns of 256 px under four modes took 15 GiB."""
    meta = torch.device("meta")
    probe = torch.empty((modes, size, size), dtype=torch.complex64, device=meta)
    count = patterns_at_once(probe)
    with Held() as held:
        x = torch.empty((count, 1, size, size), device=meta)
        local = local_probe(probe, torch.empty((count, 1, 2), device=meta))
        mask = torch.empty((size, size), dtype=torch.bool, device=meta)
        object_update(x, local, torch.empty(x.shape, dtype=torch.complex64, device=meta), mask)
    assert 2**27 < held.most < 2**29
