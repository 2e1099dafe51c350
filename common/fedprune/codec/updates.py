"""Named arrays <-> one frame: the updates of clients and the models of the coordinator.

The writer and the reader both go through the segments of a frame one at a time. A tensor of role `buffer` or
`counter` is always a value, never a difference; what `Content.DELTA` says is said of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedprune.codec import chooser, container, lossy
from fedprune.codec import values as value_codings
from fedprune.codec.arrays import as_mask, gather
from fedprune.codec.base import LOSSY, Array, Content, Part, Plan, Positions, Values, length
from fedprune.codec.blocks import Dither
from fedprune.codec.grouping import group
from fedprune.codec.places import Places
from fedprune.codec.room import FrameRoom, Room
from fedprune.codec.slots import Slot, ends_of, shapes_of, slots
from fedprune.errors import LocalError
from fedprune.mask import Bits, Mask
from fedprune.tensor import Role, Schema, Version

DENSE_SHARE = 0.97  # above it, positions cost more than the zeros they leave out
SAMPLE_VALUES = 1 << 12
# How much memory a frame begins with, as a share of raw values. What was asked for and not written to costs nothing, and is
# given back: so what is coded where it will stay gets all that it could take, the rest what it takes with most tensors.
SHARE_OF_RAW = {
    "raw": 1.001,
    "lossless": 1.001,
    "fp16": 0.51,
    "bf16": 0.51,
    "int8": 0.26,
    "int4": 0.13,
    "ternary": 0.06,
}
# Against a base a dense frame is half to three quarters of raw: this leaves the last large tensor space enough.
DIFFERENCE_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Everything a frame is made from; `codings[i]` is what the plan asks for the tensor of `slots[i]`."""

    tensors: Mapping[str, Array]
    base: Mapping[str, Array] | None
    mask: Mask | None
    version: Version
    content: Content
    plan: Plan
    slots: Sequence[Slot]
    codings: list[str]
    dither: Dither
    room: Room

    def has_base(self, number: int) -> bool:
        """Whether values of tensor `number` can be told by their distance to what the receiver holds."""
        role = self.slots[number].spec.role
        is_value = self.content is Content.WEIGHTS or role in (Role.BUFFER, Role.COUNTER)
        return self.base is not None and is_value and self.codings[number] == "lossless"

    @property
    def expected_bytes(self) -> int:
        """The memory that the frame begins with."""
        shares = SHARE_OF_RAW if self.base is None else {**SHARE_OF_RAW, "lossless": DIFFERENCE_SHARE}
        pairs = zip(self.slots, self.codings, strict=True)
        return int(sum(slot.size * slot.spec.numpy_dtype.itemsize * shares[coding] for slot, coding in pairs))


def encode_update(
    tensors: Mapping[str, Array],
    *,
    schema: Schema,
    plan: str | Plan = "lossless",
    mask: Mask | Mapping[str, Bits] | None = None,
    base: Mapping[str, Array] | None = None,
    version: Version | None = None,
    content: Content = Content.WEIGHTS,
) -> bytes:
    """One frame with the values of every tensor of `schema`.

    Under a `mask` that the receiver holds too, only alive weights travel, and no positions; what `tensors` holds off
    the mask is taken to be zero. Without one, zeros are left out where that is smaller. `base` are the arrays of
    `version`, which the receiver holds: lossless values are coded against them where that is smaller (weights only
    when `content` is WEIGHTS). The same input gives the same bytes. Raises `LocalError` naming the tensor.
    """
    source = _source(tensors, schema, plan, mask, base, version, content)
    room = FrameRoom(source.expected_bytes)
    for part in _frame(schema, replace(source, room=room)):
        room.append(part)
    return room.finish()


def iter_update(
    tensors: Mapping[str, Array],
    *,
    schema: Schema,
    plan: str | Plan = "lossless",
    mask: Mask | Mapping[str, Bits] | None = None,
    base: Mapping[str, Array] | None = None,
    version: Version | None = None,
    content: Content = Content.WEIGHTS,
) -> Iterator[Part]:
    """The frame of `encode_update` in parts, made while they are taken: one segment is in memory at a time.

    A part is valid until the next one is asked for: its memory is used again.
    """
    return _frame(schema, _source(tensors, schema, plan, mask, base, version, content))


