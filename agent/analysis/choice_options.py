"""What a command line asks of the choice: options that commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from agent.analysis.configurations import COST
from agent.analysis.recommendation import ChoiceOptions, Limit
from fno_runner.cli import number_where
from fno_runner.config import suggestion
from fno_runner.errors import UserError
from fno_runner.score.quantities import COSTS, QUANTITIES

NOT_NEGATIVE = number_where(lambda number: 0 <= number < math.inf, "a number ≥ 0")


def add_choice_options(parser: argparse.ArgumentParser) -> None:
    """The options of the price and of what is paid."""
    add = parser.add_argument_group("the choice").add_argument
    add("--price", type=NOT_NEGATIVE, metavar="X",
        help="what a doubling of the cost must bring, in the quality's unit: 0 chooses the best, a "
        "high price the frugal one (default: 0.01 in phase SSIM, 0.001 in R)")  # fmt: skip
    add("--cost", choices=[cost.column for cost in COSTS], default=COST,
        help=f"what is paid (default: {COST}); a time is that on most runs' device")  # fmt: skip
    add("--allow-collapse", action="store_true",
        help="choose also configurations of which a seed collapsed or diverged")  # fmt: skip


def add_more_choice_options(parser: argparse.ArgumentParser) -> None:
    """The options that only an export has."""
    add = parser.add_argument
    add("--at-least", action="append", default=[], metavar="COLUMN=X",
        help="choose only among configurations whose mean is at least X, such as ssim_phase=0.93; "
        "may be given several times")  # fmt: skip
    add("--at-most", action="append", default=[], metavar="COLUMN=X",
        help="… at most X, such as latency_s=0.005")  # fmt: skip
    add("--equal", type=NOT_NEGATIVE, metavar="X",
        help="what differs by less is as good (default: 0.005 in SSIM, 0.0005 in R)")  # fmt: skip
    add("--best-over", metavar="KEY",
        help="each configuration counts at its best value of a key that is no question of the "
        "study, such as learning_rate, chosen for every seed by the other seeds")  # fmt: skip
    add("--tolerance", type=NOT_NEGATIVE, metavar="X",
        help="in place of a price: recommend the cheapest configuration within X of the best, "
        "whatever the seeds say")  # fmt: skip


def choice_options(args: argparse.Namespace) -> ChoiceOptions:
    """What the options ask.

    Raises:
        UserError: a limit is none that can be read, or two rules are asked at once.
    """
    options = vars(args)
    if args.price is not None and options.get("tolerance") is not None:
        raise UserError("--price and --tolerance are two rules of the choice: give one of them")
    limits = [*_limits("--at-least", options.get("at_least", [])),
              *_limits("--at-most", options.get("at_most", []))]  # fmt: skip
    return ChoiceOptions(
        price=args.price,
        tolerance=options.get("tolerance"),
        cost=args.cost,
        equal=options.get("equal"),
        limits=tuple(limits),
        allow_collapse=args.allow_collapse,
        best_over=options.get("best_over"),
    )


def _limits(option: str, texts: Sequence[str]) -> list[Limit]:
    limits = []
    for text in texts:
        column, equals, number = text.partition("=")
        if column not in QUANTITIES:
            raise UserError(f"{option}: unknown column '{column}'{suggestion(column, QUANTITIES)}")
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if not equals or not math.isfinite(bound):
            raise UserError(f"{option} {text}: allowed is {column}=NUMBER")
        limits.append(Limit(column, bound, option == "--at-least"))
    return limits
