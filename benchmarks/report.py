"""The table of measurements: on the terminal, as Markdown for people, as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measurement import BASELINE, Measurement, amount
from fno_runner.files import write_text_atomically

CELLS = "each cell: median, ratio to the baseline, share of the machine's floor"
COLUMNS = (
    "quantity", "network", "side", "detail", "unit", "median", "lowest", "highest", "turns",
    "ratio", "floor_s", "floor_bound", "floor_share",
)  # fmt: skip
MACHINE = ("date", "host", "processor", "cores", "bf16 units", "device", "torch", "commit")
"""What of the machine is in every row of the CSV."""

Rows = list[list[str]]


def print_report(
    measurements: Sequence[Measurement], machine: Mapping[str, str], console: Console
) -> None:
    """The machine, and the tables."""
    for name, text in machine.items():
        console.print(f"{name:12} {text}", markup=False, highlight=False, soft_wrap=True)
    for title, (header, *rows) in _tables(measurements).items():
        table = Table(title=title, title_justify="left", caption_justify="left")
        for column in header:
            table.add_column(column, justify="left" if column in ("what", "network") else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def write_report(
    measurements: Sequence[Measurement], machine: Mapping[str, str], folder: Path
) -> tuple[Path, Path]:
    """Write the CSV and the Markdown; the two paths, named after date and host.

    Raises:
        MachineError: the disk refuses.
    """
    stem = f"{datetime.now(UTC):%Y-%m-%d-%H%M}-{machine['host']}"
    table, text = folder / f"{stem}.csv", folder / f"{stem}.md"
    write_text_atomically(table, _csv(measurements, machine))
    write_text_atomically(text, _markdown(measurements, machine))
    return table, text


def _tables(measurements: Sequence[Measurement]) -> dict[str, Rows]:
    """Title → header and rows: what has a baseline has its sides beside each other."""
    beside = [m for m in measurements if m.ratio is not None]
    alone = [m for m in measurements if m.ratio is None]
    tables: dict[str, Rows] = {}
    if beside:
        sides = list(dict.fromkeys(m.side for m in beside))
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for m in beside:
            rows.setdefault((m.quantity, m.network), {})[m.side] = _cell(m)
        tables[CELLS] = [
            ["what", "network", *sides],
            *([*key, *(row.get(side, "–") for side in sides)] for key, row in rows.items()),
        ]
    if alone:
        tables["each by itself"] = [
            ["what", "network", "side", "median", "lowest", "highest", "turns"],
            *(
                [
                    f"{m.quantity}, {m.detail}" if m.detail else m.quantity,
                    *(m.network, m.side),
                    *(amount(v, m.unit) for v in (m.value, min(m.values), max(m.values))),
                    str(len(m.values)),
                ]
                for m in alone
            ),
        ]
    return tables


def _cell(m: Measurement) -> str:
    parts = [amount(m.value, m.unit)]
    if m.side != BASELINE:
        parts.append(f"{m.ratio:.2f}×")
    if m.share is not None:
        parts.append(f"{m.share:.0%}")
    return ", ".join(parts)


def _csv(measurements: Sequence[Measurement], machine: Mapping[str, str]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    facts = [name for name in MACHINE if name in machine]
    writer.writerow([*COLUMNS, *facts])
    for m in measurements:
        writer.writerow(
            [
                *(m.quantity, m.network, m.side, m.detail, m.unit),
                *(f"{v:.6g}" for v in (m.value, min(m.values), max(m.values))),
                len(m.values),
                "" if m.ratio is None else f"{m.ratio:.4g}",
                *(("", "") if m.floor is None else (f"{m.floor.seconds:.6g}", m.floor.bound)),
                "" if m.share is None else f"{m.share:.4g}",
                *(machine[name] for name in facts),
            ]
        )
    return stream.getvalue()


def _markdown(measurements: Sequence[Measurement], machine: Mapping[str, str]) -> str:
    lines = [f"- {name}: {text}" for name, text in machine.items()]
    for title, (header, *rows) in _tables(measurements).items():
        lines += ["", f"{title[0].upper()}{title[1:]}.", ""]
        lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
