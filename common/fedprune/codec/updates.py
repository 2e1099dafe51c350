"""Named arrays <-> one frame: the updates of clients and the models of the coordinator.

The writer and the reader both go through the segments of a frame one at a time. A tensor of role `buffer` or
`counter` is always a value, never a difference; what `Content.DELTA` says is said of the weights.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fedprune.allocator import advise_large_pages
from fedprune.codec import chooser, container, lossy
from fedprune.codec import values as value_codings
from fedprune.codec.arrays import alive_places, as_mask, cuts, flat, gather, space_shapes, split
from fedprune.codec.base import LOSSY, Array, Content, Part, Plan, Positions, Shape, Values, length, mask_count
from fedprune.codec.blocks import Dither
from fedprune.codec.grouping import Groups, group
from fedprune.codec.places import Places
from fedprune.codec.room import Room
from fedprune.errors import LocalError
from fedprune.mask import Bits, Mask
from fedprune.tensor import Role, Schema, TensorSpec, Version

DENSE_SHARE = 0.97  # above it, positions cost more than the zeros they leave out
SAMPLE_VALUES = 1 << 12
LARGE_FRAME_BYTES = 4 << 20
# A frame of 37 MB that comes out 2 % above the guess takes 30 ms to write instead of 7; memory that was asked for and not
# written to costs nothing, and is given back. So guesses are high for what is large, and cover most of the rest.
RAW_SHARE = {"raw": 1.01, "lossless": 0.9, "fp16": 0.48, "bf16": 0.4, "int8": 0.26, "int4": 0.13, "ternary": 0.06}
# Against a base a dense frame is half to three quarters of raw; guessed higher, it would take more than a tensor and a half.
DIFFERENCE_SHARE = 0.585


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Everything a segment is made from."""

    tensors: Mapping[str, Array]
    base: Mapping[str, Array] | None
    mask: Mask | None
    plan: Plan
    content: Content
    dither: Dither
    room: Room


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
    plan = Plan.of(plan)
    sink = _sink(_expected_bytes(schema, plan, as_mask(mask, schema, version or Version()), has_base=base is not None))
    sink.writelines(
        iter_update(tensors, schema=schema, plan=plan, mask=mask, base=base, version=version, content=content)
    )
    sink.truncate()
    return sink.getvalue()


def _expected_bytes(schema: Schema, plan: Plan, mask: Mask | None, *, has_base: bool) -> int:
    """What the frame will about be; where it comes out larger, its memory grows in the pages it was given."""
    shares_of = {**RAW_SHARE, "lossless": DIFFERENCE_SHARE} if has_base else RAW_SHARE
    shares = ((spec, shares_of[plan.coding_of(spec)] * spec.numpy_dtype.itemsize) for spec in schema)
    return int(sum(mask_count(mask, spec) * share for spec, share in shares))


def _sink(expected_bytes: int) -> io.BytesIO:
    """Where a frame is put together. A large one gets its memory at once, untouched: growing would fault in each page
    by itself, and take longer than most codings."""
    if expected_bytes < LARGE_FRAME_BYTES:
        return io.BytesIO()
    sink = io.BytesIO(bytes(expected_bytes))  # zeros that nobody wrote take no memory; nobody else holds them: no copy
    with sink.getbuffer() as memory:
        advise_large_pages(memory)
    return sink


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
    if content is Content.MASK:
        raise LocalError("a mask is no update", next_step="Use encode_mask_set")
    version = version or Version()
    held = as_mask(mask, schema, version)
    plan = Plan.of(plan)
    dither, room = Dither(plan.rng), Room()
    source = _Source(tensors=tensors, base=base, mask=held, plan=plan, content=content, dither=dither, room=room)
    kinds = [(t.dtype, source.plan.coding_of(t), _has_base(t, source)) for t in schema]
    groups = group(kinds, [t.size for t in schema])
    header = container.Header(
        content=content,
        version=version,
        schema=container.short_digest(schema.digest),
        mask=None if source.mask is None else container.short_digest(source.mask.fingerprint),
        base=None,
        owner=groups.owner,
        segments=len(groups.members),
    )
    return container.write(header, _segments(schema, groups, kinds, source))


def _has_base(spec: TensorSpec, source: _Source) -> bool:
    is_value = source.content is Content.WEIGHTS or spec.role in (Role.BUFFER, Role.COUNTER)
    return source.base is not None and is_value and source.plan.coding_of(spec) == "lossless"


def _segments(
    schema: Schema, groups: Groups, kinds: list[tuple[str, str, bool]], source: _Source
) -> Iterator[container.Coded]:
    for members in groups.members:
        specs = [schema.tensors[m] for m in members]
        _, _, has_base = kinds[members[0]]
        yield _segment(specs, has_base, source)


def _segment(specs: list[TensorSpec], has_base: bool, source: _Source) -> container.Coded:
    places = [alive_places(source.mask, spec) for spec in specs]
    values = gather([flat(source.tensors, spec) for spec in specs], places)
    base = None
    if has_base and source.base is not None:
        base = gather([flat(source.base, spec) for spec in specs], places)
    shapes = space_shapes(specs, source.mask)
    choice, kept = _positions(values, shapes, specs, source)
    if kept is not None:
        values, base = values.take(kept.indices), None if base is None else base.take(kept.indices)
    coding, scales, body = _values(values, cuts(kept, shapes), base, specs, source)
    return container.Coded(
        positions=choice.coding,
        values=coding,
        count=values.size,
        places=choice.parts,
        scales=scales,
        body=body,
        proof=value_codings.proof_of(values) if coding is Values.DIFFERENCE else None,
    )


def _values(
    values: Array, ends: list[int], base: Array | None, specs: list[TensorSpec], source: _Source
) -> tuple[Values, list[Part], list[Part]]:
    """The coding, scales and symbols of a segment's values; with loss only where that is smaller than raw."""
    asked, room = source.plan.coding_of(specs[0]), source.room
    if asked == "raw":
        return Values.RAW, [], value_codings.CODINGS[Values.RAW].encode(values, specs[0].dtype, None, room)
    if asked in LOSSY:
        coding = LOSSY[asked]
        names = [spec.name for spec in specs]
        scales, body = lossy.CODINGS[coding].encode(
            split(lossy.floats(values), ends), names, source.dither, room, source.content
        )
        if length(scales) + length(body) < values.nbytes:
            return coding, scales, body
    coding, body = chooser.choose_lossless(values, specs[0].dtype, base, room)
    return coding, [], body


def _positions(
    values: Array, shapes: list[Shape], specs: list[TensorSpec], source: _Source
) -> tuple[chooser.Choice, Places | None]:
    if source.mask is None or source.plan.sparse:
        kept = _non_zeros(values, is_lossy=source.plan.coding_of(specs[0]) in LOSSY)
        if kept is not None:
            return chooser.choose_positions(kept, shapes, source.plan), kept
    masked = source.mask is not None and any(spec.role is Role.PRUNABLE for spec in specs)
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