def _source(
    tensors: Mapping[str, Array],
    schema: Schema,
    plan: str | Plan,
    mask: Mask | Mapping[str, Bits] | None,
    base: Mapping[str, Array] | None,
    version: Version | None,
    content: Content,
) -> _Source:
    if content is Content.MASK:
        raise LocalError("a mask is no update", next_step="Use encode_mask_set")
    version, plan = version or Version(), Plan.of(plan)
    held = as_mask(mask, schema, version)
    return _Source(
        tensors=tensors,
        base=base,
        mask=held,
        version=version,
        content=content,
        plan=plan,
        slots=slots(schema, held),
        codings=[plan.coding_of(spec) for spec in schema],
        dither=Dither(plan.rng),
        room=Room(),
    )


def _frame(schema: Schema, source: _Source) -> Iterator[Part]:
    kinds = [
        (slot.spec.dtype, coding, source.has_base(number))
        for number, (slot, coding) in enumerate(zip(source.slots, source.codings, strict=True))
    ]
    groups = group(kinds, [slot.spec.size for slot in source.slots])
    header = container.Header(
        content=source.content,
        version=source.version,
        schema=container.short_digest(schema.digest),
        mask=None if source.mask is None else container.short_digest(source.mask.fingerprint),
        base=None,
        owner=groups.owner,
        segments=len(groups.members),
    )
    return container.write(header, (_segment(source, members) for members in groups.members))


def _segment(source: _Source, numbers: tuple[int, ...]) -> container.Coded:
    """All of `numbers` are of one kind."""
    members, coding = [source.slots[number] for number in numbers], source.codings[numbers[0]]
    values = gather(source.tensors, members)
    base = gather(source.base, members) if source.base is not None and source.has_base(numbers[0]) else None
    choice, kept = _positions(values, members, coding, source)
    if kept is not None:
        values, base = values.take(kept.indices), None if base is None else base.take(kept.indices)
    most_scales = len(members) if coding in LOSSY else 0
    source.room.bytes_before = container.bytes_before(
        values.size, choice.parts, most_scales, values.nbytes, has_proof=base is not None
    )
    named, scales, body = _values(values, ends_of(members, kept), base, members, coding, source)
    return container.Coded(
        positions=choice.coding,
        values=named,
        count=values.size,
        places=choice.parts,
        scales=scales,
        body=body,
        proof=value_codings.proof_of(values) if named is Values.DIFFERENCE else None,
    )


def _values(
    values: Array, ends: list[int], base: Array | None, members: list[Slot], asked: str, source: _Source
) -> tuple[Values, list[Part], list[Part]]:
    """The coding, scales and symbols of a segment's values; with loss only where that is smaller than raw."""
    dtype, room = members[0].spec.dtype, source.room
    if asked == "raw":
        return Values.RAW, [], value_codings.CODINGS[Values.RAW].encode(values, dtype, None, room)
    if asked in LOSSY:
        coding = LOSSY[asked]
        names = [slot.spec.name for slot in members]
        scales, body = lossy.CODINGS[coding].encode(
            lossy.floats(values), ends, names, source.dither, room, source.content
        )
        if length(scales) + length(body) < values.nbytes:
            return coding, scales, body
    coding, body = chooser.choose_lossless(values, dtype, base, room)
    return coding, [], body


def _positions(
    values: Array, members: list[Slot], coding: str, source: _Source
) -> tuple[chooser.Choice, Places | None]:
    if source.mask is None or source.plan.sparse:
        kept = _non_zeros(values, is_lossy=coding in LOSSY)
        if kept is not None:
            return chooser.choose_positions(kept, shapes_of(members), source.plan), kept
    masked = source.mask is not None and any(slot.spec.role is Role.PRUNABLE for slot in members)
    return chooser.Choice(coding=Positions.REF if masked else Positions.ALL, parts=[], cost_s=0.0), None


def _non_zeros(values: Array, *, is_lossy: bool) -> Places | None:
    """Where values are not zero, or None where so many are that leaving out zeros does not pay. Without loss, bit
    patterns count, and -0.0 travels."""
    words = values if is_lossy else values.view(f"<u{values.dtype.itemsize}")
    sample = words[:: max(1, words.size // SAMPLE_VALUES)]
    if np.count_nonzero(sample != 0) > DENSE_SHARE * sample.size:
        return None
    kept = Places.of_bits(words != 0)
    return kept if kept.count <= DENSE_SHARE * values.size and values.size else None
