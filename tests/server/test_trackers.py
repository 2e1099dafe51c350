"""Trackers are told a round's figures under the report's names; one that fails costs a warning and no run.

All three are real, TensorBoard and MLflow on files that are read back and Weights & Biases offline; how MLflow and Weights &
Biases are called is also held by fakes that keep what they are told, for machines without them.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedprune.config import RunConfig
from fedprune.errors import MissingExtraError
from fedprune.report import LayerReport, RoundReport, RunReport
from fedprune.tensor import Schema, TensorSpec
from fedprune.traffic import Traffic
from fedprune_server.onlookers import Begun
from fedprune_server.trackers import Aside, MLflow, WeightsAndBiases, figures, open_trackers, tracked

ROW = RoundReport(
    round=1,
    accuracy=0.5,
    density=0.25,
    density_of_all=0.3,
    seconds=2.0,
    payload=Traffic(up=1, down=2),
    dense_equivalent=Traffic(up=10, down=20),
    metrics={"accuracy": 0.5, "loss": 1.5, "f1": None},
    layers=(LayerReport(name="w", size=8, alive=2),),
)
REPORT = RunReport.of(name="one", outcome="finished", rounds=[ROW])


def begun(folder: Path, *done: RoundReport) -> Begun:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(2, 4)),))
    return Begun(
        run_id="one-1", config=RunConfig.loads("[run]\nname = 'one'\n"), folder=folder, schema=schema, done=done
    )


def test_what_was_not_measured_is_left_out() -> None:
    found = figures(ROW)
    assert found["loss"] == 1.5
    assert found["payload_down"] == 2.0
    assert found["layer_density/w"] == 0.25
    assert not {"f1", "socket_up"} & set(found)


@pytest.mark.filterwarnings("ignore")  # its own, of several libraries
def test_mlflow_reads_the_figures_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    (tracker,) = open_trackers(["mlflow"])
    tracker.begin(begun(tmp_path))
    tracker.round(ROW)
    tracker.begin(begun(tmp_path, ROW))
    tracker.round(replace(ROW, round=2, metrics={"accuracy": 0.75}))
    tracker.end(REPORT)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("fedprune").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["run.name"]) == ("one", "FINISHED", "one")
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "accuracy")] == [(1, 0.5), (2, 0.75)]


@pytest.mark.filterwarnings("ignore")  # its own, of several libraries
def test_weights_and_biases_keeps_the_figures_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_DIR", str(tmp_path)), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    (tracker,) = open_trackers(["wandb"])
    tracker.begin(begun(tmp_path))
    tracker.round(ROW)
    tracker.end(REPORT)
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-one-1.wandb")
    content = kept.read_bytes()
    for told in (b"layer_density/w", b"outcome", b"finished"):
        assert told in content


def test_tensorboard_reads_the_figures_back(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    (tracker,) = open_trackers(["tensorboard"])
    tracker.begin(begun(tmp_path))
    tracker.round(ROW)
    tracker.round(replace(ROW, round=2, accuracy=0.75, metrics={}))
    tracker.end(REPORT)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("accuracy")] == [(1, 0.5), (2, 0.75)]
    assert set(figures(ROW)) == set(events.Tags()["scalars"])


class FakeMlflow:
    """Runs and metrics by run, as a tracking server keeps them."""

    def __init__(self) -> None:
        self.runs: list[SimpleNamespace] = []
        self.metrics: list[tuple[str, str, float, int]] = []
        self.params: dict[str, object] = {}
        self.ended: list[tuple[str, str]] = []

    def MlflowClient(self) -> FakeMlflow:  # as it is called there
        return self

    def set_experiment(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(experiment_id=name)

    def search_runs(self, experiments: list[str], query: str) -> list[SimpleNamespace]:
        return [run for run in self.runs if query == f"tags.`fedprune.run_id` = '{run.tags['fedprune.run_id']}'"]

    def create_run(self, experiment: str, *, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        self.runs.append(SimpleNamespace(tags=tags, info=SimpleNamespace(run_id=f"m{len(self.runs)}")))
        return self.runs[-1]

    def log_param(self, run: str, key: str, value: object) -> None:
        self.params[key] = value

    def log_metric(self, run: str, name: str, value: float, *, step: int) -> None:
        self.metrics.append((run, name, value, step))

    def set_terminated(self, run: str, status: str) -> None:
        self.ended.append((run, status))


def test_mlflow_gets_one_run_also_after_a_restart(tmp_path: Path) -> None:
    service = FakeMlflow()
    for row in (ROW, replace(ROW, round=2)):
        tracker = MLflow(service)
        tracker.begin(begun(tmp_path))
        tracker.round(row)
    tracker.end(replace(REPORT, outcome="stopped"))
    assert service.params["run.name"] == "one"
    assert ("m0", "loss", 1.5, 2) in service.metrics
    assert {run for run, *_ in service.metrics} == {"m0"}
    assert service.ended == [("m0", "KILLED")]


def test_wandb_gets_one_run_also_after_a_restart(tmp_path: Path) -> None:
    started: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []
    ended: list[int] = []
    run = SimpleNamespace(
        log=lambda values, step: logged.append((values, step)),
        summary={},
        finish=lambda exit_code: ended.append(exit_code),
    )

    def init(**keys: Any) -> SimpleNamespace:
        started.append(keys)
        return run

    tracker = WeightsAndBiases(SimpleNamespace(init=init))
    tracker.begin(begun(tmp_path))
    tracker.round(ROW)
    tracker.end(REPORT)
    assert (started[0]["id"], started[0]["resume"], started[0]["config"]["run"]["name"]) == ("one-1", "allow", "one")
    assert logged == [(figures(ROW), 1)]
    assert run.summary == {"outcome": "finished"}
    assert ended == [0]


class Recorder:
    """Keeps what it is told, and breaks where it is told to."""

    def __init__(self, breaks_at: int = 0) -> None:
        self.told: list[int] = []
        self.breaks_at = breaks_at

    def begin(self, run: Begun) -> None:
        self.told.append(0)

    def round(self, row: RoundReport) -> None:
        self.told.append(row.round)
        if row.round == self.breaks_at:
            raise RuntimeError("no route to host")

    def end(self, report: RunReport) -> None:
        self.told.append(-1)


async def test_everything_is_told_in_order_before_the_process_ends(tmp_path: Path) -> None:
    recorder = Recorder()
    async with tracked([recorder]) as (tracker,):
        tracker.begin(begun(tmp_path))
        for number in range(1, 20):
            tracker.round(replace(ROW, round=number))
        tracker.end(REPORT)
    assert recorder.told == [*range(20), -1]


async def test_a_tracker_that_breaks_is_a_warning_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(breaks_at=1)
    aside = Aside(recorder)
    with caplog.at_level(logging.WARNING, "fedprune"):
        aside.begin(begun(tmp_path))
        for number in (1, 1, 1):
            aside.round(replace(ROW, round=number))
        aside.finish()
    assert [r.getMessage() for r in caplog.records] == [
        "Recorder failed and is not told of this run any more: RuntimeError: no route to host"
    ]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_library_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, {"tensorboard": "torch.utils.tensorboard"}.get(name, name), None)
    with pytest.raises(MissingExtraError, match=rf"fedprune\[{name}\]"):
        open_trackers([name])
