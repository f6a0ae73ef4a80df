"""How far the statistics of a study can be trusted: simulated studies, of which the truth is known.

    python -m benchmarks.choice [--studies 2000] [--settled 60] [--most-seeds 10]

Prints what docs/statistics.md quotes: coverage of the intervals and their width against version
0.1's, the calibration of the probability of the choice, the runs that settling takes, and the made
study. Nothing is trained; one core, a few minutes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
import torch

from agent.analysis.allocation import next_second, next_seed
from agent.analysis.means import Means, exact, means
from agent.analysis.price import Price
from agent.analysis.probabilities import choice_probabilities
from agent.analysis.scatter import trend_terms
from fno_runner.cli import Parser, command, count_of
from fno_runner.config import RunConfig
from fno_runner.models import build_network, count_parameters

Array = npt.NDArray[np.float64]

GRID = list(product(("fno", "hybrid"), ("none", "log1p", "sqrt"), (12, 16, 24), (32, 48, 64)))
"""architecture, input transform, modes, width of sweep.yaml's 54 configurations."""
SCATTER = 0.006
OLD_WIDTHS = {2: 5.89, 3: 2.22, 5: 1.23}
"""Median half width of version 0.1's intervals of n normal seeds, in standard deviations of a seed,
measured with its code (agent.bootstrap.mean_intervals of commit 1526a4b, 4,000 samples of each)."""


@cache
def parameters() -> Array:
    """Trainable parameters of the 54 networks, counted from the networks themselves."""
    with torch.device("meta"):
        configs = [
            RunConfig(architecture=a, input_transform=t, modes=m, width=w)  # type: ignore[arg-type]
            for a, t, m, w in GRID
        ]
        counts = [count_parameters(build_network(config, 1)) for config in configs]
    return np.array(counts, dtype=float)


def made_quality() -> Array:
    """Phase SSIM of the made study: grows with width and modes, hybrid is better, log1p worse."""
    return np.array(
        [
            0.90
            + 0.03 * math.log2(w / 32)
            + 0.008 * math.log2(m / 12)
            + 0.012 * (a == "hybrid")
            - 0.01 * (t == "log1p")
            for a, t, m, w in GRID
        ]
    )


@cache
def terms() -> Array:
    """What the scatter of the 54 configurations may follow."""
    return trend_terms([a for a, *_ in GRID], parameters(), np.zeros(len(GRID), bool))


def scatters() -> dict[str, Callable[[np.random.Generator], Array]]:
    """Standard deviations of the seeds of the 54 configurations, in six ways."""
    hybrid = np.array([a == "hybrid" for a, *_ in GRID])
    log_cost = np.log(parameters())
    cost = (log_cost - log_cost.min()) / np.ptp(log_cost)
    return {
        "even": lambda rng: np.full(54, SCATTER),
        "fourfold by architecture": lambda rng: np.where(hybrid, 2, 0.5) * SCATTER,
        "fourfold, grows with cost": lambda rng: SCATTER / 2 * 4**cost,
        "fourfold, falls with cost": lambda rng: SCATTER * 2 * 4**-cost,
        "fourfold, follows nothing": lambda rng: SCATTER / 2 * 4 ** rng.random(54),
        "two kinds, follow nothing": lambda rng: rng.choice([0.5, 2], 54) * SCATTER,
    }


def coverage(sigma: Array, n: int, studies: int, rng: np.random.Generator) -> tuple[Array, float]:
    """How often each configuration's interval covers its mean; the median half width in sigma."""
    truth = made_quality()
    hits, widths = np.zeros(54), []
    for _ in range(studies):
        values = truth[:, None] + sigma[:, None] * rng.standard_normal((54, n))
        low, high = means(values, "logit", terms()).interval()
        hits += (low <= truth) & (truth <= high)
        widths.append(float(np.median((high - low) / 2 / sigma)))
    return hits / studies, float(np.median(widths))


