"""`fedprune compare`: several strategies on one task, as real federations on this machine, and their controls.

First come the dense run and the strategies; how many weights each kept then decides the controls: a random mask with
as many, and, where the task's `model` takes a width, a narrower dense network with as many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from fedprune.codec import Limits, decode_mask_set
from fedprune.config import RunConfig
from fedprune.errors import ConfigError, FedpruneError, TaskError
from fedprune.flops import Cost, forward_cost
from fedprune.mask import Mask
from fedprune.report import RunReport
from fedprune.task import Shard, Task, load_task
from fedprune.tensor import Schema
from fedprune.torch import assign_roles, build_model, signature
from fedprune_lab.choosing import Accuracies, choose
from fedprune_lab.federation import Federation
from fedprune_lab.outcomes import Outcome, outcome, table, to_csv, to_dict
from fedprune_lab.plot import picture
from fedprune_lab.reporting import compared
from fedprune_lab.strategies import DENSE, Strategy, narrow_control, random_control, strategies
from fedprune_lab.view import View

# Two strategies whose densities differ by less share their controls.
SAME_DENSITY = 0.005
FUNCTIONS = ("model", "train_data", "loss", "test_data", "metrics", "optimizer", "train")


@dataclass(slots=True, kw_only=True)
class Comparing:
    """One comparison, kept in `out`, which must not exist. `varied` are "section.key=value,value"; `overrides`
    hold for all."""

    run_file: Path
    task: Path
    varied: Sequence[str]
    seeds: Sequence[int]
    clients: int
    out: Path
    view: View
    overrides: Sequence[str] = ()
    folds: int = 0
    notes: list[str] = field(default_factory=list)
    _accuracies: dict[str, Accuracies] = field(default_factory=dict)

    def run(self) -> list[Outcome]:
        """Do all of it and write compare.csv, .json, .svg and .html. Raises `LocalError`."""
        asked = strategies(lambda overrides: self._config(overrides), self.varied, self.seeds, self.folds)
        self.out.mkdir(parents=True)
        task = load_task(self._without_test_data() if self.folds else self.task)
        rows = self._federation("strategies", asked, task)
        if self.folds and (choice := choose({s.name: self._accuracies[s.name] for s in asked if s.name != DENSE})):
            self.note(str(choice))
        kept = _distinct([row for row in rows if row.strategy != DENSE and row.density < 1.0])
        controls = [random_control(asked[-1], row.density) for row in kept]
        if controls:
            rows += self._federation("random", controls, task)
        for row in kept:
            rows += self._narrow(task, asked[-1], row)
        self._write(rows)
        return rows

    def _config(self, overrides: Sequence[str]) -> RunConfig:
        crowd = [f"clients.expect={self.clients}", f"clients.min_clients={self.clients}"]
        return RunConfig.load(self.run_file, [*self.overrides, *overrides, *crowd])

    def _without_test_data(self) -> Path:
        """The task as folds need it: clients evaluate, on what they hold out, and test data has no say in the choice."""
        file = self.out / "task.py"
        file.write_text(_task_like(self.task, but=("test_data",)))
        return file

    def _federation(self, name: str, rows: Sequence[Strategy], task: Task) -> list[Outcome]:
        configs = [config for strategy in rows for config in strategy.configs.values()]
        folder = self.out / name
        reports, _ = Federation(configs=configs, task=task.path, clients=self.clients, out=folder).run(self.view)
        by_name = {report.name: report for report in reports}
        found = []
        for strategy in rows:
            mine = {config.run.name: config for config in strategy.configs.values()}
            self._accuracies[strategy.name] = {
                key: accuracy
                for key, config in strategy.configs.items()
                if (accuracy := by_name[config.run.name].final.accuracy_last_rounds) is not None
            }
            flops = [self._flops(task, config, folder / run, by_name[run]) for run, config in mine.items()]
            found.append(outcome(strategy.name, [by_name[run] for run in mine], flops))
        return found

    def _narrow(self, task: Task, like: Strategy, row: Outcome) -> list[Outcome]:
        """The control with as many weights, or a note why there is none."""
        wanted = round(row.weights)
        try:
            width = width_for(task, wanted)
        except TaskError:
            self.note(
                f"no {wanted}-weight dense control: let `model` of {task.path.name} take a width, `model(width=1.0)`"
            )
            return []
        folder = self.out / f"narrow-{wanted}"
        folder.mkdir()
        file = folder / "task.py"
        file.write_text(_narrow_task(task.path, width))
        narrow = load_task(file)
        return self._federation(f"narrow-{wanted}/runs", [narrow_control(like, wanted)], narrow)

    def _flops(self, task: Task, config: RunConfig, folder: Path, report: RunReport) -> float | None:
        model = build_model(task)
        schema = assign_roles(signature(model), config.pruning.protect, config.pruning.prune)
        try:
            cost = _cost(task, model, schema)
        except FedpruneError as error:
            self.note(f"no flops: {error}")
            return None
        return cost.flops(_last_mask(folder, schema, report))

    def note(self, text: str) -> None:
        """Something that the table must not hide, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.view.say(text)

    def _write(self, rows: Sequence[Outcome]) -> None:
        (self.out / "compare.csv").write_text(to_csv(rows))
        (self.out / "compare.json").write_text(json.dumps(to_dict(rows, self.notes), indent=1) + "\n")
        (self.out / "compare.svg").write_text(picture(rows))
        page = compared.document(rows, self.notes, name=f"{self.task.name}: {len(rows)} ways to train it")
        (self.out / "compare.html").write_text(page)
        (self.out / "compare.txt").write_text(table(rows) + "\n")


