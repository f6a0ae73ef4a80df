"""What the tests of `make test-faults` have injected and found, told at their end."""

from __future__ import annotations

import os
from collections import Counter

EXHAUSTIVE = "FAULTS" in os.environ
"""Set by `make test-faults`: properties are tried on many more inputs."""

injected: Counter[str] = Counter()
observed: Counter[str] = Counter()
fuzzed: Counter[str] = Counter()
consequences: Counter[str] = Counter({"results lost": 0, "results repeated": 0, "points stuck": 0})


def count(what: str, times: int = 1, *, lost: int = 0, repeated: int = 0, stuck: int = 0) -> None:
    """A fault was injected so many times; and what came of it."""
    injected[what] += times
    observe("", 0, lost=lost, repeated=repeated, stuck=stuck)


def observe(what: str, times: int, *, lost: int = 0, repeated: int = 0, stuck: int = 0) -> None:
    """Something happened so many times that is no fault; and what came of it."""
    observed[what] += times
    for name, number in (("lost", lost), ("repeated", repeated), ("stuck", stuck)):
        consequences[f"{'points' if name == 'stuck' else 'results'} {name}"] += number


def summary() -> list[str]:
    """The figures, a line a kind."""
    lines = [f"{number:6d}  {what}" for what, number in sorted(injected.items()) if number]
    lines += [f"{number:6d}  {what}" for what, number in sorted(observed.items()) if number]
    lines += [f"{number:6d}  inputs fuzzed: {what}" for what, number in sorted(fuzzed.items())]
    lines += [f"{number:6d}  {what}" for what, number in consequences.items()]
    # An escape fails its test: what is told here is told of tests that passed.
    return [*lines, f"{sum(injected.values()):6d}  faults injected in all"]
