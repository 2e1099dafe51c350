"""Proposes the next mask.

The pruner is asked once a round, after the aggregate of that round is known and before it is committed. It answers
from the round alone, by a schedule fixed at the start, so it has no state that a crash could lose: the coordinator
that restarts asks again and gets the same answer. It decides nothing about clients; it commits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.mask import Mask
from fedprune.pruning import LayerDecision, PruningPlan, check_floors, keep_count, magnitudes, select, steps
from fedprune.tensor import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The next mask, why each layer looks as it does, and the density asked for beside the one reached."""

    round: int
    mask: Mask
    explanation: tuple[LayerDecision, ...]
    target_density: float
    realised_density: float

    @property
    def floor_trimmed(self) -> int:
        """Weights that the floors kept against the ranking."""
        return sum(layer.floor_trimmed for layer in self.explanation)


class Pruner:
    """Gradual pruning by a schedule. Raises `LocalError` when built with a plan that `rounds` cannot hold."""

    def __init__(self, plan: PruningPlan, rounds: int) -> None:
        self.plan = plan
        self.steps = steps(plan, rounds)

    def check(self, schema: Schema) -> None:
        """Raise `LocalError` where this model cannot be brought to the plan's density; ask before the run starts."""
        check_floors(self.plan, schema)

    def propose(
        self, *, round: int, weights: Mapping[str, NDArray[np.generic]], mask: Mask, next_mask_version: int
    ) -> Proposal | None:
        """The mask to commit with round `round` (counted from 1), or None when the schedule asks for nothing.

        `weights` is the aggregate of the round, name -> array of the tensor's shape. Where the floors hold everything
        that was to go, the proposal still comes, so that nobody takes a step that did nothing for one not taken.
        """
        density = next((step.density for step in self.steps if step.round == round), None)
        if density is None:
            return None
        keep = keep_count(density, mask.size)
        if keep >= mask.alive_count:
            return None
        chosen = select(
            magnitudes(mask.schema, weights), mask, keep, self.plan.floors, next_mask_version, score="magnitude"
        )
        return Proposal(
            round=round,
            mask=chosen.mask,
            explanation=chosen.layers,
            target_density=density,
            realised_density=chosen.mask.density,
        )
