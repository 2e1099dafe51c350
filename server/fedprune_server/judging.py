"""What each client made of the weights, for a pruner that learns from rounds: |w| of its local model.

Read from the updates that were folded anyway, tensor by tensor, so that no client's whole model is ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedprune.codec import Content
from fedprune.mask import Mask
from fedprune.pruning.beliefs import Judged
from fedprune.pruning.floors import Scores
from fedprune.pruning.scores import values
from fedprune.score_frames import Whole
from fedprune_server.aggregation import FoldInput
from fedprune_server.prepared import Arrays


def judged(updates: Sequence[FoldInput], base: Arrays, mask: Mask) -> list[Judged]:
    """The local weights behind `updates`, made from `base` under `mask`; ask for tensors in the schema's order."""
    return [
        Judged(examples=update.examples, magnitude=Magnitudes(whole=Whole(mask, update.open), base=_base(update, base)))
        for update in updates
    ]


def _base(update: FoldInput, base: Arrays) -> Arrays | None:
    return base if update.content is Content.DELTA else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Magnitudes(Mapping[str, Scores]):
    """|w| by name; `base` is added to what travelled, where that is a difference."""

    whole: Whole
    base: Arrays | None

    def __getitem__(self, name: str) -> Scores:
        local = values(self.whole.spec(name), self.whole[name])
        return np.abs(local if self.base is None else local + self.base[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole)

    def __len__(self) -> int:
        return len(self.whole)
