"""What goes into a fold and what comes out of it.

An `Aggregator` sees packed values, tensor by tensor, and never more of an update than the tensor at hand. It is a
pure function: the same base, mask, state and set of updates give the same bits, in whatever order they arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Content, Packed
from fedprune.errors import UpdateError
from fedprune.mask import Mask
from fedprune.tensor import Schema, TensorSpec
from fedprune_server.aggregation.fixed import MAX_EXAMPLES

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]
Opener = Callable[[], Iterator[tuple[TensorSpec, Packed]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldInput:
    """One update. `open()` gives its tensors in schema order and may be called more than once.

    With `content` WEIGHTS the values are local weights and the base is subtracted here; with DELTA the weights are
    differences already (buffers and counters are values either way). `mask` is the client's own where it is not the
    run's: a weight counts for its holders only. `factor` scales the differences of the weights (norm clipping).
    `nearest` are the updates, by number in the round and itself among them, whose mean stands for this one; none: it
    stands for itself.
    """

    examples: int
    content: Content
    open: Opener
    party: str = "an update"
    mask: Mask | None = None
    factor: float = 1.0
    nearest: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.examples <= MAX_EXAMPLES:
            raise UpdateError(
                "cannot weigh this update", party=self.party, seen=f"{self.examples} examples", expected="1 to 2^24 - 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The next model: `arrays` of the schema's shapes and dtypes, zero off the mask.

    `state` is what the aggregator wants to see at the next fold, flat float32 arrays [size] by name, zero off the
    mask; empty for rules that remember nothing. `counted` are the parties whose update had a part in the result,
    `uncovered` the number of alive weights that nobody held and that therefore stayed; `warnings` are for people.
    """

    arrays: dict[str, Array]
    state: dict[str, Array] = field(default_factory=dict)
    counted: tuple[str, ...] = ()
    uncovered: int = 0
    warnings: tuple[str, ...] = ()


class Aggregator(Protocol):
    """How updates become the next model."""

    def fold(
        self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput], state: Arrays | None = None
    ) -> Folded:
        """The model that follows `base` (name -> array of the tensor's shape, zero off `mask`).

        Raises `UpdateError` naming party and tensor for an update that `check` would have refused, `LocalError`
        when there are too few updates for the rule.
        """

    def check(self, schema: Schema, base: Arrays, mask: Mask, update: FoldInput) -> None:
        """Raise `UpdateError` when this update cannot be folded: not finite, or further away than a round can go."""
