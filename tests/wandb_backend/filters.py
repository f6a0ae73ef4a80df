"""The public API's run filters (a part of MongoDB's query language), order and pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .runs import Run, stamp

MISSING = object()
"""A field that the run does not have, which differs from one that is null."""


def compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """`test`, false where the two cannot be compared."""

    def tested(held: Any, wanted: Any) -> bool:
        try:
            return held is not MISSING and held is not None and test(held, wanted)
        except TypeError:
            return False

    return tested


def equal(held: Any, wanted: Any) -> bool:
    """Equality; a list (tags) holds the value."""
    return wanted in held if isinstance(held, list) else bool(held == wanted)


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": equal,
    "$ne": lambda held, wanted: not equal(held, wanted),
    "$in": lambda held, wanted: any(equal(held, item) for item in wanted),
    "$nin": lambda held, wanted: not any(equal(held, item) for item in wanted),
    "$gt": compare(lambda held, wanted: held > wanted),
    "$gte": compare(lambda held, wanted: held >= wanted),
    "$lt": compare(lambda held, wanted: held < wanted),
    "$lte": compare(lambda held, wanted: held <= wanted),
    "$exists": lambda held, wanted: (held is not MISSING) == wanted,
    "$regex": compare(lambda held, wanted: re.search(wanted, held) is not None),
}


def value_of(run: Run, name: str) -> Any:
    """The field of a run that a filter or an order calls `name`."""
    for prefix, values in (("config.", run.config), ("summary_metrics.", run.summary)):
        if name.startswith(prefix):
            key = name.removeprefix(prefix).removesuffix(".value")
            return values.get(key, MISSING)
    fields = {
        "name": run.id,
        "display_name": run.display_name,
        "displayName": run.display_name,
        "state": run.state,
        "sweep": run.sweep_id,
        "group": run.group,
        "jobType": run.job_type,
        "tags": run.tags,
        "host": run.host,
        "created_at": stamp(run.number),
        "createdAt": stamp(run.number),
    }
    if name not in fields:
        raise ValueError(f"the stand-in cannot filter or order by {name!r}")
    return fields[name]


def matches(run: Run, filters: Mapping[str, Any]) -> bool:
    """Whether a run passes a filter."""
    for name, wanted in filters.items():
        if name == "$and":
            passed = all(matches(run, item) for item in wanted)
        elif name == "$or":
            passed = any(matches(run, item) for item in wanted)
        elif name == "$nor":
            passed = not any(matches(run, item) for item in wanted)
        elif isinstance(wanted, Mapping):
            held = value_of(run, name)
            passed = all(OPERATORS[sign](held, value) for sign, value in wanted.items())
        else:
            passed = equal(value_of(run, name), wanted)
        if not passed:
            return False
    return True


def ordered(runs: Sequence[Run], order: str | None) -> list[Run]:
    """Runs sorted by "+field" or "-field"; runs without the field come last."""
    order = order or "+created_at"
    name = order.lstrip("+-")
    if name in ("created_at", "createdAt", "heartbeat_at"):
        return sorted(runs, key=lambda run: run.number, reverse=order.startswith("-"))
    have = [run for run in runs if isinstance(value_of(run, name), int | float | str)]
    rest = [run for run in runs if run not in have]
    return [
        *sorted(have, key=lambda run: value_of(run, name), reverse=order.startswith("-")),
        *rest,
    ]


def page(items: Sequence[Any], after: str | None, first: int, overlap: int = 0) -> dict[str, Any]:
    """A GraphQL connection: `first` items after the cursor `after`.

    With `overlap` every page but the first begins that many items early, as when runs move
    between pages while a client is reading: it sees some of them twice.
    """
    start = int(after) if after else 0
    start = max(start - overlap, 0)
    end = min(start + first, len(items))
    return {
        "edges": [
            {"node": item, "cursor": str(n)} for n, item in enumerate(items[start:end], start + 1)
        ],
        "pageInfo": {
            "__typename": "PageInfo",
            "endCursor": str(end) if end > start else None,
            "hasNextPage": end < len(items),
        },
    }
