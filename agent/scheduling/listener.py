"""Whether a process that this one cannot see is still alive: it is heard of, or it is silent."""

from __future__ import annotations

from time import monotonic


class Listener:
    """Tells far processes that have fallen silent from living ones, by no clock but its own.

    A beat is any value that changes as long as its process lives.
    """

    def __init__(self) -> None:
        self._heard: dict[str, tuple[object, float, bool]] = {}

    def silence(self, who: str, beat: object) -> float:
        """For how long that beat has not changed, as far as was listened [s]."""
        known = self._heard.get(who)
        if known is None or known[0] != beat:
            self._heard[who] = (beat, monotonic(), known is not None)
        return monotonic() - self._heard[who][1]

    def has_heard(self, who: str) -> bool:
        """Whether its beat has ever changed."""
        return who in self._heard and self._heard[who][2]
