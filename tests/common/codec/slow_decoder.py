"""A second decoder, written from docs/format.md alone: slow and obvious, lists and loops.

It shares no line with fedprune's codec and checks nothing that the page does not ask for. numpy is here for the
arithmetic of float32, and for nothing else.
"""

from __future__ import annotations

import struct
import zlib
from math import prod

import numpy as np
from slow_places import (  # type: ignore[import-not-found]  # beside this file; the test that loads it knows where
    Reader,
    places_of,
)

from fedprune.tensor import Role, Schema, TensorSpec

WIDTH = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2}
EIGHTHS = ["3f800000", "3f6ac0c7", "3f5744fd", "3f45672a", "3f3504f3", "3f25fed7", "3f1837f0", "3f0b95c2"]
Patterns = dict[str, list[int]]  # a tensor's bit patterns, or truth values, flat


def planes(r: Reader, n: int, width: int) -> list[int]:
    out: list[int] = []
    while len(out) < n:
        block = min(n - len(out), 1 << 16)
        each = [r.stream(block) for _ in range(width)]
        out += [sum(each[b][i] << 8 * b for b in range(width)) for i in range(block)]
    return out


def turn(words: list[int], bits: int) -> list[int]:
    low = bits - 16
    return [w % 2**low | (w >> low + 1 | (w >> low & 1) << 15) << low for w in words]


