"""Arrays as the codec wants them: the schema's dtype and shape, little-endian, end to end.

Callers hand in what they have; whatever can be brought into form without changing a value is, everything else is
refused with the tensor's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedprune.codec.base import Array
from fedprune.codec.slots import Slot
from fedprune.errors import LocalError
from fedprune.mask import Bits, Mask
from fedprune.tensor import Schema, TensorSpec, Version

Scalar = TypeVar("Scalar", bound=np.generic)


def flat(tensors: Mapping[str, Array], spec: TensorSpec) -> Array:
    """The tensor's values [size] in its schema dtype; a view where its layout allows."""
    if spec.name not in tensors:
        raise LocalError(f"tensor {spec.name!r} is missing")
    array, wanted = np.asarray(tensors[spec.name]), spec.numpy_dtype
    if array.shape != spec.shape or (
        array.dtype != wanted and (array.dtype.kind, array.dtype.itemsize) != (wanted.kind, wanted.itemsize)
    ):
        raise LocalError(
            f"tensor {spec.name!r} does not fit the schema",
            seen=f"{array.dtype} {list(array.shape)}",
            expected=f"{wanted} {list(spec.shape)}",
        )
    return np.ascontiguousarray(array, dtype=wanted).reshape(-1)


def as_mask(mask: Mask | Mapping[str, Bits] | None, schema: Schema, version: Version) -> Mask | None:
    """A mask given by its bare bits gets the version of the frame."""
    if mask is None or isinstance(mask, Mask):
        if mask is not None and mask.schema.digest != schema.digest:
            raise LocalError("the mask is of another model", seen=mask.schema.digest, expected=schema.digest)
        return mask
    return Mask(schema=schema, version=version.mask, alive=dict(mask))


def gather(tensors: Mapping[str, Array], members: Sequence[Slot]) -> Array:
    """The values of several tensors at their places, end to end; a view when it is one whole tensor."""
    parts = [_at_places(flat(tensors, slot.spec), slot) for slot in members]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _at_places(values: Array, slot: Slot) -> Array:
    return values if slot.places is None else values.take(slot.places)


def split(values: NDArray[Scalar], ends: Sequence[int]) -> list[NDArray[Scalar]]:
    """Views of `values`, one a tensor."""
    return [values[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
