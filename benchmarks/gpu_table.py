"""What `gpu_study.sh` has measured, beside what is asked for.

python -m benchmarks.gpu_table FOLDER
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Rows = Sequence[Mapping[str, str]]

STEP, FNO, HYBRID = "training step", "fno 32/12", "hybrid 64/24"
AT_ONCE = "training step, 8 networks at once, of each"
PROCESSES = "training step, 8 processes at once, of each"
ALONE, MANY = "inference, one pattern alone", "inference, a pattern of many"


@dataclass(frozen=True)
class Line:
    """One number that is asked for.

    part: the part of `gpu_study.sh` that measures it. before: of version 0.1 on an NVIDIA H200
        (docs/performance.md). must, aim: what is asked for.
    """

    what: str
    part: str
    read: Callable[[Path], str | None]
    before: str
    must: str
    aim: str


def cell(
    quantity: str, network: str, side: str, column: str, shown: Callable[[float], str]
) -> Callable[[Path], str | None]:
    """What reads a number from the newest table of a part."""

    def read(folder: Path) -> str | None:
        for row in _newest(folder):
            if (row["quantity"], row["network"], row["side"]) == (quantity, network, side):
                return shown(float(row[column]))
        return None

    return read


def ms(seconds: float) -> str:
    """Milliseconds, three digits."""
    return f"{seconds * 1e3:.3g} ms"


def seconds_of(folder: Path) -> str | None:
    """How long a part took in all its calls, once it is done."""
    done, spent = (
        folder.with_name(f"{folder.name}.done"),
        folder.with_name(f"{folder.name}.seconds"),
    )
    if not done.exists() or not spent.exists():
        return None
    seconds = sum(int(word) for word in spent.read_text().split())
    return f"{seconds} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def times(factor: float) -> str:
    """How many times as fast."""
    return f"{factor:.1f}×"


def rate(seconds: float) -> str:
    """Patterns a second."""
    return f"{1 / seconds:,.0f}/s"


LINES = (
    Line("make test-gpu", "smoke", seconds_of, "–", "green, ≤ 3 min", ""),
    Line("a step alone, fno 32/12", "step", cell(STEP, FNO, "bf16", "median", ms),
         "1.89 ms", "≤ 1.2 ms", "0.8 ms"),
    Line("a step alone, hybrid 64/24", "step", cell(STEP, HYBRID, "bf16", "median", ms),
         "4.52 ms", "≤ 3.4 ms", "2.5 ms"),
    Line("the same, compiled, fno 32/12", "compiled",
         cell(STEP, FNO, "bf16, compiled", "median", ms), "–", "", ""),
    Line("the same, compiled, hybrid 64/24", "compiled",
         cell(STEP, HYBRID, "bf16, compiled", "median", ms), "–", "", ""),
    Line("8 replicates, a model's step, fno 32/12", "replicates",
         cell(AT_ONCE, FNO, "bf16", "median", ms), "1.31 ms", "≤ 0.5 ms", "0.3 ms"),
    Line("8 processes under MPS, a model's step, fno 32/12", "processes",
         cell(PROCESSES, FNO, "bf16, MPS", "median", ms), "1.89 ms", "≤ 0.7 ms", "0.4 ms"),
    Line("8 processes under MPS, a model's step, hybrid 64/24", "processes",
         cell(PROCESSES, HYBRID, "bf16, MPS", "median", ms), "4.52 ms", "≤ 2.6 ms", "2.0 ms"),
    Line("the same without MPS, fno 32/12", "processes",
         cell(PROCESSES, FNO, "bf16, in turns", "median", ms), "–", "", ""),
    Line("against the plain eager model, a step alone, fno 32/12", "step",
         cell(STEP, FNO, "bf16", "ratio", times), "6.5×", "≥ 10×", "15×"),
    Line("against the plain eager model, 8 replicates, fno 32/12", "replicates",
         cell(AT_ONCE, FNO, "bf16", "ratio", times), "9.5×", "≥ 24×", "40×"),
    Line("inference, fno 32/12, end to end", "inference",
         cell(MANY, FNO, "bf16", "median", rate), "18,000/s", "≥ 60,000/s", "150,000/s"),
    Line("inference, fno 32/12, one pattern alone", "inference",
         cell(ALONE, FNO, "bf16", "median", ms), "7 ms", "≤ 1 ms", ""),
    Line("the study of sweep.yaml on one card", "study", seconds_of,
         "about 55 min", "≤ 18 min", "10 min"),
)  # fmt: skip


def table(folder: Path) -> Iterable[str]:
    """The lines of a Markdown table: what was measured, or with which part it is to be."""
    yield "| one card, bf16, 16 patterns a step | version 0.1 | measured | must | aim |"
    yield "| --- | --- | --- | --- | --- |"
    for line in LINES:
        value = line.read(folder / line.part) or f"unmeasured ({line.part})"
        yield f"| {line.what} | {line.before} | {value} | {line.must} | {line.aim} |"


def _newest(folder: Path) -> Rows:
    tables = sorted(folder.glob("*.csv"))
    if not tables:
        return []
    with tables[-1].open(newline="") as stream:
        return list(csv.DictReader(stream))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the machine of the newest table, and all that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    if rows := _newest(folder / "step"):
        facts = (rows[0][name] for name in ("device", "date", "torch", "commit"))
        print("- " + "\n- ".join(facts) + "\n")
    print("\n".join(table(folder)))


if __name__ == "__main__":
    main()
