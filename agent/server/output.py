"""A process's output as lines that can be shown beside other processes' lines."""

from __future__ import annotations

import codecs
import re

MAX_LINE = 2000
"""A longer line is broken [characters]."""

CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
"""What moves a terminal's cursor or changes its colours."""


class LineReader:
    """Bytes in, whole lines out; of a bar that overwrites itself, the last state."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes, *, last: bool = False) -> list[str]:
        """The lines that `data` completes, but for empty ones; with `last`, the rest too."""
        *whole, self._rest = (self._rest + self._decoder.decode(data, final=last)).split("\n")
        if last:
            whole.append(self._rest)
            self._rest = ""
        elif len(self._rest) > MAX_LINE:
            # An unfinished line only grows; a bar's states before the last one are not needed.
            self._rest = _last_state(self._rest)
            if len(self._rest) > MAX_LINE:
                whole.append(self._rest)
                self._rest = ""
        shown = [CONTROL.sub("", _last_state(line)).rstrip() for line in whole]
        return [line[at : at + MAX_LINE] for line in shown for at in range(0, len(line), MAX_LINE)]


def _last_state(line: str) -> str:
    """What a terminal would show of a line with carriage returns in it."""
    states = [state for state in line.split("\r") if state.strip()]
    return states[-1] if states else ""
