"""`python -m fno_runner.export_model`: a trained network as ONNX and torch.export."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from fno_runner.apply.card import LICENSE
from fno_runner.apply.export import FORMATS, export_model
from fno_runner.apply.model import find_model
from fno_runner.apply.outputs import check_place, new_folder
from fno_runner.cli import Parser, command
from fno_runner.result import run_folder
from fno_runner.terminal import log_to_terminal

log = logging.getLogger("fno_runner")

DESCRIPTION = """\
Write a trained network so that it runs without this program.

  python -m fno_runner.export_model STUDY                    both formats, into STUDY.exported
  python -m fno_runner.export_model STUDY/runs/0123456789ab --format onnx -o OUT

Written into OUT, which is new: model.onnx, model.pt2 (torch.export), model.safetensors, README.md
(the model card: how to use it, configuration, quality, limits), result.json, recon.npz. Each format
is run on patterns of the training data and compared with PyTorch before anything is left.
OUT is a MODEL for python -m fno_runner.reconstruct as well.

ONNX needs pip install 'fno-study[export]'."""

EPILOG = "Exit status: 0 done; 2 unusable input; 3 this machine cannot do it."


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say; returns the exit status."""
    given = _parser().parse_args(argv)
    log_to_terminal()
    model = find_model(given.model)
    formats = FORMATS if given.format is None else (given.format,)
    wanted = given.output or _beside(given.model.resolve())
    check_place(wanted)
    told: dict[str, str] = {}
    folder = new_folder(
        wanted, lambda place: told.update(export_model(model, place, formats, given.license))
    )
    if folder != wanted:
        log.warning("%s is there already and is left as it is", wanted)
    for name, what in told.items():
        print(f"{name}: {what}")
    print(folder)
    return 0


def _beside(model: Path) -> Path:
    """MODEL.exported; of a run in its study, as every folder in `runs` is taken for a run."""
    study = model.parent.parent
    is_run = run_folder(study, model.name) == model
    return (study if is_run else model.parent) / f"{model.name}.exported"


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m fno_runner.export_model", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a run's folder, or a study's")
    add("--format", choices=FORMATS, help="one only (default: both)")
    add("-o", "--output", type=Path, metavar="OUT",
        help="a new folder (default: MODEL.exported; of a run in its study)")  # fmt: skip
    add("--license", metavar="TEXT", default=LICENSE, help="the card's line on the licence")
    return parser


if __name__ == "__main__":
    sys.exit(main())
