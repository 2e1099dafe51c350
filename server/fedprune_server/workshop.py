"""The coordinator's own copy of the task: the first weights, the signature, and test data where it has some.

The only room of the server that needs torch. A hospital's coordinator has no data at all: then there is no
evaluator, and the clients score the model on what they held out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import nn

from fedprune.config import RunConfig
from fedprune.errors import ConfigError, TaskError
from fedprune.evaluation import evaluate
from fedprune.flops import Cost, forward_cost
from fedprune.task import Task, load_task
from fedprune.tensor import Schema
from fedprune.torch import assign_roles, build_model, frozen_digest, signature, to_arrays
from fedprune_server.closing import Evaluator, Score
from fedprune_server.prepared import Arrays

EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """A task with its model built once; `schema` has the natural roles. `_data` is what `test_data` gave, once it was
    asked."""

    task: Task
    model: nn.Module
    schema: Schema
    frozen_digest: str
    _data: list[Any] = field(default_factory=list, repr=False)

    @classmethod
    def open(cls, path: Path, *, seed: int) -> Workshop:
        """Load a task file and build its model. Raises `TaskError` naming the function at fault."""
        return cls.of(load_task(path), seed=seed)

    @classmethod
    def of(cls, task: Task, *, seed: int) -> Workshop:
        """Build the model of a task that is loaded already."""
        model = build_model(task, seed=seed)
        return cls(task=task, model=model, schema=signature(model), frozen_digest=frozen_digest(model))

    def schema_for(self, config: RunConfig) -> Schema:
        """The signature under the run file's protections."""
        return assign_roles(self.schema, config.pruning.protect, config.pruning.prune)

    def first_arrays(self, config: RunConfig) -> dict[str, NDArray[np.generic]]:
        """The weights a run begins with: from `[run] init`, or drawn from the run's seed."""
        if config.run.init is not None:
            return read_weights(config.run.init, self.schema)
        return dict(to_arrays(build_model(self.task, seed=config.run.seed), self.schema))

    def test_data(self) -> Any | None:
        """The coordinator's own test data, read once; None where the task has none here."""
        if not self._data:
            self._data.append(self.task.test_data() if self.task.test_data is not None else None)
        return self._data[0]

    def cost(self, config: RunConfig) -> Cost | None:
        """What the model computes for one example, where the run file has a budget of it and there is an example."""
        if "flops" not in config.pruning.budget or self.test_data() is None:
            return None
        return forward_cost(self.task, self.model, self.schema_for(config), self.test_data())

    def counted(self, config: RunConfig) -> Cost | str:
        """What the model computes for one example, or why nobody can tell here."""
        if self.test_data() is None:
            return "the coordinator has no example: the task has no `test_data()` here"
        try:
            return forward_cost(self.task, self.model, self.schema_for(config), self.test_data())
        except TaskError as error:
            return str(error)

    def evaluator(self) -> Evaluator | None:
        """What scores a model on the coordinator's own test data; None when the task has none here."""
        data = self.test_data()
        if data is None:
            return None

        def score(arrays: Arrays) -> Score:
            found = evaluate(
                self.task,
                self.model,
                data,
                schema=self.schema,
                weights=arrays,
                batch_size=EVALUATION_BATCH,
                source="test_data",
            )
            return Score(examples=found.examples, metrics=found.metrics)

        return score


def read_weights(path: Path, schema: Schema) -> dict[str, NDArray[np.generic]]:
    """Pretrained weights by name from a safetensors file. Raises `ConfigError` with the first that does not fit."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            "[run] init cannot be read", seen=f"{path}: {error}", expected="a safetensors file"
        ) from error
    for spec in schema:
        array = found.get(spec.name)
        if array is None or array.shape != spec.shape or array.dtype != spec.numpy_dtype:
            seen = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise ConfigError(
                f"[run] init does not fit the model at tensor {spec.name!r}",
                party=path.name,
                seen=seen,
                expected=f"{spec.dtype} {list(spec.shape)}",
                next_step="Save it from the model that the task file builds",
            )
    return {spec.name: np.require(found[spec.name], requirements="C") for spec in schema}
