"""What is the card's fault and not the point's: errors in the libraries' words; a fake card."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fno_runner.config import RunConfig
from fno_runner.device import (
    check_device,
    check_free_memory,
    halve_until_it_fits,
    is_out_of_memory,
    machine_failure,
)
from fno_runner.errors import MachineError
from fno_runner.identity import run_id
from fno_runner.runner import run

CUDA = torch.device("cuda")
GIB = 2**30

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be …"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate`"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory"),
    RuntimeError("could not create a primitive"),
    MemoryError("Unable to allocate 8.00 TiB for an array with shape (1048576, 1048576)"),
]
FAILED_CARD = [
    torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: the launch timed out and was terminated"),
    RuntimeError("CUDA error: MPS client failed to connect to the MPS control daemon"),
    RuntimeError("No CUDA GPUs are available"),
    torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: …"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( …"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
]
OF_THE_POINT = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"),
    ValueError("out of memory"),
    KeyError("width"),
]


class Card:
    """A card that is not there: what torch.cuda says of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: float, reserved: float) -> None:
        """`free` of its 80 GiB, of which this process `reserved` some [GiB]."""
        self.free, self.reserved = free, reserved
        memory = (int(free * GIB), 80 * GIB)
        for name, answer in (
            ("mem_get_info", lambda *_: memory),
            ("memory_reserved", lambda *_: int(reserved * GIB)),
            ("synchronize", lambda *_: None),
            ("get_device_name", lambda *_: "A made-up card"),
        ):
            monkeypatch.setattr(torch.cuda, name, answer)
        ones = torch.ones
        monkeypatch.setattr(torch, "ones", lambda *size, device=None: ones(*size))


def shown(error: BaseException) -> str:
    return str(error)[:40]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=shown)
def test_out_of_memory_is_recognised_in_every_librarys_words(error: Exception) -> None:
    assert is_out_of_memory(error)
    tried = []

    def work(size: int) -> str:
        tried.append(size)
        if size > 2:
            raise error
        return "done"

    assert halve_until_it_fits(work, 8) == ("done", 2)
    assert tried == [8, 4, 2]


def test_a_failed_attempt_leaves_nothing_behind_even_what_refers_to_itself() -> None:
    """As a predictor does, whose captured work is a method of its own: it held a card's memory."""

    class Attempt:
        def __init__(self) -> None:
            self.work = self.method

        def method(self) -> None: ...

    left: list[weakref.ref[Attempt]] = []

    def work(size: int) -> int:
        alive = sum(attempt() is not None for attempt in left)
        left.append(weakref.ref(Attempt()))
        if size > 2:
            raise torch.OutOfMemoryError
        return alive

    gc.disable()
    try:
        assert halve_until_it_fits(work, 8) == (0, 2)
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [*FAILED_CARD, *OF_THE_POINT], ids=shown)
def test_another_error_is_not_one_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "end",
    [
        "operation failed due to a previous error during capture",
        "capturing stream has unjoined work",
    ],
)
def test_a_capture_that_memory_broke_off_is_one_of_memory(end: str) -> None:
    def capture(first: Exception) -> BaseException:
        try:
            try:
                raise first
            finally:
                raise RuntimeError(f"CUDA error: {end}")
        except RuntimeError as error:
            return error

    assert is_out_of_memory(capture(torch.OutOfMemoryError("CUDA out of memory.")))
    assert not is_out_of_memory(capture(RuntimeError("CUDA error: unspecified launch failure")))


@pytest.mark.parametrize("error", FAILED_CARD, ids=shown)
def test_a_card_that_fails_is_the_machines_fault(error: Exception) -> None:
    reason = machine_failure(error, CUDA)
    assert reason is not None and reason.startswith("the GPU failed: ") and "\n" not in reason
    assert machine_failure(error, torch.device("cpu")) is None


@pytest.mark.parametrize("error", OF_THE_POINT, ids=shown)
def test_what_the_point_cannot_do_is_not(error: Exception) -> None:
    assert machine_failure(error, CUDA) is None


@pytest.mark.parametrize(
    ("free", "reserved", "whose"),
    [(0.5, 79, None), (0.1, 39, "39.9 GiB"), (30, 2, "47.0 GiB"), (78, 1.5, None)],
)
def test_memory_that_a_neighbour_took_is_the_machines_fault(
    free: float, reserved: float, whose: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Card(monkeypatch, free, reserved)
    reason = machine_failure(OUT_OF_MEMORY[0], CUDA)
    assert (reason is None) == (whose is None)
    assert whose is None or f"(other processes hold {whose})" in str(reason)


def test_a_card_is_tried_before_a_point_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    check_device(torch.device("cpu"))
    check_free_memory(torch.device("cpu"), pytest.fail)
    Card(monkeypatch, free=3, reserved=0)
    check_device(CUDA)
    check_free_memory(CUDA, lambda: 2 * GIB)
    few = r"needs about 4\.0 GiB of the GPU, and 3\.0 of 80\.0 GiB are free"
    with pytest.raises(MachineError, match=few):
        check_free_memory(CUDA, lambda: 4 * GIB)

    def broken(*_: object, **__: object) -> None:
        raise FAILED_CARD[0]

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "synchronize", broken)
        with pytest.raises(MachineError, match="the GPU cannot be used: CUDA error: CUDA-capable"):
            check_device(CUDA)
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: a)
    with pytest.raises(MachineError, match="came out wrong"):
        check_device(CUDA)


def fails(error: Exception) -> Callable[..., None]:
    def failing(*_: object, **__: object) -> None:
        raise error

    return failing


@pytest.mark.parametrize(
    "where", ["train.training.Reconstructor.forward", "score.evaluation.timed_predict"]
)
def test_a_card_that_fails_in_a_run_costs_no_point(
    where: str, tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fno_runner.runner.machine_failure", lambda error, _: f"failed: {error}")
    monkeypatch.setattr(f"fno_runner.{where}", fails(FAILED_CARD[1]))
    with pytest.raises(MachineError, match="uncorrectable ECC"):
        run(tiny_config)
    study = Path(tiny_config.output_dir)
    assert not list(study.rglob("result.json")) and not list(study.rglob("*.partial"))


def test_what_another_kind_of_device_had_half_done_is_named(
    tiny_config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    left = Path(tiny_config.output_dir) / "checkpoints" / run_id(tiny_config)
    left.mkdir(parents=True)
    (left / "cuda-seed-0.safetensors").write_bytes(b"of another machine's GPU")
    assert run(tiny_config).result.history
    (line,) = [r.getMessage() for r in caplog.records if "half of this run" in r.getMessage()]
    assert "trained on cuda, from which cpu cannot go on" in line
