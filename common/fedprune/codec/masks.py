"""Masks <-> one frame: which weights are alive, whole or against a mask that both ends hold."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedprune.codec import chooser, container, diff
from fedprune.codec import positions as position_codings
from fedprune.codec.base import Content, Cursor, Plan, Positions, Shape, Values, space_size
from fedprune.codec.grouping import Groups, group
from fedprune.codec.limits import Limits
from fedprune.codec.places import Places
from fedprune.codec.positions import is_rows_columns
from fedprune.errors import DecodeError, DigestError, LimitError, LocalError, VersionError
from fedprune.mask import Bits, Mask, count_ones
from fedprune.tensor import Schema, TensorSpec, Version

SINGLE = "mask"
WORTH_WHOLE = 0.25  # changed share of the alive weights from which the whole mask is tried beside the difference


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Everything a segment is made from; `kinds` and `counts` (of alive weights) tensor by tensor."""

    mask: Mask
    base: Mask | None
    kinds: list[str]
    counts: list[int]
    plan: Plan


def encode_mask_set(mask: Mask, *, base: Mask | None = None, plan: Plan | None = None) -> bytes:
    """One frame with all of `mask`; `base` is a mask of the same model that the receiver holds."""
    return _encode(mask, base, plan or Plan(), fingerprint=container.short_digest(mask.fingerprint))


def _encode(mask: Mask, base: Mask | None, plan: Plan, fingerprint: bytes | None) -> bytes:
    if base is not None and base.schema.digest != mask.schema.digest:
        raise LocalError("the base mask is of another model", seen=base.schema.digest, expected=mask.schema.digest)
    specs = mask.schema.prunable
    counts = [count_ones(mask.packed(spec.name)) for spec in specs]
    kinds = [_kind(mask.alive[spec.name], n, Shape.of(spec)) for spec, n in zip(specs, counts, strict=True)]
    sizes = [0 if kind == "lines" else spec.size for kind, spec in zip(kinds, specs, strict=True)]
    groups = group(kinds, sizes)
    header = container.Header(
        content=Content.MASK,
        version=Version(mask=mask.version),
        schema=container.short_digest(mask.schema.digest),
        mask=fingerprint,
        base=None if base is None else container.short_digest(base.fingerprint),
        owner=groups.owner,
        segments=len(groups.members),
    )
    source = _Source(mask=mask, base=base, kinds=kinds, counts=counts, plan=plan)
    sink = io.BytesIO()
    sink.writelines(container.write(header, (_segment(source, members) for members in groups.members)))
    return sink.getvalue()


def decode_mask_set(
    data: bytes | memoryview,
    *,
    schema: Schema,
    version: int | None = None,
    base: Mask | None = None,
    limits: Limits | None = None,
) -> Mask:
    """The mask of a frame. `version`, where given, must be the frame's; `base` must be the one it was made against.

    Raises `LimitError`, `VersionError`, `DigestError` (the mask is not the one that was sent) or `DecodeError`.
    """
    view = memoryview(data).cast("B")
    limits = limits or Limits.of_mask(schema)
    limits.check(size=len(view), elements=sum(spec.size for spec in schema.prunable))
    frame = container.parse(view)
    groups = _check_header(frame.header, schema, version, base)
    held = base if frame.header.base is not None else None
    alive: dict[str, Bits] = {}
    for segment, members in zip(frame.segments, groups.members, strict=True):
        alive.update(_decode(segment, [schema.prunable[m] for m in members], held))
    ordered = {spec.name: alive[spec.name] for spec in schema.prunable}
    mask = Mask(schema=schema, version=frame.header.version.mask, alive=ordered)
    if frame.header.mask is not None and frame.header.mask != container.short_digest(mask.fingerprint):
        raise DigestError("the mask is not the one that was sent", seen=mask.fingerprint)
    return mask


def encode_mask(mask: Bits, *, base: Bits | None = None, plan: Plan | None = None) -> bytes:
    """One frame with a single boolean array of any shape."""
    whole, held = _single(np.asarray(mask, order="C")), None if base is None else _single(np.asarray(base, order="C"))
    return _encode(whole, held, plan or Plan(), fingerprint=None)


def decode_mask(
    data: bytes | memoryview, *, shape: tuple[int, ...], base: Bits | None = None, limits: Limits | None = None
) -> Bits:
    """The boolean array of `shape` in a frame of `encode_mask`."""
    held = None if base is None else _single(np.asarray(base, order="C"))
    return decode_mask_set(data, schema=_single_schema(shape), base=held, limits=limits).alive[SINGLE]