def task_of(run_file: Path, task: Path | None) -> Path:
    """The task file that a comparison is about. Raises `ConfigError` where neither names one."""
    found = task or RunConfig.load(run_file).task.file
    if found is None or not found.is_file():
        raise ConfigError("there is no task file", seen=found, next_step="Check [task] file or --task")
    return found.resolve()


def read_seeds(text: str) -> list[int]:
    """ "1,2,3" as numbers, each once. Raises `ConfigError`."""
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise ConfigError("--seeds cannot be read", seen=text, expected="whole numbers, such as 1,2,3") from error


def checked_folds(folds: int) -> int:
    """As many parts as data can be cut into: 0 for none, else 2 or more. Raises `ConfigError`."""
    if folds == 1:
        raise ConfigError("one fold leaves nothing to train on", seen="--folds 1", expected="0, or 2 and more")
    return folds


def width_for(task: Task, weights: int) -> float:
    """The width at which the task's model comes nearest to so many parameters. Raises `TaskError` where its `model`
    takes none."""
    low, high = 0.0, 1.0
    best = (abs(_parameters(task, high) - weights), high)
    for _ in range(14):
        middle = (low + high) / 2
        found = _parameters(task, middle)
        best = min(best, (abs(found - weights), middle))
        low, high = (middle, high) if found < weights else (low, middle)
    return best[1]


def _parameters(task: Task, width: float) -> int:
    model: nn.Module = task.model(width)  # type: ignore[call-arg]  # a task may take a width
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _narrow_task(path: Path, width: float) -> str:
    like = _task_like(path, but=("model",))
    return f"{like}\n\ndef model():\n    # The control at equal weights.\n    return _whole.model({width!r})\n"


def _task_like(path: Path, *, but: Sequence[str]) -> str:
    """A task file that has all of another's functions but these."""
    kept = tuple(name for name in FUNCTIONS if name not in but)
    return f'''"""The task of {path.name} without its {" and ".join(but)}."""

from fedprune.task import load_task

_whole = load_task({str(path)!r})
globals().update({{n: getattr(_whole, n) for n in {kept!r} if getattr(_whole, n) is not None}})
'''


def _cost(task: Task, model: nn.Module, schema: Schema) -> Cost:
    data = task.test_data() if task.test_data is not None else None
    if data is None:
        data = task.train_data(Shard(index=0, count=1, path=task.path.parent, seed=1))
    return forward_cost(task, model, schema, data)


def _last_mask(folder: Path, schema: Schema, report: RunReport) -> Mask:
    version = report.rounds[-1].mask_version
    data = (folder / "masks" / f"v{version}.mask").read_bytes()
    return decode_mask_set(data, schema=schema, version=version, base=None, limits=Limits.of_mask(schema))


def _distinct(rows: Sequence[Outcome]) -> list[Outcome]:
    """One row for each density that was reached."""
    found: Mapping[int, Outcome] = {round(row.density / SAME_DENSITY): row for row in rows}
    return list(found.values())
