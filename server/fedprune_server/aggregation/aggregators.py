"""An aggregator is a rule, which makes one difference out of many, and an optimizer, which makes a step out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema
from fedprune_server.aggregation.buffers import Statistics
from fedprune_server.aggregation.fixed import Array, Deltas, Floats
from fedprune_server.aggregation.inputs import Arrays, Folded, FoldInput
from fedprune_server.aggregation.spaces import Space
from fedprune_server.aggregation.walk import Stream, check_update, largest_counter, tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """One difference [n] for a space, zero where it is not `covered` [n] (None: covered everywhere)."""

    mean: Floats
    covered: NDArray[np.bool_] | None = None


class Rule(Protocol):
    """How differences become one."""

    def choose(self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Sequence[FoldInput]:
        """A first look at all of them: who counts, and with what factor."""

    def combine(self, space: Space, deltas: Iterator[Deltas]) -> Combined:
        """The one difference of a tensor."""


class Optimizer(Protocol):
    """How a difference becomes a step (Reddi et al., 2021: the mean update is a gradient)."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it remembers of every weight."""

    def step(self, combined: Combined, state: dict[str, Floats]) -> Floats:
        """The step [n]; `state` [n] by name is changed in place, where the difference is covered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """The aggregator of a rule and an optimizer."""

    rule: Rule
    optimizer: Optimizer

    def check(self, schema: Schema, base: Arrays, mask: Mask, update: FoldInput) -> None:
        """Raise `UpdateError` when this update cannot be folded."""
        check_update(schema, base, mask, update)

    def fold(
        self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput], state: Arrays | None = None
    ) -> Folded:
        """The next model; see `Aggregator`."""
        if not updates:
            raise LocalError("nothing to fold", next_step="Keep the version; close the round without a new one")
        chosen = self.rule.choose(schema, base, mask, updates)
        fold = _Fold(self, state or {})
        for space, stream in tensors(schema, base, mask, chosen):
            fold.take(space, stream)
        return Folded(
            arrays=fold.arrays,
            state=fold.state,
            counted=tuple(update.party for update in chosen),
            examples=sum(update.examples for update in chosen),
            uncovered=fold.uncovered,
        )


class _Fold:
    """One fold while it goes through the tensors."""

    def __init__(self, aggregator: Composed, before: Arrays) -> None:
        self.arrays: dict[str, Array] = {}
        self.state: dict[str, Array] = {}
        self.uncovered = 0
        self._rule = aggregator.rule
        self._optimizer = aggregator.optimizer
        self._before = before
        self._statistics = Statistics()

    def take(self, space: Space, stream: Stream) -> None:
        """Fold one tensor."""
        name, role = space.spec.name, space.spec.role
        if role is Role.COUNTER:
            self.arrays[name] = largest_counter(space, stream)
            return
        deltas = (space.deltas(update, packed) for update, packed in stream)
        if role is Role.BUFFER:
            mean = self._rule.combine(space, self._statistics.given(space, deltas)).mean
            self.arrays[name] = space.moved(self._statistics.merged(space, mean))
            return
        combined = self._rule.combine(space, deltas)
        if combined.covered is not None:
            self.uncovered += int(np.count_nonzero(~combined.covered))
        self.arrays[name] = space.moved(self._step(space, combined))

    def _step(self, space: Space, combined: Combined) -> Floats:
        names = {short: f"{space.spec.name}.{short}" for short in self._optimizer.names}
        state = {short: self._remembered(space, name) for short, name in names.items()}
        step = self._optimizer.step(combined, state)
        for short, name in names.items():
            self.state[name] = space.spread(state[short].astype(np.float32))
        return step

    def _remembered(self, space: Space, name: str) -> Floats:
        if name not in self._before:
            return np.zeros(space.size)
        return space.pack(self._before[name]).astype(np.float64)
