"""What a pruner asks of the clients, and what it answers: values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedprune.mask import Mask
from fedprune.pruning import LayerDecision, Selection

Weights = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the clients must compute before `propose` can answer: scores by `method`, whole; or, where `grow` is not
    empty, the indices of that many of the largest among the dead weights of each layer, with their values or not; or,
    where `keep` is not empty, a mask of so many weights of each layer, or of all (one number). With `own` a mask in which
    as many weights of each layer as `grow` says are exchanged, after training of the client's own."""

    method: str
    grow: Mapping[str, int] = field(default_factory=dict)
    values: bool = True
    keep: tuple[int, ...] = ()
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The next mask, why each layer looks as it does, and the density asked for beside the one reached."""

    round: int
    mask: Mask
    explanation: tuple[LayerDecision, ...]
    target_density: float
    realised_density: float
    # How dense the merge of the clients' masks was before it was pruned back, where that is far above the target.
    merged_density: float | None = None
    # Masks that clients are to have for themselves until the next one, by client; `mask` is all of them together.
    own: Mapping[int, Mask] = field(default_factory=dict)

    @property
    def floor_trimmed(self) -> int:
        """Weights that are alive only because a floor holds them."""
        return sum(layer.floor_trimmed for layer in self.explanation)

    @property
    def grown(self) -> int:
        """Weights that were dead and are alive now; they start at 0."""
        return sum(layer.grown for layer in self.explanation)


def proposed(round: int, chosen: Selection, target: float) -> Proposal:
    """A selection as the answer for this round; `target` is the density that was asked for."""
    return Proposal(
        round=round,
        mask=chosen.mask,
        explanation=chosen.layers,
        target_density=target,
        realised_density=chosen.mask.density,
    )
