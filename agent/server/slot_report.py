"""What runs tell the `agent.launch` above them: a line a run, in a file that their slot has.

`agent.launch` names the file in SLOT_REPORT; where it is not set, nothing is told. A line says
`recorded`: the point has its record, whatever became of it; or `unfit MESSAGE`: this machine, or
its copy of the data, cannot do the point, which was handed back; before it, `broke RUN_ID` where
the card failed under that point. A `wandb agent` in between knows neither: to it, both are an exit
status, and it ends with 0 after three that are not 0.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from agent.scheduling.slots import MAX_BREAKS
from agent.study.records import one_line

SLOT_REPORT = "FNO_SLOT_REPORT"
RECORDED, UNFIT, BROKE = "recorded", "unfit", "broke"


@dataclass(frozen=True)
class SlotReport:
    """What the runs of a slot have told.

    recorded: how many points have their record.
    handed_back: how many runs found the machine unfit.
    unfit: the messages of the last runs in a row that found the machine unfit.
    broke: how often the card failed under each run_id.
    proven: whether another point was recorded since one was last blamed for that.
    """

    recorded: int
    handed_back: int
    unfit: tuple[str, ...]
    broke: Counter[str]
    proven: bool


def tell_recorded() -> None:
    """This run's point has its record."""
    _tell(RECORDED)


def tell_unfit(message: str) -> None:
    """This run cannot be done here."""
    _tell(f"{UNFIT} {one_line(message)}")


def breaks_the_card(run_id: str) -> bool:
    """Note that the card failed under a point; whether the point is to blame, and not the card.

    It is after `MAX_BREAKS` times in a slot in which another point was recorded since one was last
    to blame: a card that fails under every point is given up before it has cost a second one.
    """
    _tell(f"{BROKE} {run_id}")
    report = read_report(Path(os.environ.get(SLOT_REPORT, "")))
    return report.proven and report.broke[run_id] >= MAX_BREAKS


def read_report(path: Path) -> SlotReport:
    """What was told so far in a slot's file; nothing, where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        lines = []
    unfit: list[str] = []
    handed_back = 0
    broke: Counter[str] = Counter()
    proven, before = False, ""
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == BROKE:
            broke[rest] += 1
        else:
            unfit = [*unfit, rest] if word == UNFIT else []
            handed_back += word == UNFIT
        if word == RECORDED:  # a run that broke the card was recorded only as it was to blame
            proven = before != BROKE
        before = word
    return SlotReport(lines.count(RECORDED), handed_back, tuple(unfit), broke, proven)


def _tell(line: str) -> None:
    if path := os.environ.get(SLOT_REPORT):
        # Nobody may be listening any more; the run itself has said it, too.
        with contextlib.suppress(OSError), Path(path).open("a") as stream:
            stream.write(f"{line}\n")
