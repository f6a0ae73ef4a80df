"""Command lines: their options, their complaints in one line, and a `RunConfig` of them."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import logging
import math
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

from fno_runner.config import RunConfig, allowed, choices, load_config, suggestion, value_types
from fno_runner.errors import MachineError, UserError, printable

if TYPE_CHECKING:  # not every program prints with it
    from pydantic.fields import FieldInfo
    from rich.console import Console

log = logging.getLogger("fno_runner")

P = ParamSpec("P")


def command(main: Callable[P, int]) -> Callable[P, int]:
    """A program's `main` that ends in one line and an exit status, whatever a user can mend.

    Errors end as `refuse` says; Ctrl-C gives 130. Where nobody reads the output to its end, as in
    `… | head`, that is the end, without a word. A mistake of the program keeps its traceback.
    """

    @functools.wraps(main)
    def told(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            status = main(*args, **kwargs)
            if sys.stdout is not None:  # as it is where it was closed before the program began
                sys.stdout.flush()
            return status
        except (UserError, OSError) as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                with Path(os.devnull).open("w") as nowhere:  # for what is still to be written
                    os.dup2(nowhere.fileno(), sys.stdout.fileno())
                return 128 + signal.SIGPIPE
            return refuse(error)
        except KeyboardInterrupt:
            return cut_off(signal.SIGINT)

    return told


def cut_off(number: int) -> int:
    """The exit status of a program that a signal cut off, which then waits for no library's end.

    Cut off in the middle of a call, a library with threads may have left a lock taken, or a task
    counted that never began; what it does at the program's exit would wait for that for ever.
    """
    if not hasattr(sys, "ps1"):  # as an interactive session has, which goes on
        atexit.register(_leave, 128 + number)  # what was registered last is called first
    return 128 + number


def _leave(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or read by nobody
            stream.flush()
    os._exit(status)


def _nobody_reads() -> bool:
    """Whether standard output was closed at its other end."""
    if sys.stdout is None:
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def refuse(error: UserError | OSError) -> int:
    """Print what a user can mend as one line on standard error; the exit status that goes with it.

    An error of the operating system, such as of a disk that is full, gives MachineError's.
    """
    print(f"error: {in_a_line(error)}", file=sys.stderr)
    return error.exit_status if isinstance(error, UserError) else MachineError.exit_status


def in_a_line(error: UserError | OSError) -> str:
    """What went wrong, and with which file."""
    if isinstance(error, UserError):
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    return printable(f"{error.strerror or error}{where}")


def lines_to(console: Console) -> Callable[[str], None]:
    """What prints a line there as it is: not wrapped, no part of it coloured or read as markup."""
    return functools.partial(
        console.print, emoji=False, highlight=False, markup=False, soft_wrap=True
    )


class Parser(argparse.ArgumentParser):
    """Argparse that keeps the line breaks of its help and completes no half-written option."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.register("type", Path, _place)

    def error(self, message: str) -> NoReturn:
        """
        Raises:
            UserError: always, in place of a usage message and exit.
        """
        raise UserError(f"{message} (--help tells more)")


def _place(text: str) -> Path:
    """What `type=Path` makes of an option; an empty text would be the folder that one is in."""
    if not text:
        raise argparse.ArgumentTypeError("empty, as a variable of the shell is that is not set")
    return Path(text)


def count_of(most: int | float = math.inf) -> Callable[[str], int]:
    """The type of an option that is a number of things: an integer from 1 to `most`."""

    def parse(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) < 10 else 0
        if not 1 <= number <= most:
            bound = "" if math.isinf(most) else f" and ≤ {most:g}"
            raise argparse.ArgumentTypeError(f"'{text}': allowed is an integer ≥ 1{bound}")
        return number

    return parse


def number_where(allowed: Callable[[float], bool], words: str) -> Callable[[str], float]:
    """The type of an option that is a number, such as 'a number ≥ 0'."""

    def parse(text: str) -> float:
        try:
            if allowed(number := float(text)):
                return number
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"'{text}': allowed is {words}")

    return parse


def parse_config(argv: Sequence[str] | None, prog: str, description: str) -> RunConfig:
    """The configuration of `--key=value`, `--key value`, `--two_words` or `--two-words` options.

    Args:
        argv: the options; None for those of this process.

    Raises:
        UserError: one line that names the option, the value and what is allowed.
        SystemExit: after `--help`.
    """
    parser = Parser(
        prog=prog,
        description=description,
        epilog="Every option may be written with - or with _: --infer-batch-size 64, "
        "--infer_batch_size=64.",
    )
    for key, field in RunConfig.model_fields.items():
        words = choices(field)
        parser.add_argument(
            *dict.fromkeys((f"--{key}", f"--{key.replace('_', '-')}")),
            dest=key,
            default=argparse.SUPPRESS,
            metavar="|".join(map(str, words)) if words else key.split("_")[-1].upper(),
            help=_help(field).replace("%", "%%"),
        )
    values, unknown = parser.parse_known_args(argv)
    if unknown:
        word = unknown[0].split("=")[0]
        if not word.startswith("--"):
            raise UserError(f"unknown argument '{word}': options are --key=value")
        key = word.removeprefix("--").replace("-", "_")
        raise UserError(f"unknown option '{word}'{suggestion(key, RunConfig.model_fields)}")
    config = load_config({key: _convert(key, text) for key, text in vars(values).items()})
    fields = RunConfig.model_fields
    idle = [k for k in config.without_effect if getattr(config, k) != fields[k].default]
    if idle:
        log.warning("%s: no effect on data that are not simulated so", ", ".join(idle))
    return config


def _help(field: FieldInfo) -> str:
    """What a knob is, its bounds if it is a number, and its default where the words have none."""
    takes = allowed(field)
    bounds = f": {takes}" if takes.startswith(("an integer", "a number")) else ""
    default = field.default
    shown = f"{default:g}" if isinstance(default, float) else default
    return f"{field.description}{bounds}{'' if default is None else f' (default: {shown})'}"


def _convert(key: str, text: str) -> Any:
    """An option's text as its field's type; what is none is refused."""
    field = RunConfig.model_fields[key]
    types = value_types(field)
    # An empty text is none of a number; for a file it is a variable of the shell that is not set.
    nothing = ("none", "null") if str in types else ("none", "null", "")
    if type(None) in types and text.lower() in nothing:
        return None
    for kind in (int, float):
        if kind in types:
            try:
                return kind(text)
            except ValueError:
                raise UserError(f"--{key}={text}: allowed is {allowed(field)}") from None
    return text
