"""What a race found, as a table and as curves: of several draws with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from benchmarks.race_map import half_interval

WITHIN = (0.10, 0.05, 0.02)
"""Of the best R that any side reaches."""


@dataclass(frozen=True)
class Point:
    """An effort of a side in a draw: its times in each turn [s], and the scores of its object."""

    draw: int
    side: str
    effort: str
    seconds: tuple[float, ...]
    scores: Mapping[str, float | None]

    @property
    def time(self) -> float:
        """The median."""
        return median(self.seconds)

    @property
    def r(self) -> float:
        """R of the frames that judge."""
        r = self.scores["r"]
        assert r is not None
        return r


def table(points: Sequence[Point], training: Mapping[str, float]) -> str:
    """Markdown: how soon each side is within 10, 5 and 2 % of the best R anybody reaches.

    The best is each draw's own. A time is the median of the draws, with the least and the most.
    """
    draws = sorted({p.draw for p in points})
    best = [min(p.r for p in points if p.draw == draw) for draw in draws]
    lines = [
        f"The best R that any side reaches: {_with_interval(best)}.",
        "",
        "| side | best R | its time [s] | to within 10 % [s] | 5 % | 2 % | training before [s] |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for side in dict.fromkeys(p.side for p in points):
        ours = [[p for p in points if (p.draw, p.side) == (draw, side)] for draw in draws]
        tops = [min(one_draw, key=lambda p: p.r) for one_draw in ours]
        cells = [_with_interval([p.r for p in tops]), _with_range([p.time for p in tops])]
        for near in WITHIN:
            soonest = [
                min((p.time for p in one_draw if p.r <= b * (1 + near)), default=math.inf)
                for one_draw, b in zip(ours, best, strict=True)
            ]
            cells.append(_with_range(soonest))
        took = next((s for name, s in training.items() if side.startswith(name)), 0.0)
        cells.append("in an earlier call" if math.isnan(took) else f"{took:.0f}")
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def curves(points: Sequence[Point]) -> str:
    """Markdown: R and time of each effort."""
    lines = ["| side | effort: R (s) |", "| --- | --- |"]
    for side, efforts in _by_side(points):
        told = ", ".join(
            f"{effort}: {_with_interval([p.r for p in drawn])}"
            f" ({median(p.time for p in drawn):.2f})"
            for effort, drawn in efforts.items()
        )
        lines.append(f"| {side} | {told} |")
    return "\n".join(lines) + "\n"


def draw_curves(points: Sequence[Point], title: str, path: Path) -> None:
    """R against wall time, one line a side; told apart in grey by marker and dashes."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(8.2, 4.8), layout="constrained")
    axes = figure.subplots()
    lowest: dict[int, float] = {}
    markers, dashes = "osD^v<>P*Xhd", ("-", "--", ":", "-.")
    middles: list[float] = []
    ends: list[float] = []
    for i, (side, efforts) in enumerate(_by_side(points)):
        ours = sorted(
            (median(p.time for p in drawn), mean(rs), half_interval(rs))
            for drawn in efforts.values()
            for rs in ([p.r for p in drawn],)
        )
        times, rs, halves = zip(*ours, strict=True)
        middles += rs
        lowest[i] = min(rs)
        ends += (r - (0 if math.isnan(half) else half) for r, half in zip(rs, halves, strict=True))
        axes.errorbar(
            times, rs, None if math.isnan(halves[0]) else halves, label=side,
            marker=markers[i % len(markers)], markersize=5, capsize=2,
            linestyle=dashes[i % 4], color=colormaps["tab20"](2 * (i % 10) + i // 10 % 2),
            linewidth=1.3,
        )  # fmt: skip
    best = min(middles)
    axes.set(xscale="log", yscale="log", xlabel="wall time [s]", ylabel="R of judging frames")
    axes.set_ylim(min(ends) * 0.97, min(best * 2.2, 1.03 * max(middles)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5, 7, 8, 9), numticks=20))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.axhline(best * 1.02, color="0.6", linewidth=0.8, label="2 % above the best")
    for drawn, least in zip(axes.containers, lowest.values(), strict=True):
        if least > axes.get_ylim()[1]:
            drawn.set_label(f"{drawn.get_label()} (above)")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _by_side(points: Sequence[Point]) -> Iterator[tuple[str, dict[str, list[Point]]]]:
    """Each side's efforts, and of each effort its draws."""
    for side in dict.fromkeys(p.side for p in points):
        efforts: dict[str, list[Point]] = {}
        for point in points:
            if point.side == side:
                efforts.setdefault(point.effort, []).append(point)
        yield side, efforts


def _with_interval(values: Sequence[float]) -> str:
    half = half_interval(list(values))
    return f"{mean(values):.4f}" + ("" if math.isnan(half) else f" ± {half:.4f}")


def _with_range(seconds: Sequence[float]) -> str:
    """'0.16 (0.15 … 0.17)'; 'not in 2 of 5' where a side is not so near in every draw."""
    missing = sum(math.isinf(s) for s in seconds)
    if missing == len(seconds):
        return "–"
    if missing:
        return f"not in {missing} of {len(seconds)}"
    if len(seconds) == 1:
        return f"{seconds[0]:.2f}"
    return f"{median(seconds):.2f} ({min(seconds):.2f} … {max(seconds):.2f})"
