"""What of each tensor can travel, looked up once a mask: asked anew at every step, a model of a hundred small tensors
would take longer over its questions than over its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple
from weakref import WeakKeyDictionary

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


_of_masks: WeakKeyDictionary[Mask, Sequence[Slot]] = WeakKeyDictionary()


def slots(schema: Schema, mask: Mask | None) -> Sequence[Slot]:
    """One for each tensor of `schema`, in order; `mask`, which is of the same model, restricts the prunable ones."""
    if mask is None:
        return [Slot(spec, None, spec.size) for spec in schema]
    known = _of_masks.get(mask)
    if known is None:
        known = _of_masks[mask] = tuple(_slot(spec, mask) for spec in schema)
    return known


def shapes_of(members: Sequence[Slot]) -> list[Shape]:
    """The index space of a segment, tensor by tensor."""
    return [slot.shape for slot in members]


def ends_of(members: Sequence[Slot], kept: Places | None) -> list[int]:
    """Where each tensor's values end in a segment; `kept` are the places in its space that travel, None for all."""
    ends = list(accumulate(slot.size for slot in members))
    if kept is not None:
        ends = kept.indices.searchsorted(ends).tolist()
    return ends


def _slot(spec: TensorSpec, mask: Mask) -> Slot:
    places = mask.places(spec.name) if spec.role is Role.PRUNABLE else None
    return Slot(spec, places, spec.size if places is None else places.size)
