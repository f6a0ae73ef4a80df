"""All runs of a study as a table, a picture and a recommendation: `python -m agent.export`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from agent.analysis.choice_options import (
    ChoiceOptions,
    add_choice_options,
    add_more_choice_options,
    choice_options,
)
from agent.analysis.comparability import commits_of_one_code, differ_unasked, only_in, with_groups
from agent.analysis.series import configuration_table, series
from agent.report.recommendation_json import to_json
from agent.report.terminal import (
    CONFIGS,
    CSV,
    RECOMMENDATION,
    ExportResult,
    Material,
    first_of,
    print_export,
)
from agent.report.words import count
from agent.report.write import write_report
from agent.server.client import Place, Server, UnknownPlaceError, parse_place
from agent.server.rows import is_ours, with_records_here
from agent.study.coverage import attempts
from agent.study.csv_files import as_csv
from agent.study.folder import STUDIES, adopt_study, newest_study, read_study, server_study
from agent.study.records import one_line, read_records, table
from agent.study.retimes import prefer_retimed
from fno_runner.cli import Parser, command
from fno_runner.errors import UserError
from fno_runner.files import make_folder, number_aside, write_text_atomically

HELP = """\
Write the results of a study's runs, and print the Pareto front and the recommended configuration.
These files are written:

  study_results.csv    a row for each run, failed ones included
  study_configs.csv    a row for each configuration: means over seeds with 95 % intervals
  recommendation.json  the recommended configuration of each series of comparable runs, and why
  pareto_plot.png      quality against cost, with the fronts; .pdf is the same for papers
  ladder.png           the recommended configuration at every price, and the scatter of seeds
  main_effects.png     what each swept key does to the quality, the others averaged
  reconstructions.png  reconstructions of the front and the worst one, beside the truth
  report.html          all of it in one file that opens in a browser, also offline

The recommended configuration is the one that is worth its cost: a network twice as large must gain
0.01 in phase SSIM (--price). docs/statistics.md explains the rule, and how sure the choice is.

A study is a folder on this disk, or a sweep or a whole project on a Weights & Biases server. Runs
of a server are merged with the records on this disk, those of the same runs and those of runs that
the server does not have. The columns wandb_id and wandb_state say what the server knows of a row.
Where a configuration ran several times, a finished run counts before others, and the newest of
those. The other runs are marked superseded.
"""

MORE = """\
examples:
  python -m agent.export                         the newest study on this disk
  python -m agent.export STUDY --price 0.02      a network twice as large must gain 0.02
  python -m agent.export STUDY --cost latency_s --at-least ssim_phase=0.93
                                                 pay for latency, and only with that quality
  python -m agent.export STUDY --best-over learning_rate
                                                 each configuration at its best learning rate
  python -m agent.export team/fno-hyperparam-study/a1b2c3d4 --require-complete
                                                 a sweep, as `wandb sweep` prints it
  python -m agent.export team/fno-hyperparam-study
                                                 all its runs, of whatever sweep

A server needs a login (wandb login, or WANDB_API_KEY); WANDB_BASE_URL names one of your own.

