"""What of each tensor can travel, looked up once a frame: asked anew at every step, a model of a hundred small tensors
would take longer over its questions than over its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from fedprune.codec.base import Shape
from fedprune.codec.places import Places
from fedprune.mask import Indices, Mask
from fedprune.tensor import Role, Schema, TensorSpec


class Slot(NamedTuple):
    """A tensor's part in a frame: the `size` values at its flat `places` [size], None for all it has."""

    spec: TensorSpec
    places: Indices | None
    size: int

    @property
    def shape(self) -> Shape:
        """Its part of an index space: the tensor itself, or one row of what is alive under a mask."""
        return Shape.of(self.spec) if self.places is None else Shape(1, self.size)


def slots(schema: Schema, mask: Mask | None) -> list[Slot]:
    """One for each tensor of `schema`, in order; `mask` restricts the prunable ones."""
    return [_slot(spec, mask) for spec in schema]


def shapes_of(members: Sequence[Slot]) -> list[Shape]:
    """The index space of a segment, tensor by tensor."""
    return [slot.shape for slot in members]


def ends_of(members: Sequence[Slot], kept: Places | None) -> list[int]:
    """Where each tensor's values end in a segment; `kept` are the places in its space that travel, None for all."""
    ends = list(accumulate(slot.size for slot in members))
    return ends if kept is None else [int(end) for end in np.searchsorted(kept.indices, ends)]


def _slot(spec: TensorSpec, mask: Mask | None) -> Slot:
    places = None if mask is None or spec.role is not Role.PRUNABLE else mask.places(spec.name)
    return Slot(spec, places, spec.size if places is None else places.size)
