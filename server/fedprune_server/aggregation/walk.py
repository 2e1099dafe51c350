"""All updates side by side, one tensor at a time, so that nobody holds more than one large tensor of one update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedprune.codec import Packed
from fedprune.errors import UpdateError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.aggregation.buffers import Statistics
from fedprune_server.aggregation.fixed import Array, Deltas, Scale
from fedprune_server.aggregation.inputs import Arrays, FoldInput
from fedprune_server.aggregation.spaces import Space

Opened = Iterator[tuple[TensorSpec, Packed]]
Stream = Iterator[tuple[FoldInput, Packed]]


def tensors(schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Iterator[tuple[Space, Stream]]:
    """(space, one (update, packed) after the other) for each tensor; take each stream to its end."""
    opened = [update.open() for update in updates]
    for spec in schema:
        yield Space.of(spec, base, mask), _stream(spec, updates, opened)


def _stream(spec: TensorSpec, updates: Sequence[FoldInput], opened: Sequence[Opened]) -> Stream:
    for update, reader in zip(updates, opened, strict=True):
        found = next(reader, None)
        if found is None or found[0].name != spec.name:
            raise UpdateError(
                "tensors of an update out of order",
                party=update.party,
                seen="the end" if found is None else repr(found[0].name),
                expected=repr(spec.name),
            )
        yield update, found[1]


def weight_deltas(
    schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]
) -> Iterator[tuple[Space, Iterator[Deltas]]]:
    """The differences of the weights only: what norms and distances are made of."""
    for space, stream in tensors(schema, base, mask, updates):
        if space.spec.role in (Role.PRUNABLE, Role.FREE):
            yield space, (space.deltas(update, packed) for update, packed in stream)
        else:
            for _ in stream:
                pass


def check_update(schema: Schema, base: Arrays, mask: Mask, update: FoldInput) -> None:
    """Raise `UpdateError` when this update cannot be folded; costs one pass and no memory of a tensor's size."""
    statistics = Statistics()
    for space, stream in tensors(schema, base, mask, [update]):
        if space.spec.role is Role.COUNTER:
            largest_counter(space, stream)
            continue
        deltas = (space.deltas(update, packed) for _, packed in stream)
        for one in statistics.given(space, deltas) if space.spec.role is Role.BUFFER else deltas:
            one.check(Scale.of(space.spec, space.base), space.spec.name)


def largest_counter(space: Space, stream: Stream) -> Array:
    """A counter has no mean: the furthest one wins. Zeros that did not travel count as zeros."""
    spec = space.spec
    largest: Array | None = None
    for _, packed in stream:
        values = np.zeros(spec.size, spec.numpy_dtype)
        values[slice(None) if packed.indices is None else packed.indices] = packed.values
        largest = values if largest is None else np.maximum(largest, values)
    assert largest is not None, "a fold has updates"
    return largest.reshape(spec.shape)
