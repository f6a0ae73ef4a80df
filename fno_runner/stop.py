"""Signals that stop a run: heard at once, raised where it can still give its point back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def heard(on_signal: Callable[[int], None]) -> Iterator[None]:
    """While it is entered, `on_signal` is called with the number of each of `SIGNALS` that comes.

    What is ignored stays so: nohup and background jobs rely on it.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        on_signal(number)

    listened = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in listened}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


class StopSignals(ExitStack):
    """While it is entered, the first of `SIGNALS` ends the run with SystemExit(128 + signal).

    It is held at first, until `release`. Further signals change nothing: a scheduler may send one
    to every process of a job, and the agent hands its own on as well.

    A run may also be asked to end early, with what it has reached: by `end_early`, or by a signal
    that `means_early_end` knows to mean just that. It goes on then, and `ends_early` says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means_early_end: Callable[[int], bool] = lambda number: False
        self._held = True
        self._came: int | None = None
        self._early = threading.Event()

    def __enter__(self) -> StopSignals:
        self.enter_context(heard(self._on_signal))
        return self

    def ends_early(self) -> bool:
        """Whether the run is to end now, on purpose."""
        return self._early.is_set()

    def end_early(self) -> None:
        """Ask the run to end; any thread may. From here on signals change nothing."""
        self._early.set()

    def hold(self) -> None:
        """From here on a signal waits."""
        self._held = True

    def release(self) -> None:
        """From here on a signal raises.

        Raises:
            SystemExit: one has come already.
        """
        self._held = False
        if self._came is not None:
            self._obey(self._came)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it a signal waits, and raises at its end: for calls of libraries with threads.

        An exception that a signal raises in the middle of such a call can leave a lock taken, or a
        task counted that never began. The process would then wait for ever when it ends.

        Raises:
            SystemExit: one has come meanwhile.
        """
        self.hold()
        try:
            yield
        finally:
            self.release()

    def _on_signal(self, number: int) -> None:
        if self._came is None:
            self._came = number
            if not self._held:
                self._obey(number)

    def _obey(self, number: int) -> None:
        if not self.ends_early() and self.means_early_end(number):
            self.end_early()
        if not self.ends_early():
            raise SystemExit(128 + number)
