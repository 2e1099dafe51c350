"""Masks <-> one frame: which weights are alive, whole or against a mask that both ends hold."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from fedprune.codec import chooser, container
from fedprune.codec import positions as position_codings
from fedprune.codec.base import Content, Cursor, Limits, Plan, Positions, Shape, Values
from fedprune.codec.grouping import Groups, group
from fedprune.errors import DecodeError, DigestError, LimitError, LocalError, VersionError
from fedprune.mask import Bits, Mask
from fedprune.tensor import Schema, TensorSpec, Version

SINGLE = "mask"


def encode_mask_set(mask: Mask, *, base: Mask | None = None, plan: Plan | None = None) -> bytes:
    """One frame with all of `mask`; `base` is a mask of the same model that the receiver holds."""
    if base is not None and base.schema.digest != mask.schema.digest:
        raise LocalError("the base mask is of another model", seen=base.schema.digest, expected=mask.schema.digest)
    specs = mask.schema.prunable
    groups = group([None] * len(specs), [spec.size for spec in specs])
    header = container.Header(
        content=Content.MASK,
        version=Version(mask=mask.version),
        schema=container.short_digest(mask.schema.digest),
        mask=container.short_digest(mask.fingerprint),
        base=None if base is None else container.short_digest(base.fingerprint),
        owner=groups.owner,
        segments=len(groups.members),
    )
    sink = io.BytesIO()
    sink.writelines(container.write(header, _segments(mask, groups, plan or Plan())))
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
    alive: dict[str, Bits] = {}
    for segment, members in zip(frame.segments, groups.members, strict=True):
        alive.update(_decode(segment, [schema.prunable[m] for m in members]))
    ordered = {spec.name: alive[spec.name] for spec in schema.prunable}
    mask = Mask(schema=schema, version=frame.header.version.mask, alive=ordered)
    if container.short_digest(mask.fingerprint) != frame.header.mask:
        raise DigestError("the mask is not the one that was sent", seen=mask.fingerprint)
    return mask


def encode_mask(mask: Bits, *, base: Bits | None = None, plan: Plan | None = None) -> bytes:
    """One frame with a single boolean array of any shape."""
    whole = _single(np.asarray(mask, order="C"))
    return encode_mask_set(whole, base=None if base is None else _single(np.asarray(base, order="C")), plan=plan)


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


def _segments(mask: Mask, groups: Groups, plan: Plan) -> Iterator[container.Coded]:
    for members in groups.members:
        specs = [mask.schema.prunable[m] for m in members]
        bits = [mask.alive[spec.name].reshape(-1) for spec in specs]
        indices = np.flatnonzero(bits[0] if len(bits) == 1 else np.concatenate(bits))
        if indices.size == sum(spec.size for spec in specs):
            coding, parts = Positions.ALL, list[bytes]()
        else:
            coding, parts = chooser.choose_positions(indices, [Shape(*spec.matrix_shape) for spec in specs], plan)
        yield container.Coded(positions=coding, values=Values.NONE, count=indices.size, places=parts)


def _check_header(header: container.Header, schema: Schema, version: int | None, base: Mask | None) -> Groups:
    if header.content is not Content.MASK or header.mask is None:
        raise DecodeError("an update where a mask was expected", seen=header.content.name.lower())
    for what, theirs, ours in (
        ("model", header.schema, container.short_digest(schema.digest)),
        ("base mask", header.base, None if base is None else container.short_digest(base.fingerprint)),
    ):
        if theirs != ours and theirs is not None:
            raise VersionError(
                f"the mask was made against another {what}",
                seen=theirs.hex(),
                expected=ours.hex() if ours else "none",
                next_step="Ask for the whole mask",
            )
    if version is not None and header.version.mask != version:
        raise VersionError("another mask version", seen=header.version.mask, expected=version)
    if len(header.owner) != len(schema.prunable):
        raise DecodeError("another number of tensors", seen=len(header.owner), expected=len(schema.prunable))
    return Groups(owner=header.owner)


def _decode(segment: container.Segment, specs: list[TensorSpec]) -> Iterator[tuple[str, Bits]]:
    shapes = [Shape(*spec.matrix_shape) for spec in specs]
    size = position_codings.space_size(shapes)
    if segment.count > size:
        raise LimitError("more alive weights than there are", seen=segment.count, expected=f"at most {size}")
    if segment.values is not Values.NONE or segment.scales or segment.body:
        raise DecodeError("values in a mask")
    segment.check()
    cursor = Cursor(segment.places)
    indices = position_codings.CODINGS[segment.positions].decode(cursor, segment.count, shapes)
    cursor.done()
    bits = np.zeros(size, np.bool_)
    bits[slice(None) if indices is None else indices] = True
    start = 0
    for spec in specs:
        yield spec.name, bits[start : start + spec.size].reshape(spec.shape)
        start += spec.size
