"""An aggregator is a rule, which makes one difference out of many, and an optimizer, which makes a step out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema
from fedprune_server.aggregation.buffers import Statistics
from fedprune_server.aggregation.fixed import BLOCK, Array, Deltas, Floats
from fedprune_server.aggregation.inputs import Arrays, Folded, FoldInput
from fedprune_server.aggregation.spaces import Space
from fedprune_server.aggregation.walk import Stream, check_update, largest_counter, tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """One difference [n] for a space, zero where it is not `covered` [n] (None: covered everywhere)."""

    mean: Floats
    covered: NDArray[np.bool_] | None = None

    def part(self, part: slice) -> Combined:
        """The same for a slice of the places, in the same memory."""
        return Combined(mean=self.mean[part], covered=None if self.covered is None else self.covered[part])

    def where_covered(self, values: Floats, other: Floats | float) -> Floats:
        """`values` [n] where the difference is covered, `other` elsewhere."""
        return values if self.covered is None else np.where(self.covered, values, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Whose updates count in a round, and what the people who run it should know about that."""

    updates: Sequence[FoldInput]
    warnings: tuple[str, ...] = ()

    def warned(self, text: str) -> Choice:
        """With one more warning, unless it is empty."""
        return replace(self, warnings=(*self.warnings, text)) if text else self


class Rule(Protocol):
    """How differences become one."""

    def choose(self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Choice:
        """A first look at all of them: who counts, and with what factor."""

    def combine(self, space: Space, deltas: Iterator[Deltas]) -> Combined:
        """The one difference of a tensor."""


class Optimizer(Protocol):
    """How a difference becomes a step (Reddi et al., 2021: the mean update is a gradient)."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it remembers of every weight."""

    def step(self, combined: Combined, state: dict[str, Floats]) -> Floats:
        """The step [n], zero where the difference is not covered; `state` (name -> [n]) is given its next values."""


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
        fold = Fold(self, state or {})
        for space, stream in tensors(schema, base, mask, chosen.updates):
            fold.take(space, stream)
        return fold.folded(tuple(update.party for update in chosen.updates), chosen.warnings)


class Fold:
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
        deltas: Iterator[Deltas] = (space.deltas(update, packed) for update, packed in stream)
        if role is Role.BUFFER:
            deltas = self._statistics.given(space, deltas)
        self.enter(space, self._rule.combine(space, deltas))

    def enter(self, space: Space, combined: Combined) -> None:
        """Move one tensor by its one difference."""
        name = space.spec.name
        if space.spec.role is Role.BUFFER:
            self.arrays[name] = space.moved(self._statistics.merged(space, combined.mean))
            return
        if combined.covered is not None:
            self.uncovered += int(np.count_nonzero(~combined.covered))
        self.arrays[name] = space.moved(self._step(space, combined))

    def folded(self, counted: tuple[str, ...], warnings: tuple[str, ...] = ()) -> Folded:
        """What came of it."""
        return Folded(
            arrays=self.arrays, state=self.state, counted=counted, uncovered=self.uncovered, warnings=warnings
        )

    def _step(self, space: Space, combined: Combined) -> Floats:
        """The optimizer's step in the memory of the mean; its state is kept for the next fold."""
        names = {short: f"{space.spec.name}.{short}" for short in self._optimizer.names}
        kept = {short: self._remembered(space, name) for short, name in names.items()}
        for start in range(0, space.size, BLOCK):
            part = slice(start, min(start + BLOCK, space.size))
            state = {short: values[part].astype(np.float64) for short, values in kept.items()}
            combined.mean[part] = self._optimizer.step(combined.part(part), state)
            for short, values in kept.items():
                values[part] = state[short]
        for short, name in names.items():
            self.state[name] = space.spread(kept[short])
        return combined.mean

    def _remembered(self, space: Space, name: str) -> NDArray[np.float32]:
        if name not in self._before:
            return np.zeros(space.size, np.float32)
        return np.array(space.pack(self._before[name]), np.float32)
