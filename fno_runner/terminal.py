"""What a terminal shows of a run: its progress, and what came out."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fno_runner.runner import Outcome
from fno_runner.score.quantities import FLOORS, QUANTITIES, Quantity
from fno_runner.train.progress import Epoch

SCAN_ROWS = ("train", "held_out", "region", "held_out_from_object")
PHASE_ROWS = ("ssim", "psnr", "mae", "pearson", "frc50")


class TerminalProgress:
    """A bar with loss and time left on a terminal; a line an epoch where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("step {task.completed}/{task.total}"),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=None, loss=float("nan"))

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_step(self, step: int, steps: int, loss: float) -> None:
        self._bar.update(self._task, completed=step, total=steps, loss=loss)
        if step == steps:
            self._bar.update(self._task, description="scoring")

    def on_epoch(self, epoch: Epoch) -> None:
        if not self._console.is_terminal:
            self._console.print(
                f"epoch {epoch['epoch']}: loss {epoch['train_loss']:.4f}, "
                f"validation {epoch['val_loss']:.4f}, {epoch['epoch_time_s']:.1f} s"
            )


def print_outcome(outcome: Outcome, console: Console) -> None:
    """A short table of what came out, beside the floors, and where it lies."""
    result = outcome.result
    alike = sum(seed.status == result.status for seed in result.seeds)
    seeds = f", {alike} of {len(result.seeds)} seeds; their mean" if result.seeds else ""
    table = Table(
        title=f"run {result.run_id}: {result.status}{seeds}",
        caption="right: phase without a network, on the same data" if result.floors else None,
    )
    table.add_column(f"against the {result.metrics_against}" if result.metrics_against else "")
    table.add_column("amplitude", justify="right")
    table.add_column("phase", justify="right")
    for name in result.floors:
        table.add_column(FLOORS.get(name.removesuffix("_phase"), name), justify="right")
    for name in PHASE_ROWS:
        if (pair := result.metrics.pairs.get(name)) is not None:
            of_amplitude, of_phase = QUANTITIES[f"{name}_amp"], QUANTITIES[f"{name}_phase"]
            phases = [pair[1], *(floor[name][1] for floor in result.floors.values())]
            # Text: [dB] is a unit, no markup.
            table.add_row(
                Text(_heading_of_both(of_amplitude, of_phase)),
                _shown(of_amplitude, pair[0]),
                *(_shown(of_phase, value) for value in phases),
            )
    if table.row_count:
        console.print(table)
    _print_scores_without_truth(result.metrics.scan, console)
    if result.error is not None:
        console.print(f"{result.status}: {result.error.message}", markup=False)
    if result.status in ("collapsed", "diverged"):
        console.print(_remedy(result.config), markup=False)
    if result.inference_time_s is not None:
        console.print(
            f"{result.model_params:,} parameters · trained in "
            f"{result.timing['train_time_s']:.1f} s · inference {result.inference_time_s:.3f} s "
            f"a pass"
        )
    console.print(f"{outcome.folder}", markup=False, soft_wrap=True)


def log_to_terminal() -> None:
    """Show this program's warnings and notes as lines on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fno_runner").setLevel(logging.INFO)


def _remedy(config: Mapping[str, Any]) -> str:
    """What is worth trying where a network learnt nothing (docs/study/README.md)."""
    rate = f"try a learning rate below {config['learning_rate']:g}, or another seed"
    if config["architecture"] == "hybrid" and config.get("rate_scaling", "none") == "none":
        return f"{rate}; a hybrid mostly wants --rate_scaling fan_in"
    return rate


def _print_scores_without_truth(scores: Mapping[str, Any], console: Console) -> None:
    """A scan's: they are of the patterns, and compare with no object."""
    r, resolution = scores.get("r_factor", {}), scores.get("resolution") or {}
    table = Table("scored without a reference")
    table.add_column("", justify="right")
    for quantity, value in (
        *((QUANTITIES[f"r_{key}"], r.get(key)) for key in SCAN_ROWS),
        (QUANTITIES["resolution_px"], resolution.get("px")),
        (QUANTITIES["resolution_nm"], resolution.get("nm")),
    ):
        if value is not None:
            table.add_row(Text(quantity.heading), quantity.shown(value))
    if table.row_count:
        console.print(table)


def _heading_of_both(of_amplitude: Quantity, of_phase: Quantity) -> str:
    """'PSNR [dB]'; 'MAE [rad] of the phase' where the amplitude's has another unit."""
    alike = of_amplitude.unit == of_phase.unit
    heading = of_phase.heading.removeprefix("phase ")
    return heading if alike else f"{heading} of the phase"


def _shown(quantity: Quantity, value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else quantity.shown(value)
