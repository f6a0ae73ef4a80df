"""The command `python -m fno_runner.reconstruct --iterative`: an object without any network."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter

import numpy as np
import torch

from fno_runner.apply.options import (
    FILES,
    add_scan_options,
    as_told,
    check_wanted,
    hints_of,
    not_negative,
    parsed,
    write_new,
)
from fno_runner.apply.outputs import write_product
from fno_runner.apply.product import Product, record_of_scan
from fno_runner.cli import Parser, command, count_of
from fno_runner.config import SIZES
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan
from fno_runner.device import pick_device
from fno_runner.errors import UserError, printable
from fno_runner.scan.choice import Choice, choose
from fno_runner.scan.iterative import Fit, reconstruct, residual
from fno_runner.terminal import log_to_terminal

log = logging.getLogger("fno_runner")

AUTO = "auto"

DESCRIPTION = f"""\
Reconstruct a scan without a network: gradient descent on object, probe and, if asked, positions.

  python -m fno_runner.reconstruct --iterative scan.npz
  python -m fno_runner.reconstruct --iterative scan.npz --light held --passes 6
  python -m fno_runner.reconstruct --iterative scan.cxi --modes 2 --positions --smooth auto

{FILES}"""

EPILOG = """\
R = Σ|predicted − measured| / Σ measured amplitude, over all frames. What is `auto` is chosen by R
of a tenth of the frames, which are left out for that; the object is then fitted to all.

Exit status: 0 done; 2 unusable input; 3 this machine cannot do it."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    given = parsed(_parser(), argv)
    check_wanted(given)
    log_to_terminal()
    start = perf_counter()
    scan = read_scan(given.scan, hints_of(given), given.patch_size, given.bin or 1)
    scan = as_told(given, scan)
    if scan.probe is None and given.light != "blind":
        log.warning("%s: has no probe: object and probe are both fitted, blind", given.scan)
        given.light = "blind"
    _check_light(given, scan)
    if given.light == "blind":
        scan = replace(scan, probe=None)
    device = pick_device(given.device)
    choice, fit = _fit(given, scan, device)
    product = _product(given, scan, choice, fit, device)
    folder = write_new(given, partial(write_product, product))
    others = "" if np.isnan(choice.r_left_out) else f", {choice.r_left_out:.4f} of frames left out"
    print(
        f"R {product.record['r']:.4f} of the object{others} · {len(scan)} frames, {choice.passes} "
        f"passes in {fit.seconds:.2f} s, all in {perf_counter() - start:.2f} s · {folder}"
    )
    return 0


def _check_light(given: argparse.Namespace, scan: Scan) -> None:
    """
    Raises:
        UserError: what is said of the probe cannot be, or would not be used.
    """
    if given.light == "blind" and given.probe is not None:
        raise UserError(f"--probe {given.probe}: --light blind begins without any probe")
    if given.light == "held" and scan.probe is not None:
        modes = len(scan.probe)
        if given.modes not in (None, modes):
            raise UserError(f"--modes {given.modes}: allowed with --light held is {modes}, as the "
                            f"probe has")  # fmt: skip


def _fit(given: argparse.Namespace, scan: Scan, device: torch.device) -> tuple[Choice, Fit]:
    """What was chosen, and the fit to all frames."""
    fit = partial(
        reconstruct,
        modes=given.modes or (1 if scan.probe is None else len(scan.probe)),
        fit_probe=given.light != "held",
        fit_positions=given.positions,
        device=device,
    )
    if AUTO in (given.passes, given.smooth):
        smooth, passes = (None if v == AUTO else v for v in (given.smooth, given.passes))
        choice = choose(fit, scan, smooth, passes)
    else:
        choice = Choice(given.smooth, given.passes, float("nan"))
    return choice, fit(scan, smooth=choice.smooth, iterations=choice.passes)


def _product(
    given: argparse.Namespace, scan: Scan, choice: Choice, fit: Fit, device: torch.device
) -> Product:
    told = {
        "command": given.command,
        "iterative": {
            "light": given.light,
            "positions": given.positions,
            "smooth": choice.smooth,
            "passes": choice.passes,
            "r_left_out": None if np.isnan(choice.r_left_out) else choice.r_left_out,
            "r_of_passes": list(fit.r),
            "seconds": fit.seconds,
        },
        "r": residual(fit, scan),
    }
    title = f"{printable(given.scan.name)}, fitted without a network"
    return Product.of_fit(fit, scan, title, record_of_scan(scan, device, **told))


def _parser() -> Parser:
    parser = Parser("python -m fno_runner.reconstruct --iterative", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("--iterative", action="store_true", help="this command")
    add_scan_options(parser)
    add("--patch-size", type=int, choices=SIZES,
        help="side of the frames [px] (default: the smallest that holds 99 %% of the "
        "counts)")  # fmt: skip
    add("--light", choices=("held", "fitted", "blind"), default="fitted",
        help="the probe: held as the file has it; fitted, beginning with that; or begun with what "
        "the mean pattern tells (default: fitted)")  # fmt: skip
    add("--modes", type=count_of(16), help="incoherent modes of the probe (default: the file's)")
    add("--positions", action="store_true", help="correct the positions, too")
    add("--passes", type=_auto_or(count_of(10_000)), default=AUTO, metavar="P",
        help="passes over all frames; auto: until R of frames left out stops falling "
        "(default: auto)")  # fmt: skip
    add("--smooth", type=_auto_or(not_negative), default=0.0, metavar="W",
        help="weight of the object's total variation; or auto: what predicts frames left out best, "
        "for few or noisy frames (default: 0, none)")  # fmt: skip
    return parser


def _auto_or(number: Callable[[str], float]) -> Callable[[str], float | str]:
    """The type of an option that is a number or `auto`; what is neither is told both."""

    def parse(text: str) -> int | float | str:
        if text == AUTO:
            return text
        try:
            return number(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, or {AUTO}") from None

    return parse
