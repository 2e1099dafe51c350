"""One frame -> named arrays, tensor by tensor, trusting nothing in it.

Everything that decides how much memory is needed comes from the receiver: its schema, its mask, its limits. The
frame only says how that memory is filled, and is refused where it says something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedprune.codec import container, lossy
from fedprune.codec import positions as position_codings
from fedprune.codec import values as value_codings
from fedprune.codec.arrays import as_mask, gather, split
from fedprune.codec.base import Array, Content, Cursor, Packed, Positions, Values
from fedprune.codec.grouping import Groups
from fedprune.codec.limits import Limits
from fedprune.codec.places import Places
from fedprune.codec.slots import Slot, ends_of, shapes_of, slots
from fedprune.errors import DecodeError, LimitError, VersionError
from fedprune.mask import Bits, Indices, Mask
from fedprune.tensor import Schema, TensorSpec, Version

# Decoded before they are put to their places, of several segments together: a megabyte of float32.
HELD_VALUES = 1 << 18


class UpdateReader:
    """A frame, checked up to its lengths when built; iterating decodes it and gives (spec, `Packed`) in schema order.

    `mask` and `base` are what the receiver holds of the version that the frame was made against. Raises
    `LimitError` before anything of the size of a tensor is allocated, `VersionError` for another model, mask or base,
    `DigestError` for damaged bytes, `DecodeError` for everything else that is no valid frame.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        *,
        schema: Schema,
        mask: Mask | Mapping[str, Bits] | None = None,
        base: Mapping[str, Array] | None = None,
        limits: Limits | None = None,
    ) -> None:
        view = memoryview(data).cast("B")
        self._schema = schema
        self._mask = as_mask(mask, schema, Version())
        self._base = base
        members = slots(schema, self._mask)
        limits = limits or Limits.of_slots(members)
        limits.check(size=len(view), elements=sum(slot.size for slot in members))
        self._frame = container.parse(view)
        self._check_header()
        groups = Groups(owner=self._frame.header.owner)
        self._members = [[members[m] for m in numbers] for numbers in groups.members]
        for segment, own in zip(self._frame.segments, self._members, strict=True):
            self._check_segment(segment, own)

    @property
    def content(self) -> Content:
        """Weights, or their difference to the weights of `version`."""
        return self._frame.header.content

    @property
    def version(self) -> Version:
        """What the frame was made against."""
        return self._frame.header.version

    @property
    def count(self) -> int:
        """How many values travelled."""
        return sum(segment.count for segment in self._frame.segments)

    def __iter__(self) -> Iterator[tuple[TensorSpec, Packed]]:
        decoded: dict[int, list[Packed]] = {}
        for spec, owner in zip(self._schema, self._frame.header.owner, strict=True):
            if owner not in decoded:
                decoded[owner] = self._decode(owner)[::-1]
            yield spec, decoded[owner].pop()

    def into(self, arrays: Mapping[str, Array]) -> None:
        """Write what travelled into `arrays`, in place; everything else in them stays as it is.

        The arrays are contiguous and have the shapes and dtypes of the schema; after an error they hold anything.
        Tensors that travelled whole are decoded where they belong; of others, some are decoded before they are put to
        their places, which takes from the cache all that the next one is decoded with.
        """
        held: list[tuple[Slot, Packed]] = []
        held_values = 0
        for number, (segment, members) in enumerate(zip(self._frame.segments, self._members, strict=True)):
            if len(members) == 1 and members[0].places is None and self._names_no_places(number):
                self._decode(number, out=arrays[members[0].spec.name].reshape(-1))
                continue
            held_values += segment.count
            if held_values > HELD_VALUES:
                _put(held, arrays)
                held, held_values = [], segment.count
            held += zip(members, self._decode(number), strict=True)
        _put(held, arrays)

    def _names_no_places(self, number: int) -> bool:
        return self._frame.segments[number].positions in (Positions.ALL, Positions.REF)

    def _check_header(self) -> None:
        header = self._frame.header
        if header.content is Content.MASK:
            raise DecodeError("a mask where an update was expected")
        container.check_same("model", header.schema, container.short_digest(self._schema.digest))
        mine = None if self._mask is None else container.short_digest(self._mask.fingerprint)
        container.check_same("mask", header.mask, mine)
        if len(header.owner) != len(self._schema):
            raise DecodeError("another number of tensors", seen=len(header.owner), expected=len(self._schema))

    def _check_segment(self, segment: container.Segment, members: list[Slot]) -> None:
        first, space = members[0].spec, sum(slot.size for slot in members)
        if segment.count > space:
            raise LimitError("more values than can travel", seen=segment.count, expected=f"at most {space}")
        if len({slot.spec.dtype for slot in members}) > 1:
            raise DecodeError("tensors of different dtypes in one segment")
        if segment.positions in (Positions.ALL, Positions.REF) and segment.count != space:
            raise DecodeError("fewer values than the tensors have", seen=segment.count, expected=space)
        if segment.values is Values.NONE or segment.positions in (Positions.XOR, Positions.PARTS):
            raise DecodeError("a mask's coding in an update")
        if segment.values in lossy.CODINGS and first.dtype != "float32":
            raise DecodeError("a coding with loss for a tensor that must stay whole", seen=first.dtype)
        if segment.values is Values.RAW and len(segment.body) != segment.count * first.numpy_dtype.itemsize:
            raise DecodeError("raw values of another length", seen=len(segment.body))

    def _decode(self, number: int, out: Array | None = None) -> list[Packed]:
        segment, members = self._frame.segments[number], self._members[number]
        segment.check()
        kept = None
        if not self._names_no_places(number):
            cursor = Cursor(segment.places)
            kept = position_codings.CODINGS[segment.positions].decode(cursor, segment.count, shapes_of(members))
            cursor.done()
        ends = ends_of(members, kept)
        if out is None:
            out = value_codings.empty(segment.count, members[0].spec.dtype)
        self._read_values(segment, members, kept, ends, out)
        values, indices = split(out, ends), _indices(members, kept, ends)
        return [Packed(at, part) for at, part in zip(indices, values, strict=True)]

    def _read_values(
        self, segment: container.Segment, members: list[Slot], kept: Places | None, ends: list[int], values: Array
    ) -> None:
        dtype = members[0].spec.dtype
        cursor, scales = Cursor(segment.body), Cursor(segment.scales)
        if segment.values in lossy.CODINGS:
            lossy.CODINGS[segment.values].decode(scales, cursor, lossy.floats(values), ends)
        else:
            base = self._base_values(members, kept) if segment.values is Values.DIFFERENCE else None
            value_codings.CODINGS[segment.values].decode(cursor, values, dtype, base)
        cursor.done()
        scales.done()
        if dtype == "bool" and bool((values.view(np.uint8) > 1).any()):
            raise DecodeError("a truth value that is neither 0 nor 1")
        if segment.proof is not None and value_codings.proof_of(values) != segment.proof:
            raise VersionError(
                "values were coded against another base than ours",
                next_step="Pull the version that the frame names, or send the values whole",
            )

    def _base_values(self, members: list[Slot], kept: Places | None) -> Array:
        if self._base is None:
            raise VersionError("values are coded against a base that we do not hold", seen=str(self.version))
        base = gather(self._base, members)
        return base if kept is None else base.take(kept.indices)


