"""Fourier blocks through `torch.compile`, where a training is long enough for that to pay.

Compiled, what lies between two products of a block is one kernel: bias, addition, GELU, and their
gradients. On an NVIDIA H200 (torch 2.11, version 0.1, bf16, 16 patterns a step) a captured step
went from 1.89 to 1.57 ms for `fno` 32/12 (width and modes), and from 4.52 to 3.67 ms for `hybrid`
64/24. Compiling took 7 to 23 s. `benchmarks/gpu_study.sh` measures both anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fno_runner.config import RunConfig
from fno_runner.models.blocks import FourierBlock
from fno_runner.reconstructor import Reconstructor

log = logging.getLogger("fno_runner")

SAVED_S = {"fno": 0.32e-3, "hybrid": 0.85e-3}
"""What a step is shorter by [s], and"""
COMPILING_S = {"fno": 7.0, "hybrid": 23.0}
"""how long compiling takes [s]: the numbers above, of the smallest and of the largest network."""
SHAPES = 64
"""Blocks of as many shapes at most are compiled in one process; PyTorch's own limit is 8."""
COMPILED = "compiled"
"""Where a study keeps what was compiled, so that points of one shape compile once."""


def worth_compiling(config: RunConfig, steps: int) -> bool:
    """Whether so many steps save more time than compiling takes.

    The configuration alone decides, not how many networks train at once or what is in the cache:
    compiled and plain blocks differ by rounding, and a seed is to be what it is alone.
    """
    return steps * SAVED_S[config.architecture] > COMPILING_S[config.architecture]


@contextmanager
def compiled_blocks(
    models: Sequence[Reconstructor], batch_size: int, cache: Path | None
) -> Iterator[CompiledBlocks]:
    """Within, training steps on `batch_size` patterns take the compiled blocks of these models.

    Other batches (the last one of an epoch, validation) take the plain ones: each size would be
    compiled anew. Where the compiler fails the plain blocks go on, and a line of the log says so.

    Args:
        cache: the folder that keeps what was compiled. It holds programs: it is used only if it is
            this user's, and nobody else may write there.
    """
    modules = (module for model in models for module in model.modules())
    blocks = [module for module in modules if isinstance(module, FourierBlock)]
    forward = CompiledBlocks(batch_size)
    with _kept_in(cache):
        for block in blocks:
            block.forward = partial(forward, block)  # type: ignore[method-assign]
        try:
            yield forward
        finally:
            for block in blocks:
                del block.forward


class CompiledBlocks:
    """The forward of every block; blocks of one shape share what is compiled."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._forward: Any = None
        self._failed = False

    @property
    def compiled(self) -> bool:
        """Whether steps took them so far, and none took the plain ones instead."""
        return self._forward is not None and not self._failed

    def __call__(self, block: FourierBlock, x: Tensor) -> Tensor:
        is_step = len(x) == self._batch_size and torch.is_grad_enabled()
        if is_step and not self._failed:
            try:
                if self._forward is None:
                    self._forward = compile_function(FourierBlock.forward)
                out: Tensor = self._forward(block, x)
                return out
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a compiler, or the lack of one, may raise
                self._failed = True
                reason = str(error).strip().partition("\n")[0]
                log.warning("the blocks cannot be compiled (%s): slower, as they are", reason)
        return FourierBlock.forward(block, x)


def compile_function(function: Any) -> Any:
    """`torch.compile` for the shapes that come, one by one."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
    return torch.compile(function, dynamic=False)


@contextmanager
def _kept_in(cache: Path | None) -> Iterator[None]:
    """Let the compiler keep its work in a folder, if that is nobody else's to change."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    if cache is None or name in os.environ:
        yield
        return
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = cache.stat()
    except OSError as error:
        log.warning("%s: %s; what is compiled is not kept", cache, error.strerror or error)
        yield
        return
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        log.warning("%s can be written by others; what is compiled is not kept there", cache)
        yield
        return
    os.environ[name] = str(cache.resolve())
    try:
        yield
    finally:
        del os.environ[name]
