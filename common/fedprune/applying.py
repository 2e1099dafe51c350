"""A decoded frame put into a model: the same arithmetic, to the bit, at both ends.

Under `Content.WEIGHTS` what travelled replaces what is there; under `Content.DELTA` weights are added in float32 and
buffers and counters replace. Whatever did not travel stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Content, Packed, UpdateReader
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec

Array = NDArray[Any]


def apply_frame(arrays: Mapping[str, Array], reader: UpdateReader, mask: Mask) -> None:
    """Bring `arrays`, in place, to what the frame says. The frame is decoded before the first array changes."""
    for spec, packed in list(reader):
        put(arrays[spec.name], spec, packed, mask, add=reader.content is Content.DELTA)


def put(array: Array, spec: TensorSpec, packed: Packed, mask: Mask, *, add: bool) -> None:
    """Write, or add, one tensor's travelled values."""
    flat = array.reshape(-1)
    places = packed.indices
    if places is None and spec.role is Role.PRUNABLE:
        places = mask.places(spec.name)
    if not add or spec.role in (Role.BUFFER, Role.COUNTER):
        flat[slice(None) if places is None else places] = packed.values
    elif places is None:
        np.add(flat, packed.values, out=flat)
    else:
        flat[places] = flat.take(places) + packed.values


def weights_of(schema: Schema) -> tuple[TensorSpec, ...]:
    """The tensors of which a delta is a difference."""
    return schema.of(Role.PRUNABLE, Role.FREE)
