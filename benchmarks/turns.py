"""Timing programs in turns, A B A B …, so that a busy minute of the machine hits them all."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Mapping
from threading import Semaphore, Thread
from time import perf_counter
from types import TracebackType
from typing import TypeVar

from benchmarks.backends import set_tf32, tf32
from fno_runner.device import keep_freed_memory, keeps_freed_memory

K = TypeVar("K")
T = TypeVar("T")

M_ARENA_MAX = -8
"""Of <malloc.h>."""


def in_turns(sides: Mapping[K, Callable[[], T]], turns: int, burn_in: int = 1) -> dict[K, list[T]]:
    """What each side returned in each of `turns` turns, after some of burn-in.

    Each side keeps its own use of TF32, and its own way with freed memory: one that allows it does
    not allow it to the next.
    """
    allowed = dict.fromkeys(sides, tf32())
    keeps = dict.fromkeys(sides, keeps_freed_memory())
    results: dict[K, list[T]] = {name: [] for name in sides}
    for turn in range(burn_in + turns):
        for name, side in sides.items():
            outside = tf32(), keeps_freed_memory()
            set_tf32(allowed[name])
            keep_freed_memory(keeps[name])
            try:
                result = side()
            finally:
                allowed[name], keeps[name] = tf32(), keeps_freed_memory()
                set_tf32(outside[0])
                keep_freed_memory(outside[1])
            if turn >= burn_in:
                results[name].append(result)
    return results


def one_heap() -> None:
    """Let threads that start from now on share the main thread's heap (glibc only)."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


class Paused:
    """A training that goes on for one epoch when asked to.

    A training loop calls back after each epoch and knows no pause. So it runs in a thread of its
    own, and the callback holds it there: what is timed is the loop as it is, warmed up.
    """

    def __init__(self, train: Callable[[Callable[[float], None]], object]) -> None:
        """`train` gets a callback for the wall time [s] of an epoch's steps."""
        self._train = train
        self._go, self._held = Semaphore(0), Semaphore(0)
        self._steps_s = 0.0
        self._error: BaseException | None = None
        self._closing = False
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def epoch(self) -> tuple[float, float]:
        """Train one epoch: the wall times [s] of its steps, and of all of it.

        Raises:
            BaseException: whatever the training raised.
            RuntimeError: the training has no further epoch.
        """
        start = perf_counter()
        self._go.release()
        self._held.acquire()
        seconds = perf_counter() - start
        if self._error is not None:
            raise self._error
        return self._steps_s, seconds

    def __enter__(self) -> Paused:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        self._go.release()
        self._thread.join()

    def _hold(self, steps_s: float) -> None:
        self._steps_s = steps_s
        self._held.release()
        self._go.acquire()
        if self._closing:
            raise _ClosedError

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._closing:
                self._train(self._hold)
                self._error = RuntimeError("the training has no further epoch")
        except _ClosedError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._held.release()


class _ClosedError(BaseException):
    """Ends a held training from inside."""
