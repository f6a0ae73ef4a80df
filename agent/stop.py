"""Signals that stop a run: heard at once, raised where it can still give its point back."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class StopSignals:
    """While it is entered, the first of `SIGNALS` ends the run with SystemExit(128 + signal).

    It is held at first, until `release`. Further signals change nothing: a scheduler may send one
    to every process of a job, and the agent hands its own on as well.
    """

    def __init__(self) -> None:
        self._held = True
        self._came: int | None = None

    def __enter__(self) -> Self:
        # What is ignored stays so: nohup and background jobs rely on it.
        heard = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._on_signal) for number in heard}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

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
            raise SystemExit(128 + self._came)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._came is None:
            self._came = number
            if not self._held:
                raise SystemExit(128 + number)
