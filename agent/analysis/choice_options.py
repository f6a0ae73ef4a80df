"""What one may ask of the choice, and the options of command lines that ask it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fno_runner.cli import count_of, number_where
from fno_runner.config import suggestion
from fno_runner.errors import UserError
from fno_runner.score.quantities import COSTS, QUANTITIES

if TYPE_CHECKING:  # what takes seconds to import, and who only starts others needs none
    import pandas as pd

    from agent.analysis.settle import Settling
    from agent.study.quality import Array, Mask
    from agent.study.sweepfile import Sweep

COST = "model_params"
"""What the recommendation saves unless told otherwise: trainable parameters, as real numbers."""
MOST_SEEDS = 10

NOT_NEGATIVE = number_where(lambda number: 0 <= number < math.inf, "a number ≥ 0")
# No doubling of the cost brings 1 in SSIM, or in R.
PRICE = number_where(lambda number: 0 <= number < 1, "a number ≥ 0 and < 1")


@dataclass(frozen=True)
class Limit:
    """A condition that a configuration must meet: the mean of a column, at least or at most."""

    column: str
    bound: float
    least: bool

    @property
    def words(self) -> str:
        """'phase SSIM at least 0.93'."""
        quantity = QUANTITIES[self.column]
        unit = f" {quantity.unit}" if quantity.unit else ""
        return f"{quantity.label} at {'least' if self.least else 'most'} {self.bound:.12g}{unit}"

    def is_met(self, values: Array) -> Mask:
        """By which values; not by NaN."""
        return values >= self.bound if self.least else values <= self.bound


@dataclass(frozen=True)
class ChoiceOptions:
    """What a user asks of the choice; None where the default of the criterion holds.

    price: what a doubling of the cost must bring, in the criterion's unit.
    tolerance: in place of a price: choose the cheapest within it of the best, as version 0.1 did.
    cost: the column of what is paid.
    equal: a difference within it does not matter.
    limits: conditions on what is chosen.
    allow_collapse: choose also what collapsed or diverged in some seed.
    best_over: a key of which each configuration counts at its best value.
    """

    price: float | None = None
    tolerance: float | None = None
    cost: str = COST
    equal: float | None = None
    limits: tuple[Limit, ...] = ()
    allow_collapse: bool = False
    best_over: str | None = None


def add_choice_options(parser: argparse.ArgumentParser) -> None:
    """The options of the price and of what is paid."""
    add = parser.add_argument_group("the choice").add_argument
    add("--price", type=PRICE, metavar="X",
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
    keys = ("price", "tolerance", "cost", "equal", "allow_collapse", "best_over")
    given = {key: options[key] for key in keys if key in options}
    return ChoiceOptions(limits=tuple(limits), **given)


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


def add_settle_options(parser: argparse.ArgumentParser) -> None:
    """The options of settling a choice."""
    add = parser.add_argument_group("settling the choice").add_argument
    probability = number_where(lambda p: 0 < p < 1, "a probability above 0 and below 1")
    add("--settle", type=probability, metavar="P",
        help="when the grid is done, add seeds where they would change the choice, until it is the "
        "right one with probability P, such as 0.9")  # fmt: skip
    add("--most-seeds", type=count_of(), metavar="K",
        help=f"with --settle: at most K seeds a configuration (default: {MOST_SEEDS})")  # fmt: skip


def settling_of(
    args: argparse.Namespace, sweep: Sweep, runs: Callable[[], pd.DataFrame]
) -> Settling | None:
    """What adds seeds to a sweep's grid, if the options ask for it; arguments as of `Settling`.

    Raises:
        UserError: the sweep has no choice to settle, or none is to be settled and there are options
            of it.
    """
    if args.settle is None:
        given = {
            "--most-seeds": args.most_seeds is not None,
            "--price": args.price is not None,
            "--cost": args.cost != COST,
            "--allow-collapse": args.allow_collapse,
        }
        if idle := [option for option, is_given in given.items() if is_given]:
            raise UserError(f"{', '.join(idle)}: only with --settle P")
        return None
    # It takes seconds to import, and few ask for it.
    from agent.analysis.settle import Settling

    return Settling(sweep, choice_options(args), args.settle, args.most_seeds or MOST_SEEDS, runs)
