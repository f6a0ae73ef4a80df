"""A slot of `agent.launch`, with a stand-in for its agent that does as it is told."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from agent.scheduling import stop_with_parent
from agent.scheduling.slots import Slot
from agent.server import supervisor
from agent.server.supervisor import AT_END, UNFIT, Ending, Supervisor

# It takes as many points as its --count says, if there are so many, and counts what it hands back.
AGENT = """
import pathlib, sys
points, report, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
left = points.read_text().splitlines()
with report.open("a") as stream:
    stream.writelines(line + "\\n" for line in left[:count])
points.write_text("\\n".join(left[count:]))
"""


def ending(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, *told: str) -> Ending:
    """Why a slot is over whose runs tell this, one after the other."""
    points, report = folder / "points", folder / "report"
    points.write_text("\n".join(told))

    def command(*arguments: str) -> list[str]:
        asked = arguments[arguments.index("--count") + 1]
        return [sys.executable, "-c", AGENT, str(points), str(report), asked]

    monkeypatch.setattr(stop_with_parent, "command", command)
    monkeypatch.setattr(supervisor, "AGAIN_S", 0.01)
    slot = Supervisor(Slot("cpu0", {}), "a/b/c", count, report, {}, 0.0, lambda line: None)
    deadline = time.monotonic() + 30
    while slot.ending is None:
        assert time.monotonic() < deadline
        slot.step()
        time.sleep(0.01)
    return slot.ending


BACK = "unfit the data are not here"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (["recorded"] * 4, Ending(AT_END, "as many as asked")),
        (["recorded", BACK, "recorded", "recorded"], Ending(AT_END, "as many as asked")),
        (["recorded", BACK, "recorded"], Ending(AT_END, "the server has no more points for it")),
        (["recorded"], Ending(AT_END, "the server has no more points for it")),
        (["recorded", "recorded", BACK],
         Ending(UNFIT, "its last run could not begin here: the data are not here")),
    ],
)  # fmt: skip
def test_a_slot_gets_the_points_it_was_asked_for_whatever_it_hands_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str], expected: Ending
) -> None:
    assert ending(tmp_path, monkeypatch, 3, *told) == expected