exit status: 0 done · 1 no finished run to recommend, or (with --require-complete) points without a
finished run · 2 bad input, or a server that cannot be read · 3 the files cannot be written
"""


def export(
    study: Path,
    output_dir: Path | None = None,
    options: ChoiceOptions | None = None,
    *,
    allow_mixed: bool = False,
) -> ExportResult:
    """Export a study on this disk: `write` what `read_local` finds.

    Raises:
        UserError: `study` is not a study; nothing was written.
        MachineError: the files cannot be written.
    """
    return write(read_local(study), output_dir, options, allow_mixed)


def read_local(study: Path) -> Material:
    """The runs of a study's folder.

    Raises:
        UserError: it is not a study.
    """
    info = read_study(study)
    records = read_records(study)
    runs, remarks = prefer_retimed(table(records.results), [study])
    return Material(
        name=f"study {info.study_id}",
        source=str(study),
        folder=study,
        sweep=info.sweep,
        table=runs,
        rejected=records.rejected,
        remarks=remarks,
    )


def read_server(server: Server, place: Place) -> Material:
    """The runs of a sweep or a project, merged with the records of its studies on this disk.

    Raises:
        UserError: the server has no such sweep or project, or cannot be read; the sweep is another
            program's; there is no run yet.
    """
    sweep = server.sweep(place) if place.sweep else None
    runs = server.runs(place)
    ours = [run for run in runs if place.sweep or is_ours(run)]
    folder = server_study(place.sweep or place.project)
    merged, records, remarks = with_records_here(ours, [folder.name] if place.sweep else [])
    if merged.table.empty:
        raise UserError(f"{place}: no run of this program yet")
    if superseded := int(merged.table["superseded"].sum()):
        remarks.append(f"{superseded} superseded by another run of the same configuration")
    if foreign := [one_line(run.id) for run in runs if not (place.sweep or is_ours(run))]:
        remarks.append(f"{len(foreign)} of another program, left out: {first_of(foreign)}")
    for name, run_ids in merged.only_here.items():
        sends = f"python -m agent.sync {STUDIES / name} sends them"
        remarks.append(f"{len(run_ids)} here and not on the server ({sends})")
    return Material(
        name=f"{'sweep' if place.sweep else 'project'} {place}",
        source=str(place),
        folder=folder,
        sweep=sweep,
        table=merged.table,
        rejected=[rejected for study in records.values() for rejected in study.rejected],
        remarks=remarks,
    )


def write(
    material: Material, output_dir: Path | None, options: ChoiceOptions | None, allow_mixed: bool
) -> ExportResult:
    """Write tables, recommendation, pictures and report.html, each whole or not at all.

    The same material gives the same bytes, but for the time that report.html says it was written.

    Args:
        output_dir: where the files go; the material's folder if None.
        options: of the choice; None for a price of 0.01 in phase SSIM (R: 0.001) a doubling.
        allow_mixed: compare runs of different data, epochs, schema or code apart, each group by
            itself, with a column that names it; otherwise they are refused.

    Raises:
        UserError: there is no run, or not every one that a server knew, and an earlier table would
            be lost; runs are mixed that were not asked to be.
        MachineError: the files cannot be written.
    """
    runs, sweep = material.table, material.sweep
    folder = output_dir or material.folder
    csv = folder / CSV
    if runs.empty and csv.exists():
        raise UserError(f"{material.source}: no run to export; {csv} is left as it is")
    if (lost := only_in(csv, runs)) and "wandb_id" not in runs:
        raise UserError(
            f"{csv} has {lost} runs that only the server knows and is left as it is; export the "
            "sweep by its name to renew it, or give another --output-dir"
        )
    told = differ_unasked(material.counted, sweep)
    if told and not allow_mixed:
        raise UserError(
            f"{material.source}: runs differ in {'; in '.join(told.values())}; --allow-mixed "
            "compares each group by itself"
        )
    if told:
        runs = with_groups(runs, told)
        material = replace(material, table=runs)
    elif commits := commits_of_one_code(material.counted):
        remark = f"runs of commits {', '.join(commits)}, which compute the same (code)"
        material = replace(material, remarks=[*material.remarks, remark])
    all_series = series(material.counted, options)
    grid = attempts(sweep, runs) if sweep is not None and sweep.method == "grid" else None
    make_folder(folder)
    if lost:  # somebody deleted or edited runs at the server, or it is another project's table
        kept = number_aside(csv, csv.with_name(f"{csv.name}.before"))
        what = "no longer there, or no longer finished"
        remark = f"{what}: {count(lost, 'run')} of the earlier table, which is {kept} now"
        material = replace(material, remarks=[*material.remarks, remark])
    write_text_atomically(csv, as_csv(runs))
    write_text_atomically(folder / CONFIGS, as_csv(configuration_table(all_series)))
    write_text_atomically(folder / RECOMMENDATION, to_json(material.name, all_series))
    result = ExportResult(material, all_series, folder, pictures=[], grid=grid)
    return replace(result, pictures=write_report(result))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Export a study; the exit status."""
    args = _parser().parse_args(argv)
    result = _export(args)
    # Away from a terminal rich assumes 80 columns and breaks the table's words.
    width = None if sys.stdout.isatty() else 140
    print_export(result, Console(width=width))
    source = result.material.source
    if args.require_complete and result.missing:
        lacking = f"{len(result.missing)} of the grid's {len(result.grid or ())} points"
        print(f"error: {source}: {lacking} have no finished run", file=sys.stderr)
        return 1
    if any(compared.recommendation for compared in result.series):
        return 0
    reasons = dict.fromkeys(compared.why_not for compared in result.series)
    why = "; ".join(reasons) or "no finished run to recommend"
    print(f"error: {source}: {why}", file=sys.stderr)
    return 1


def _export(args: argparse.Namespace) -> ExportResult:
    source = newest_study() if args.study is None else _source(args.study)
    try:
        material = read_local(source) if isinstance(source, Path) else read_server(Server(), source)
    except UnknownPlaceError as error:
        raise UserError(f"{error}, and there is no such folder here") from None
    if args.require_complete and (material.sweep is None or material.sweep.method != "grid"):
        raise UserError(f"--require-complete: {material.source} is not the study of a grid")
    result = write(material, args.output_dir, choice_options(args), args.allow_mixed)
    if isinstance(source, Place) and material.sweep is not None and args.output_dir is None:
        # So that the folder, exported without the server, knows its grid.
        adopt_study(material.folder, material.sweep)
    return result


def _source(text: str) -> Path | Place:
    """What is to be exported: a folder if there is one, else a place on the server."""
    if text and (Path(text).exists() or text.startswith((".", "/"))):
        return Path(text)
    try:
        return parse_place(text)
    except UserError:
        raise UserError(
            f"'{text}': no such study folder, nor ENTITY/PROJECT or ENTITY/PROJECT/SWEEP_ID, "
            "as `wandb sweep` prints it"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m agent.export", HELP, MORE)
    add = parser.add_argument
    add("study", nargs="?", metavar="STUDY_DIR | ENTITY/PROJECT[/SWEEP_ID]",
        help=f"the study (default: the newest folder in {STUDIES})")  # fmt: skip
    add("--output-dir", "--output_dir", type=Path, metavar="DIR",
        help="where the files go (default: the study's folder; that of a sweep is "
        f"{STUDIES}/SWEEP_ID)")  # fmt: skip
    add("--require-complete", action="store_true",
        help="exit status 1 where a point of the grid has no run that finished, or that was "
        "stopped on purpose")  # fmt: skip
    add("--allow-mixed", action="store_true",
        help="take runs of different data, epochs, schema or code, each group compared by "
        "itself")  # fmt: skip
    add_choice_options(parser)
    add_more_choice_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
