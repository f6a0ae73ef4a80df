"""What a sweep shows while it runs: one progress display, or plain lines where no terminal is."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fno_runner.result import SETTLED

COLOURS = {"finished": "green", "stopped": "yellow"}
"""Of a point by its status; of any other status red."""


class Display:
    """Points done, running and failed, and the time left."""

    def __init__(self, console: Console, total: int, done: int, failed: int, workers: int) -> None:
        """Begin with a study of `total` points, `done` and `failed` of them recorded before."""
        self._console = console
        self._total, self._done, self._failed, self._workers = total, done, failed, workers
        self._running: dict[str, tuple[str, float]] = {}
        self._durations: list[float] = []
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)
        self._refresh()

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._progress.stop()

    def started(self, run_id: str, name: str) -> None:
        """A point's process has started."""
        self._running[run_id] = (name, time.monotonic())
        if not self._console.is_terminal:
            self.note(f"start     {run_id}  {name}")
        self._refresh()

    def ended(self, run_id: str, status: str, headline: str) -> None:
        """A point has its record; `headline` is its score, or what went wrong."""
        name, start = self._running.pop(run_id)
        took = time.monotonic() - start
        self._durations.append(took)
        if status in SETTLED:
            self._done += 1
        else:
            self._failed += 1
        colour = COLOURS.get(status, "red")
        score = f"{headline}  " if headline else ""
        self._print(
            f"[{colour}]{status:<10}[/]{run_id}  {escape(name)}  {escape(score)}{duration(took)}"
        )
        self._refresh()

    def returned(self, run_id: str) -> None:
        """A point goes back to the queue."""
        self._running.pop(run_id, None)
        self._refresh()

    def grow(self, points: int) -> None:
        """So many points more than were known of at first."""
        self._total += points
        self._progress.update(self._task, total=self._total)

    def note(self, line: str) -> None:
        """Something else to know, above the bar."""
        self._print(escape(line))

    def _print(self, line: str) -> None:
        self._console.print(line, emoji=False, highlight=False, soft_wrap=True)

    def _refresh(self) -> None:
        words = [f"{len(self._running)} running"]
        if self._failed:
            words.append(f"[red]{self._failed} failed[/]")
        if left := self._time_left():
            words.append(f"about {left} left")
        if self._running:
            words.append(escape(", ".join(name for name, _ in self._running.values())))
        self._progress.update(
            self._task, completed=self._done + self._failed, description=" · ".join(words)
        )

    def _time_left(self) -> str:
        """By the points that ended so far, as if the workers shared the rest evenly."""
        open_points = self._total - self._done - self._failed
        if not self._durations or open_points <= 0:
            return ""
        mean = sum(self._durations) / len(self._durations)
        now = time.monotonic()
        spent = sum(min(mean, now - start) for _, start in self._running.values())
        return duration((open_points * mean - spent) / self._workers)


def duration(seconds: float) -> str:
    """Seconds for humans: '8 s', '3 min', '2 h 5 min'."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