def undo_difference(words: list[int], base: list[int], bits: int) -> list[int]:
    middle = int("00" + "80" * (bits // 8 - 1), 16)
    return [(z + b - middle) % 2**bits for z, b in zip(words, base, strict=True)]


def f32(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


def quantised(coding: int, scales: Reader, body: Reader, counts: list[int]) -> list[int]:
    if coding == 4:
        return [w for n in counts for w in halves(scales, body, n)]
    if coding == 5:
        return [w << 16 for n in counts for w in turn(planes(body, n, 2), 16)]
    if coding == 8:
        return ternary(scales, body, counts)
    return in_blocks(scales, body, counts, 127 if coding == 6 else 7)


def halves(scales: Reader, body: Reader, n: int) -> list[int]:
    shift = struct.unpack("b", scales.take(1))[0]
    floats = struct.unpack(f"<{n}e", struct.pack(f"<{n}H", *turn(planes(body, n, 2), 16)))
    return [f32(h * 2.0**-shift) for h in floats]


def ternary(scales: Reader, body: Reader, counts: list[int]) -> list[int]:
    tops = [struct.unpack("<f", scales.take(4))[0] for _ in counts]
    codes = [s // 3**i % 3 - 1 for s in body.stream((sum(counts) + 4) // 5) for i in range(5)]
    each = [top for n, top in zip(counts, tops, strict=True) for _ in range(n)]
    return [f32(code * top) for code, top in zip(codes[: len(each)], each, strict=True)]


def in_blocks(scales: Reader, body: Reader, counts: list[int], levels: int) -> list[int]:
    block = 2 ** scales.number(1)
    top = np.float32(struct.unpack("<f", scales.take(4))[0])
    coded = scales.stream(sum((n + block - 1) // block for n in counts))
    if levels == 127:
        codes = [c - 256 if c > 127 else c for c in body.stream(sum(counts))]
    else:
        nibbles = [h for pair in body.stream((sum(counts) + 1) // 2) for h in (pair & 15, pair >> 4)]
        codes = [c - 16 if c > 7 else c for c in nibbles]
    out: list[int] = []
    at = 0
    for n in counts:
        for i in range(n):
            if i % block == 0:
                step = scale_of(coded.pop(0), top) / np.float32(levels)
            out.append(f32(float(np.float32(codes[at]) * step)))
            at += 1
    return out


def scale_of(c: int, top: np.float32) -> np.float32:
    eighth = np.float32(struct.unpack(">f", bytes.fromhex(EIGHTHS[c % 8]))[0])
    return np.float32(0) if c == 255 else eighth * np.float32(2.0 ** -(c // 8)) * top


class Space:
    """The index space of a segment: each tensor's places that can travel."""

    def __init__(self, own: list[TensorSpec], mask: Patterns | None) -> None:
        self.own, self.where, self.shapes = own, list[tuple[int, int]](), list[tuple[int, int, int]]()
        for number, spec in enumerate(own):
            alive = list(range(spec.size))
            shape = (1, spec.size, 1)
            if mask is not None and spec.role is Role.PRUNABLE and not all(mask[spec.name]):
                alive = [i for i in alive if mask[spec.name][i]]
                shape = (1, len(alive), 1)
            elif len(spec.shape) > 1:
                shape = (spec.shape[0], spec.shape[1], prod(spec.shape[2:]))
            self.where += [(number, i) for i in alive]
            self.shapes.append(shape)

    def spread(self, found: list[int], values: list[int]) -> Patterns:
        out = {spec.name: [0] * spec.size for spec in self.own}
        for place, value in zip(found, values, strict=True):
            number, i = self.where[place]
            out[self.own[number].name][i] = value
        return out


def decode(data: bytes, schema: Schema, mask: Patterns | None, base: Patterns | None) -> Patterns:
    """Every tensor of a frame; `mask` and `base` are what the frame was made against."""
    r = Reader(data)
    assert r.take(4) == b"fpr\x03"
    content, flags = r.number(1), r.number(1)
    r.take(8)
    for _ in range(3):
        r.varint()
    r.take(8 * (flags & 1) + 8 * (flags >> 1))
    segments, tensors = r.varint(), r.varint()
    owner = [r.varint() for _ in range(tensors)]
    checked = data[: r.at]
    assert r.number(4) == zlib.crc32(checked)
    specs = schema.prunable if content == 1 else schema.tensors
    out: Patterns = {}
    for number in range(segments):
        own = [spec for spec, g in zip(specs, owner, strict=True) if g == number]
        start = r.at
        out |= segment(r, own, content == 1, mask, base)
        assert r.data[r.at - 4 : r.at] == zlib.crc32(data[start : r.at - 4]).to_bytes(4, "little")
        checked += r.data[r.at - 4 : r.at]
    assert r.number(4) == zlib.crc32(checked)
    assert r.at == len(data)
    return {spec.name: out[spec.name] for spec in specs}


def segment(r: Reader, own: list[TensorSpec], is_mask: bool, mask: Patterns | None, base: Patterns | None) -> Patterns:
    position, coding, k = r.number(1), r.number(1), r.varint()
    sizes = [r.varint() for _ in range(3)]
    proof = r.number(8) if coding == 3 else None
    places, scales, body = (Reader(r.take(size)) for size in sizes)
    r.take(4)
    space = Space(own, mask)
    held = [bit for spec in own for bit in base[spec.name]] if is_mask and base else None
    found = places_of(position, places, k, space.shapes, held)
    values = [1] * k if is_mask else values_of(coding, scales, body, found, space, base or {})
    assert len(found) == k
    assert all(reader.at == len(reader.data) for reader in (places, scales, body))
    if proof is not None:
        raw = b"".join(v.to_bytes(WIDTH.get(own[0].dtype, 1), "little") for v in values)
        raw += bytes(-len(raw) % 8)
        assert proof == sum(struct.unpack(f"<{len(raw) // 8}Q", raw)) % 2**64
    return space.spread(found, values)


def values_of(coding: int, scales: Reader, body: Reader, found: list[int], space: Space, base: Patterns) -> list[int]:
    dtype, k = space.own[0].dtype, len(found)
    width, is_float = WIDTH.get(dtype, 1), "float" in dtype
    if coding == 1:
        return [body.number(width) for _ in range(k)]
    if coding == 2:
        return turn(planes(body, k, width), 8 * width) if is_float else planes(body, k, width)
    if coding == 3:
        origin = [base[space.own[number].name][i] for number, i in (space.where[place] for place in found)]
        return undo_difference(planes(body, k, width), origin, 8 * width)
    numbers = [space.where[place][0] for place in found]
    return quantised(coding, scales, body, [numbers.count(i) for i in range(len(space.own))])