def _put(held: Sequence[tuple[Slot, Packed]], arrays: Mapping[str, Array]) -> None:
    """Write what travelled of each tensor to its places in `arrays`."""
    for slot, packed in held:
        places = slot.places if packed.indices is None else packed.indices
        arrays[slot.spec.name].reshape(-1)[slice(None) if places is None else places] = packed.values


def _indices(members: list[Slot], kept: Places | None, ends: list[int]) -> Iterator[Indices | None]:
    """Places inside each tensor of a segment, from places in the segment's space."""
    if kept is None:
        yield from [None] * len(members)
        return
    start = 0
    for slot, own in zip(members, split(kept.indices, ends), strict=True):
        yield own - start if slot.places is None else slot.places.take(own - start)
        start += slot.size


def decode_update(
    data: bytes | memoryview,
    *,
    schema: Schema,
    mask: Mask | Mapping[str, Bits] | None = None,
    base: Mapping[str, Array] | None = None,
    limits: Limits | None = None,
    out: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """All tensors of a frame as whole arrays, zero where nothing travelled; written into `out` where given."""
    reader = UpdateReader(data, schema=schema, mask=mask, base=base, limits=limits)
    if out is None:
        arrays = {spec.name: np.zeros(spec.shape, spec.numpy_dtype) for spec in schema}
    else:
        arrays = dict(out)
        for array in arrays.values():
            array.fill(0)
    reader.into(arrays)
    return arrays
