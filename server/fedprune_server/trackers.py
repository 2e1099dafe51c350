"""Experiment trackers that people have already: TensorBoard, MLflow and Weights & Biases, each behind `Onlooker`.

They get a round's figures under the names of `report.json`. A tracker works in a thread of its own, and one that fails
costs a warning, not the run: `rounds.jsonl` is written whatever happens. A run that is taken up again goes on in the
tracker where it was.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fedprune.errors import MissingExtraError
from fedprune.report import RoundReport, RunReport
from fedprune_server.onlookers import Begun, Onlooker

log = logging.getLogger("fedprune.trackers")

PROJECT = "fedprune"
RUN_TAG = "fedprune.run_id"


def figures(row: RoundReport) -> dict[str, float]:
    """What a tracker is given of a round: a name and a number each; what was not measured is left out."""
    found: dict[str, float | None] = {
        "accuracy": row.accuracy,
        **row.metrics,
        "density": row.density,
        "density_of_all": row.density_of_all,
        "seconds": row.seconds,
        "clients_counted": row.clients_counted,
        "residual_norm": row.residual_norm,
    }
    traffic = {"payload": row.payload, "socket": row.socket, "dense_equivalent": row.dense_equivalent}
    for name, moved in traffic.items():
        if moved is not None:
            found |= {f"{name}_up": moved.up, f"{name}_down": moved.down}
    found |= {f"layer_density/{layer.name}": layer.alive / layer.size for layer in row.layers if layer.size}
    return {name: float(value) for name, value in found.items() if value is not None}


class TensorBoard:
    """Event files in `runs/<name>/tensorboard`."""

    def __init__(self, writer: Callable[..., Any]) -> None:
        self._make = writer
        self._writer: Any = None

    def begin(self, run: Begun) -> None:
        after = run.done[-1].round + 1 if run.done else None
        self._writer = self._make(log_dir=str(run.folder / "tensorboard"), purge_step=after)

    def round(self, row: RoundReport) -> None:
        for name, value in figures(row).items():
            self._writer.add_scalar(name, value, row.round)
        self._writer.flush()

    def end(self, report: RunReport) -> None:
        self._writer.add_text("outcome", report.outcome)
        self._writer.close()


class MLflow:
    """A run in the experiment "fedprune", wherever MLFLOW_TRACKING_URI leads."""

    def __init__(self, mlflow: Any) -> None:
        self._mlflow = mlflow
        self._client: Any = None
        self._run_id = ""

    def begin(self, run: Begun) -> None:
        self._client = self._mlflow.MlflowClient()
        experiment = self._mlflow.set_experiment(PROJECT).experiment_id
        found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.run_id}'")
        if found:
            self._run_id = found[0].info.run_id
            return
        tags = {RUN_TAG: run.run_id}
        self._run_id = self._client.create_run(experiment, tags=tags, run_name=run.config.run.name).info.run_id
        for key, value in _flat(run).items():
            self._client.log_param(self._run_id, key, value)

    def round(self, row: RoundReport) -> None:
        for name, value in figures(row).items():
            self._client.log_metric(self._run_id, name, value, step=row.round)

    def end(self, report: RunReport) -> None:
        self._client.set_terminated(self._run_id, "FINISHED" if report.outcome == "finished" else "KILLED")


class WeightsAndBiases:
    """A run in the project "fedprune"; WANDB_MODE and the other variables of its library hold."""

    def __init__(self, wandb: Any) -> None:
        self._wandb = wandb
        self._run: Any = None

    def begin(self, run: Begun) -> None:
        name, config = run.config.run.name, run.config.model_dump(mode="json")
        self._run = self._wandb.init(project=PROJECT, id=run.run_id, name=name, config=config, resume="allow")

    def round(self, row: RoundReport) -> None:
        self._run.log(figures(row), step=row.round)

    def end(self, report: RunReport) -> None:
        self._run.summary["outcome"] = report.outcome
        self._run.finish(exit_code=int(report.outcome != "finished"))


TRACKERS: dict[str, tuple[str, Callable[[Any], Onlooker]]] = {
    "tensorboard": ("torch.utils.tensorboard", lambda module: TensorBoard(module.SummaryWriter)),
    "mlflow": ("mlflow", MLflow),
    "wandb": ("wandb", WeightsAndBiases),
}


def open_trackers(names: Sequence[str]) -> list[Onlooker]:
    """The trackers of these names. Raises `MissingExtraError` for one whose library is not installed."""
    found = []
    for name in names:
        library, make = TRACKERS[name]
        try:
            module = importlib.import_module(library)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"the tracker {name!r} needs {error.name}", next_step=f"Install it: pip install 'fedprune[{name}]'"
            ) from error
        found.append(make(module))
    return found


class Aside:
    """A tracker in a thread of its own: what it is told waits there, and what it breaks is a warning."""

    def __init__(self, tracker: Onlooker) -> None:
        self._tracker = tracker
        self._thread = ThreadPoolExecutor(1, type(tracker).__name__)
        self._failed = False

    def begin(self, run: Begun) -> None:
        self._failed = False
        self._do(self._tracker.begin, run)

    def round(self, row: RoundReport) -> None:
        self._do(self._tracker.round, row)

    def end(self, report: RunReport) -> None:
        self._do(self._tracker.end, report)

    def finish(self) -> None:
        """Wait until everything is told. Blocks."""
        self._thread.shutdown(wait=True)

    def _do(self, tell: Callable[[Any], None], value: object) -> None:
        if not self._failed:
            self._thread.submit(tell, value).add_done_callback(self._look)

    def _look(self, told: Future[None]) -> None:
        error = told.exception()
        if error is not None and not self._failed:
            self._failed = True
            name = type(self._tracker).__name__
            log.warning("%s failed and is not told of this run any more: %s: %s", name, type(error).__name__, error)


@asynccontextmanager
async def tracked(trackers: Sequence[Onlooker]) -> AsyncIterator[list[Onlooker]]:
    """The trackers, each aside; when the block ends, they have been told everything."""
    aside = [Aside(tracker) for tracker in trackers]
    try:
        yield list(aside)
    finally:
        for tracker in aside:
            await asyncio.to_thread(tracker.finish)


def _flat(run: Begun) -> dict[str, object]:
    return {
        f"{section}.{key}": value
        for section, keys in run.config.model_dump(mode="json").items()
        for key, value in keys.items()
        if value is not None
    }