def choice(values: Array, price: float) -> tuple[Array, Means]:
    """The probability of being the choice (54,), of seeds' numbers (54, s)."""
    quality, cost = means(values, "logit", terms()), exact(parameters())
    rows = np.argsort(parameters(), kind="stable")
    if np.isnan(quality.error).any():
        return np.full(54, math.nan), quality
    return choice_probabilities(quality, cost, 1, Price(price), rows), quality


def true_choice(truth: Array, price: float) -> int:
    """The configuration that the rule gives of the true means."""
    rows = np.argsort(parameters(), kind="stable")
    return int(rows[Price(price).choose(truth[rows], parameters()[rows])])


def varied_truth(rng: np.random.Generator) -> Array:
    """The made study's means, each configuration with a deviation of its own: no two are alike."""
    return made_quality() + SCATTER * rng.standard_normal(54)


def calibration(n: int, studies: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """What the probability of the chosen one says, and whether it is the true choice (studies,)."""
    says, right = np.empty(studies), np.empty(studies, bool)
    for study in range(studies):
        truth, price = varied_truth(rng), float(0.01 * 2 ** rng.uniform(-1, 1))
        values = truth[:, None] + SCATTER * rng.standard_normal((54, n))
        probability, _ = choice(values, price)
        best = int(np.argmax(probability))
        says[study], right[study] = probability[best], best == true_choice(truth, price)
    return says, right


def chosen_coverage(
    n: int, alike: float, studies: int, rng: np.random.Generator
) -> tuple[float, float]:
    """How often the reported interval of the chosen one covers, and its mean's error in sigma.

    Args:
        alike: the correlation of a seed's luck on the validation and on the test object.
    """
    hits, errors = 0, []
    for _ in range(studies):
        truth, luck = varied_truth(rng), rng.standard_normal((2, 54, n))
        validated = truth + SCATTER * luck[0].mean(axis=1)
        tested = alike * luck[0] + math.sqrt(1 - alike**2) * luck[1]
        reported = means(truth[:, None] + SCATTER * tested, "logit", terms())
        row = true_choice(validated, 0.01)
        low, high = reported.interval()
        hits += bool(low[row] <= truth[row] <= high[row])
        errors.append((reported.mean[row] - truth[row]) / SCATTER)
    return hits / studies, float(np.mean(errors))


def settled(
    truth: Array,
    first: int,
    target: float,
    rng: np.random.Generator,
    most_seeds: int,
    price: float = 0.01,
) -> tuple[int, bool, bool]:
    """Runs until the choice has the probability, whether it got there, whether it is right."""
    drawn = truth[:, None] + SCATTER * rng.standard_normal((54, most_seeds))
    values = np.where(np.arange(most_seeds) < first, drawn, math.nan)
    while True:
        probability, quality = choice(values, price)
        best = int(np.argmax(np.nan_to_num(probability)))
        reached = bool(np.nan_to_num(probability)[best] >= target)
        value = quality.mean - price * np.log2(parameters())
        known = probability, value, quality.counts, quality.counts < most_seeds
        row = next_second(*known)
        if row is None and not reached:
            row = next_seed(*known)
        if row is None:
            runs = int(np.isfinite(values).sum())
            return runs, reached, best == true_choice(truth, price)
        values[row, quality.counts[row]] = drawn[row, quality.counts[row]]


def replicated(truth: Array, target: float, rng: np.random.Generator, most: int = 40) -> int:
    """Runs until the choice has the probability when every configuration gets as many seeds."""
    drawn = truth[:, None] + SCATTER * rng.standard_normal((54, most))
    for n in range(2, most + 1):
        probability, _ = choice(drawn[:, :n], 0.01)
        if probability.max() >= target:
            return 54 * n
    return 54 * most


def made_study(studies: int, price: float, n: int = 3) -> tuple[dict[str, int], int]:
    """How often each architecture and width is chosen; how often by less than two errors.

    The second counts the studies in which the chosen one's true value is below the hand's by at
    most two standard errors of a difference: more than that nobody can ask of three seeds.
    """
    truth = made_quality()
    value = truth - price * np.log2(parameters())
    error = SCATTER * math.sqrt(2 / n)
    counts: dict[str, int] = {}
    near = 0
    rng = np.random.default_rng(int(1e6 * price))
    for _ in range(studies):
        quality = truth + SCATTER / math.sqrt(n) * rng.standard_normal(54)
        row = true_choice(quality, price)
        name = f"{GRID[row][0]} of width {GRID[row][3]}"
        counts[name] = counts.get(name, 0) + 1
        near += bool(value.max() - value[row] <= 2 * error)
    return dict(sorted(counts.items(), key=lambda item: -item[1])), near


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print all of it."""
    parser = Parser(prog="python -m benchmarks.choice", description=__doc__)
    parser.add_argument("--studies", type=count_of(), default=2000, help="of coverage")
    parser.add_argument("--settled", type=count_of(), default=60, help="studies that are settled")
    parser.add_argument(
        "--most-seeds", type=count_of(), default=10, help="of a configuration that is settled"
    )
    args = parser.parse_args(argv)
    print(f"coverage of 95 % intervals, {args.studies} studies of 54 configurations")
    for name, draw in scatters().items():
        for n in (2, 3, 5):
            rng = np.random.default_rng(n)
            covered, width = coverage(draw(rng), n, args.studies, rng)
            print(
                f"  {name}, n = {n}: {100 * covered.mean():.1f} %, least covered "
                f"{100 * covered.min():.1f} %, width {width / OLD_WIDTHS[n]:.2f} of version 0.1's",
                flush=True,
            )
    for n, alike in product((2, 3, 5), (0.5, 0.9)):
        often, error = chosen_coverage(n, alike, args.studies // 2, np.random.default_rng(n))
        print(
            f"  of the chosen one, n = {n}, objects alike by {alike}: {100 * often:.0f} %, its "
            f"mean {error:+.2f} standard deviations of a seed off",
            flush=True,
        )
    print("probability of the choice, and how often it is the true one")
    for n in (2, 3, 5):
        says, right = calibration(n, args.studies // 2, np.random.default_rng(n))
        for low, high in ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)):
            some = (says >= low) & (says < high + (high == 1))
            share = f"{100 * right[some].mean():.0f} %" if some.any() else "–"
            print(f"  n = {n}, says {low:.1f} to {high:.1f}: {share} of {some.sum()}", flush=True)
    print(f"runs until the choice has a probability of 0.9, {args.settled} studies")
    truths = [varied_truth(np.random.default_rng(s)) for s in range(args.settled)]
    equal = np.array(
        [replicated(t, 0.9, np.random.default_rng(1000 + s)) for s, t in enumerate(truths)]
    )
    print(f"  every configuration the same: median {np.median(equal):.0f}, mean {equal.mean():.0f}")
    for first in (1, 2):
        told = [settled(t, first, 0.9, np.random.default_rng(1000 + s), args.most_seeds)
                for s, t in enumerate(truths)]  # fmt: skip
        runs, reached, right = (np.array(part) for part in zip(*told, strict=True))
        got = reached.astype(bool)
        print(
            f"  settled from {first} seed{'s'[: first - 1]} each, at most {args.most_seeds}: "
            f"median {np.median(runs):.0f}, mean {runs.mean():.0f}; reached in {got.sum()}, of "
            f"which the choice is the true one in {right[got].sum()}; where reached median "
            f"{np.median(runs[got]):.0f} against {np.median(equal[got]):.0f}",
            flush=True,
        )
    print("the made study, 3 seeds, 200 draws")
    for price in (0.0, 0.006, 0.01, 0.013, 0.02):
        chosen, near = made_study(200, price)
        row = true_choice(made_quality(), price)
        words = ", ".join(f"{name} {n}" for name, n in chosen.items())
        print(
            f"  price {price:g}: by hand {GRID[row][0]} of width {GRID[row][3]}; drawn {words}; "
            f"within two errors of it {near}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
