"""Arrays as the codec wants them: the schema's dtype and shape, little-endian, end to end.

Callers hand in what they have; whatever can be brought into form without changing a value is, everything else is
refused with the tensor's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedprune.codec.base import Array, Shape
from fedprune.codec.places import Places
from fedprune.errors import LocalError
from fedprune.mask import Bits, Indices, Mask
from fedprune.tensor import Role, Schema, TensorSpec, Version

Scalar = TypeVar("Scalar", bound=np.generic)


def flat(tensors: Mapping[str, Array], spec: TensorSpec) -> Array:
    """The tensor's values [size] in its schema dtype; a view where its layout allows."""
    if spec.name not in tensors:
        raise LocalError(f"tensor {spec.name!r} is missing")
    array = np.asarray(tensors[spec.name])
    wanted = spec.numpy_dtype
    if array.shape != spec.shape or (array.dtype.kind, array.dtype.itemsize) != (wanted.kind, wanted.itemsize):
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


def alive_places(mask: Mask | None, spec: TensorSpec) -> Indices | None:
    """Flat places of the tensor that can travel, or None for all of them."""
    return None if mask is None or spec.role is not Role.PRUNABLE else mask.places(spec.name)


def gather(sources: Sequence[Array], places: Sequence[Indices | None]) -> Array:
    """The values of several tensors at their places, end to end; a view when it is one whole tensor."""
    if len(sources) == 1:
        return sources[0] if places[0] is None else sources[0].take(places[0])
    counts = [source.size if at is None else at.size for source, at in zip(sources, places, strict=True)]
    out = np.empty(sum(counts), sources[0].dtype)
    start = 0
    for source, at, count in zip(sources, places, counts, strict=True):
        if at is None:
            out[start : start + count] = source
        else:
            # mode: with "raise", take would write to a buffer first; places of a mask are known to be inside.
            source.take(at, out=out[start : start + count], mode="clip")
        start += count
    return out


def space_shapes(specs: Sequence[TensorSpec], mask: Mask | None) -> list[Shape]:
    """The index space of a segment, tensor by tensor: the tensor itself, or one row of what is alive under a mask."""
    shapes = []
    for spec in specs:
        places = alive_places(mask, spec)
        shapes.append(Shape.of(spec) if places is None else Shape(1, places.size))
    return shapes


def cuts(kept: Places | None, shapes: Sequence[Shape]) -> list[int]:
    """Where each tensor's values end in a segment; `kept` are the places that travel, None for all."""
    ends = np.cumsum([shape.size for shape in shapes], dtype=np.intp)
    return [int(end) for end in (ends if kept is None else np.searchsorted(kept.indices, ends))]


def split(values: NDArray[Scalar], ends: Sequence[int]) -> list[NDArray[Scalar]]:
    """Views of `values`, one a tensor."""
    return [values[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
