"""Updates summed as they come, for rules that need nothing but the sum: decoded once, and nothing is left to fold.

The sums are exact, so the model that comes of them is, to the bit, the one that `Aggregator.fold` makes of the same
updates in any order. Between two updates they hold eight bytes for every weight, whatever the number of clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np

from fedprune.mask import Mask
from fedprune.tensor import Role, Schema
from fedprune_server.aggregation.aggregators import Composed, Fold
from fedprune_server.aggregation.buffers import Statistics
from fedprune_server.aggregation.fixed import Array, Partial
from fedprune_server.aggregation.inputs import Aggregator, Arrays, Folded, FoldInput
from fedprune_server.aggregation.mean import Mean
from fedprune_server.aggregation.spaces import Space
from fedprune_server.aggregation.walk import largest_counter, tensors


class Sums:
    """The sums over some updates to `base` under `mask`. Updates may be added by several threads at a time."""

    def __init__(self, aggregator: Composed, rule: Mean, schema: Schema, base: Arrays, mask: Mask) -> None:
        self._aggregator = aggregator
        self._rule = rule
        self._schema = schema
        self._base = base
        self._mask = mask
        self._spaces: dict[str, Space] = {}
        self._partials: dict[str, Partial] = {}
        self._counters: dict[str, Array] = {}
        self._examples = 0
        self._adding = Lock()
        # One for each tensor: who adds to the first ones is not in the way of who adds to the last ones.
        self._turns: dict[str, Lock] = {}

    def add(self, update: FoldInput) -> None:
        """Count an update in. Raises `UpdateError` where `Aggregator.check` would; then the sums are spoilt."""
        statistics = Statistics()
        for space, stream in tensors(self._schema, self._base, self._mask, [update]):
            name, role = space.spec.name, space.spec.role
            if role is Role.COUNTER:
                found = largest_counter(space, stream)
                with self._adding:
                    known = self._counters.get(name)
                    self._counters[name] = found if known is None else np.maximum(known, found)
                continue
            deltas = (space.deltas(update, packed) for _, packed in stream)
            for one in statistics.given(space, deltas) if role is Role.BUFFER else deltas:
                partial, turn = self._partial(space)
                with turn:
                    partial.add(one, name)
        with self._adding:
            self._examples += update.examples

    def _partial(self, space: Space) -> tuple[Partial, Lock]:
        """The sums of this tensor, and what whoever adds to them has to hold."""
        name = space.spec.name
        with self._adding:
            if name not in self._partials:
                self._partials[name], self._spaces[name], self._turns[name] = Mean.empty(space), space, Lock()
            return self._partials[name], self._turns[name]

    def finish(self, parties: Sequence[str], state: Arrays | None = None) -> Folded:
        """The next model, of at least one update; `parties` are whose they were. The sums are used up."""
        fold = Fold(self._aggregator, state or {})
        for spec in self._schema:
            if spec.role is Role.COUNTER:
                fold.arrays[spec.name] = self._counters.pop(spec.name)
            else:
                space = self._spaces.pop(spec.name)
                fold.enter(space, self._rule.of(self._partials.pop(spec.name), self._examples))
        return fold.folded(tuple(parties))


def begin(aggregator: Aggregator, schema: Schema, base: Arrays, mask: Mask) -> Sums | None:
    """Sums over no update yet; None for a rule that has to see the updates side by side."""
    if isinstance(aggregator, Composed) and isinstance(aggregator.rule, Mean):
        return Sums(aggregator, aggregator.rule, schema, base, mask)
    return None