def _single_schema(shape: tuple[int, ...]) -> Schema:
    return Schema(tensors=(TensorSpec(name=SINGLE, shape=shape),))


def _single(bits: Bits) -> Mask:
    if bits.dtype != np.bool_:
        raise LocalError("a mask is boolean", seen=bits.dtype, expected="bool")
    return Mask(schema=_single_schema(bits.shape), version=0, alive={SINGLE: bits})


def _kind(bits: Bits, count: int, shape: Shape) -> str:
    """Tensors of one kind share index spaces: nothing pruned, pruned by whole rows and columns, anything else."""
    if count == bits.size:
        return "full"
    # the test for lines costs a look at a few rows, unless they are there
    if (shape.rows + shape.columns) / 8 < chooser.entropy_bytes(bits.size, count) and is_rows_columns(bits, shape):
        return "lines"
    return "single"


def _segment(source: _Source, members: Sequence[int]) -> container.Coded:
    best = min(_alternatives(source, members), key=lambda choice: choice.cost_s)
    count = sum(source.counts[m] for m in members)
    return container.Coded(positions=best.coding, values=Values.NONE, count=count, places=best.parts)


def _alternatives(source: _Source, members: Sequence[int]) -> list[chooser.Choice]:
    specs, kind = [source.mask.schema.prunable[m] for m in members], source.kinds[members[0]]
    places, plan = _places(source, members), source.plan
    against: list[chooser.Choice] = []
    if source.base is not None and plan.positions in (None, Positions.XOR, Positions.PARTS):
        held = _laid_out(source.base, specs)
        against = diff.alternatives(places.bits, held, plan)
        if np.count_nonzero(places.bits ^ held) < WORTH_WHOLE * places.count or plan.positions is not None:
            return against
    if kind == "lines" and plan.positions is None:
        plan = replace(plan, positions=Positions.ROWS_COLUMNS)
    return [*against, *chooser.alternatives(places, [Shape.of(spec) for spec in specs], plan)]


def _places(source: _Source, members: Sequence[int]) -> Places:
    specs = [source.mask.schema.prunable[m] for m in members]
    bits, count = _laid_out(source.mask, specs), sum(source.counts[m] for m in members)
    packed = source.mask.packed(specs[0].name) if len(specs) == 1 else None
    return Places(size=bits.size, count=count, bits=bits, indices=None, packed=packed)


def _laid_out(mask: Mask, specs: list[TensorSpec]) -> Bits:
    bits = [mask.alive[spec.name].reshape(-1) for spec in specs]
    return bits[0] if len(bits) == 1 else np.concatenate(bits)


def _check_header(header: container.Header, schema: Schema, version: int | None, base: Mask | None) -> Groups:
    if header.content is not Content.MASK:
        raise DecodeError("an update where a mask was expected", seen=header.content.name.lower())
    container.check_same("model", header.schema, container.short_digest(schema.digest))
    if header.base is not None:
        held = None if base is None else container.short_digest(base.fingerprint)
        container.check_same("base mask", header.base, held)
    if version is not None and header.version.mask != version:
        raise VersionError("another mask version", seen=header.version.mask, expected=version)
    if len(header.owner) != len(schema.prunable):
        raise DecodeError("another number of tensors", seen=len(header.owner), expected=len(schema.prunable))
    return Groups(owner=header.owner)


def _decode(segment: container.Segment, specs: list[TensorSpec], base: Mask | None) -> Iterator[tuple[str, Bits]]:
    shapes = [Shape.of(spec) for spec in specs]
    size = space_size(shapes)
    if segment.count > size:
        raise LimitError("more alive weights than there are", seen=segment.count, expected=f"at most {size}")
    if segment.values is not Values.NONE or segment.scales or segment.body:
        raise DecodeError("values in a mask")
    segment.check()
    cursor = Cursor(segment.places)
    if segment.positions not in (Positions.REF, Positions.XOR, Positions.PARTS):
        bits = position_codings.CODINGS[segment.positions].decode(cursor, segment.count, shapes).bits
    elif base is None:
        raise DecodeError("a difference in a mask that names no base")
    else:
        bits = diff.decode(segment.positions, cursor, segment.count, shapes, _laid_out(base, specs))
    cursor.done()
    start = 0
    for spec, shape in zip(specs, shapes, strict=True):
        yield spec.name, bits[start : start + shape.size].reshape(spec.shape).view(np.bool_)
        start += shape.size
