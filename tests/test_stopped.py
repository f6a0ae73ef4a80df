"""A run that is stopped on purpose: it ends with what it has reached, and is nobody's result."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.analysis.series import series
from agent.report.page_data import page_data
from agent.report.pareto_plot import pareto_figure
from agent.server.point import run_point
from agent.server.stop_request import is_from_the_server
from agent.server.tracker import Tracker
from agent.study.csv_files import as_csv
from agent.study.records import read_records, table
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.result import ErrorInfo, Metrics, RunResult, SeedResult, Status
from fno_runner.runner import run
from fno_runner.stop import StopSignals
from fno_runner.terminal import TerminalProgress
from fno_runner.train.training import train
from tests.studies import grid
from tests.test_runner import arguments

CPU = torch.device("cpu")


def after(steps: int) -> Callable[[], bool]:
    """Says so once it was asked so often: before each epoch, and after its steps but the last."""
    asked = itertools.count(1)
    return lambda: next(asked) > steps


# --- a training -----------------------------------------------------------------------------------


def test_a_training_ends_at_the_step_and_keeps_what_it_had(
    tiny: Dataset, tiny_config: RunConfig
) -> None:
    config = tiny_config.model_copy(update={"epochs": 4})
    (whole,) = train(config, tiny, CPU)
    steps = -(-round(0.95 * len(tiny.train)) // config.batch_size)
    (stopped,) = train(config, tiny, CPU, stop_asked=after(steps + 3))
    assert whole.stopped is None and len(whole.history) == 4
    # One complete epoch, which is that of the whole training, and three steps of the next one.
    first, last = stopped.history
    same = ("epoch", "train_loss", "val_loss", "learning_rate")
    assert [first[key] for key in same] == [whole.history[0][key] for key in same]
    share = 3 * config.batch_size / (len(tiny.train) - round(0.05 * len(tiny.train)))
    assert stopped.stopped == pytest.approx(1 + share)
    assert last["epoch"] == pytest.approx(1 + share, abs=1e-3)
    assert last["val_loss"] is not None and stopped.error is None


@pytest.mark.parametrize("replicates", [1, 2])
def test_what_it_has_reached_is_scored_and_recorded(
    replicates: int, tiny_config: RunConfig
) -> None:
    config = tiny_config.model_copy(update={"epochs": 50, "replicates": replicates})
    outcome = run(config, stop_asked=after(40))
    (record,) = read_records(Path(config.output_dir)).results
    assert record == outcome.result
    assert (record.status, record.schema_version) == ("stopped", 3)
    reached = record.provenance["stopped_epoch"]
    assert isinstance(reached, float) and 0 < reached < 50
    assert record.error is not None
    assert record.error.message == f"stopped after {reached:.4g} of 50 epochs"
    assert record.metrics.pairs["ssim"][1] is not None
    assert record.inference_time_s is None  # nobody waits for times that nobody compares
    written = {path.name for path in outcome.folder.iterdir()}
    assert {"recon.npz", "recon.png", "model.safetensors"} <= written
    assert not (Path(config.output_dir) / "checkpoints" / record.run_id).exists()
    if replicates == 2:
        begun, never_begun = record.by_seed()
        assert begun.metrics == record.metrics and never_begun.metrics == Metrics()
        assert never_begun.status == "stopped" and never_begun.error is not None
        assert "after 0 of 50 epochs" in never_begun.error.message


def test_stopped_before_its_first_step_it_has_no_scores(tiny_config: RunConfig) -> None:
    result = run(tiny_config, stop_asked=lambda: True).result
    assert (result.status, result.metrics, result.history) == ("stopped", Metrics(), [])
    assert json.loads(result.to_json())["provenance"]["stopped_epoch"] == 0


def test_a_seed_that_had_finished_before_stays_finished() -> None:
    def seed(number: int, status: Status, ssim: float | None = None) -> SeedResult:
        metrics = Metrics() if ssim is None else Metrics({"ssim": (0.9, ssim)})
        error = None if status == "finished" else ErrorInfo(type="E", message="why")
        return SeedResult(seed=number, status=status, metrics=metrics, error=error)

    def concluded(*seeds: SeedResult) -> RunResult:
        result = RunResult(run_id="0" * 12, status="failed", config=RunConfig().model_dump())
        result.conclude(list(seeds))
        return result

    result = concluded(seed(0, "finished", 0.8), seed(1, "stopped", 0.9), seed(2, "stopped"))
    assert (result.status, result.error) == ("finished", None)
    assert result.metrics.pairs == {"ssim": (0.9, 0.8)}
    result = concluded(seed(0, "diverged"), seed(1, "stopped", 0.8), seed(2, "stopped"))
    assert (result.status, result.metrics.pairs) == ("stopped", {"ssim": (0.9, 0.8)})


# --- who stops it ---------------------------------------------------------------------------------


def test_a_signal_of_the_server_ends_a_run_early_and_a_schedulers_does_not() -> None:
    with StopSignals() as stop:
        stop.means_early_end = lambda number: number == signal.SIGTERM
        stop.release()
        assert not stop.ends_early()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.ends_early()
        for number in (signal.SIGTERM, signal.SIGINT):  # from here on it goes to its end
            os.kill(os.getpid(), number)
        stop.hold()
        stop.release()
    with StopSignals() as stop:
        stop.means_early_end = lambda number: number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
        stop.release()  # it came while it was held, and ends the run early all the same
        assert stop.ends_early()
    with StopSignals() as stop, pytest.raises(SystemExit) as ended:
        stop.means_early_end = lambda number: number == signal.SIGTERM
        stop.release()
        os.kill(os.getpid(), signal.SIGUSR1)
    assert ended.value.code == 128 + signal.SIGUSR1 and not stop.ends_early()
    with StopSignals() as stop:
        stop.release()
        stop.end_early()  # as the client does, in a thread of its own
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_waits_for_what_does_not_bear_to_be_cut_off() -> None:
    done = []

    with StopSignals() as stop:

        @stop.held()
        def tell(told: str, signals: int = 0) -> None:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
            done.append(told)

        stop.release()
        tell("a")
        with pytest.raises(SystemExit) as ended:
            tell("b", signals=2)
    assert ended.value.code == 128 + signal.SIGTERM and done == ["a", "b"]


@pytest.mark.parametrize("interrupted", [(Tracker, "on_epoch"), (TerminalProgress, "on_step")])
def test_a_signal_never_cuts_off_the_client_or_the_terminal(
    interrupted: tuple[type, str], tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_DIR", tiny_config.output_dir)
    done = []
    owner, name = interrupted
    told = getattr(owner, name)

    def tell(*what: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        told(*what)
        done.append(name)

    monkeypatch.setattr(owner, name, tell)
    with StopSignals() as stop, pytest.raises(SystemExit) as ended:
        run_point(arguments(tiny_config), stop)
    assert ended.value.code == 128 + signal.SIGTERM and done == [name]
    assert not read_records(Path(tiny_config.output_dir)).results


class Server:
    """What is asked of a server, and its answer."""

    answer: Any = True
    asked: tuple[str, ...] = ()

    def __init__(self, timeout: int) -> None:
        self.default_entity = "me"

    def check_stop_requested(self, *place: str) -> bool:
        Server.asked = place
        if isinstance(self.answer, Exception):
            raise self.answer
        return bool(self.answer)


@pytest.mark.parametrize(
    ("answer", "number", "variables", "expected"),
    [
        (True, signal.SIGTERM, {}, True),
        (False, signal.SIGTERM, {}, False),
        (ConnectionError("away"), signal.SIGTERM, {}, False),
        (True, signal.SIGINT, {}, False),
        (True, signal.SIGTERM, {"WANDB_MODE": "offline"}, False),
        (True, signal.SIGTERM, {"WANDB_RUN_ID": None}, False),
        (True, signal.SIGTERM, {"WANDB_SWEEP_ID": None}, False),
    ],
)
def test_only_the_server_knows_whose_a_signal_is(
    answer: object,
    number: int,
    variables: dict[str, str | None],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_of_a_sweep = {
        "WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "r", "WANDB_PROJECT": "p", "WANDB_ENTITY": "e",
        "WANDB_MODE": None,
    }  # fmt: skip
    for name, value in {**run_of_a_sweep, **variables}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("wandb.sdk.launch.api.LaunchApi", Server)
    monkeypatch.setattr(Server, "answer", answer)
    monkeypatch.setattr(Server, "asked", ())
    assert is_from_the_server(number) is expected
    assert Server.asked in ((), ("p", "e", "r"))


# --- a study that has some ------------------------------------------------------------------------


def study() -> list[RunResult]:
    """54 points of one seed each; two were stopped, one of which was splendid so far."""
    results = grid(seeds=(0,))
    for number, ssim in ((5, 0.99), (20, 0.3)):
        results[number].status = "stopped"
        results[number].error = ErrorInfo(type="Stopped", message="stopped after 3.5 of 20 epochs")
        results[number].metrics.pairs["ssim"] = (0.9, ssim)
        results[number].inference_time_s = None
        results[number].schema_version = 3
    return results


def test_it_is_in_the_table_and_in_no_mean_front_or_choice() -> None:
    runs = table(study())
    stopped = runs[runs["status"] == "stopped"]
    assert sorted(stopped["ssim_phase"]) == [0.3, 0.99]
    assert as_csv(runs).count("stopped after 3.5 of 20 epochs") == 2
    (compared,) = series(runs)
    assert len(compared.stopped) == 2 and compared.recommendation is not None
    assert compared.configs["n_stopped"].sum() == 2 and compared.configs["n_failed"].sum() == 0
    chosen = compared.configs.iloc[compared.recommendation.config]
    assert chosen["n_seeds"] == 1
    assert float(np.nanmax(compared.configs["ssim_phase_mean"].astype(float))) < 0.99
    for front in compared.fronts:
        assert set(compared.configs["n_seeds"].iloc[front.members]) == {1}
    (without,) = series(runs[runs["status"] != "stopped"])
    assert "n_stopped" not in without.configs  # a study without one has the table it always had


def test_it_is_drawn_apart() -> None:
    all_series = series(table(study()))
    figure = pareto_figure(all_series)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "stopped early (at the edge: off scale)" in words
    hollow = [c for c in figure.axes[0].collections if not np.size(c.get_facecolor())]
    assert [len(np.asarray(c.get_offsets())) for c in hollow].count(2) == 1
    (shown,) = page_data(all_series, [], Path())["series"]
    assert sorted(shown["fronts"][0]["stopped"]["y"]) == [0.3, 0.99]
