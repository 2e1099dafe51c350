"""A second decoder, written from docs/format.md alone: slow and obvious, lists and loops.

It shares no line with fedprune's codec and checks nothing that the page does not ask for. numpy is here for the
arithmetic of float32, and for nothing else.
"""

from __future__ import annotations

import struct
import zlib
from math import prod

import numpy as np
import zstandard

from fedprune.tensor import Role, Schema, TensorSpec

WIDTH = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2}
EIGHTHS = ["3f800000", "3f6ac0c7", "3f5744fd", "3f45672a", "3f3504f3", "3f25fed7", "3f1837f0", "3f0b95c2"]
Patterns = dict[str, list[int]]  # a tensor's bit patterns, or truth values, flat


class Reader:
    """Bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        assert self.at + n <= len(self.data)
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, n: int) -> int:
        return int.from_bytes(self.take(n), "little")

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def stream(self, n: int) -> list[int]:
        out: list[int] = []
        while len(out) < n:
            size, mode = min(n - len(out), 1 << 17), self.number(1)
            if mode == 0:
                out += self.take(size)
            elif mode == 1:
                out += zstandard.ZstdDecompressor().decompress(self.take(self.varint()))
            else:
                out += [self.number(1)] * size
        assert len(out) == n
        return out

    def bits(self, n: int) -> list[int]:
        return to_bits(list(self.take((n + 7) // 8)), n)


def to_bits(data: list[int], n: int) -> list[int]:
    return [data[i // 8] >> (7 - i % 8) & 1 for i in range(n)]


def places_of(coding: int, r: Reader, k: int, shapes: list[tuple[int, int, int]], base: list[int] | None) -> list[int]:
    n = sum(a * b * c for a, b, c in shapes)
    if coding == 0:
        return list(range(n))
    if coding == 1:
        return list(range(n)) if base is None else [i for i in range(n) if base[i]]
    if coding == 2:
        return [i for i, bit in enumerate(to_bits(r.stream((n + 7) // 8), n)) if bit]
    if coding == 3:
        return csr(r, shapes)
    if coding == 4:
        return lines(r, shapes)
    if coding == 5:
        return after(gaps(r, k))
    if coding == 6:
        return after(rice(r, k))
    assert base is not None
    if coding == 7:
        changed = set(part(r, n))
        return [i for i in range(n) if bool(base[i]) != (i in changed)]
    alive, dead = [i for i in range(n) if base[i]], [i for i in range(n) if not base[i]]
    dropped = {alive[i] for i in part(r, len(alive))}
    grown = {dead[i] for i in part(r, len(dead))}
    return sorted((set(alive) - dropped) | grown)


def part(r: Reader, n: int) -> list[int]:
    coding, k = r.number(1), r.varint()
    return places_of(coding, r, k, [(1, n, 1)], None)


def narrowest(largest: int) -> int:
    return next(n for n in (1, 2, 4, 8) if largest < 256**n)


def csr(r: Reader, shapes: list[tuple[int, int, int]]) -> list[int]:
    out, start = list[int](), 0
    for rows, columns, depth in shapes:
        rest = columns * depth
        lengths = [r.number(narrowest(rest)) for _ in range(rows)]
        for row, length in enumerate(lengths):
            out += [start + row * rest + r.number(narrowest(max(rest - 1, 0))) for _ in range(length)]
        start += rows * rest
    return out


def lines(r: Reader, shapes: list[tuple[int, int, int]]) -> list[int]:
    n = sum(a + b for a, b, _ in shapes)
    bits, out, start = to_bits(r.stream((n + 7) // 8), n), list[int](), 0
    for rows, columns, depth in shapes:
        of_rows, of_columns, bits = bits[:rows], bits[rows : rows + columns], bits[rows + columns :]
        for i in range(rows):
            for j in range(columns):
                if of_rows[i] and of_columns[j]:
                    out += range(start + (i * columns + j) * depth, start + (i * columns + j + 1) * depth)
        start += rows * columns * depth
    return out


def after(gaps: list[int]) -> list[int]:
    out, at = list[int](), -1
    for gap in gaps:
        at += gap + 1
        out.append(at)
    return out


def gaps(r: Reader, k: int) -> list[int]:
    e = r.number(1)
    symbols = r.stream(k)
    out, octaves = list[int](), list[int]()
    for symbol in symbols:
        s = symbol - 2**e
        o = e + s // 4
        out.append(symbol if s < 0 else (4 + s % 4) * 2 ** (o - 2))
        octaves.append(0 if s < 0 else o)
    bits = r.bits(sum(o - 2 for o in octaves if o))
    for o in range(e, 40):
        for i in range(k):
            if octaves[i] == o:
                for bit in range(o - 2):
                    out[i] += bits.pop(0) << (o - 3 - bit)
    return out


def rice(r: Reader, k: int) -> list[int]:
    low = r.number(1)
    bits, out = r.bits(k * low), list[int]()
    length = r.varint()
    unary = to_bits(list(r.take(length)), 8 * length)
    for i in range(k):
        zeros = unary.index(1)
        unary = unary[zeros + 1 :]
        out.append((zeros << low) + int("0" + "".join(map(str, bits[i * low : (i + 1) * low])), 2))
    return out


def planes(r: Reader, n: int, width: int) -> list[int]:
    out: list[int] = []
    while len(out) < n:
        block = min(n - len(out), 1 << 16)
        each = [r.stream(block) for _ in range(width)]
        out += [sum(each[b][i] << 8 * b for b in range(width)) for i in range(block)]
    return out


def turn(words: list[int], bits: int) -> list[int]:
    return [w >> 1 | (w & 1) << (bits - 1) for w in words]


def ladder(word: int, bits: int) -> int:
    return word ^ (2 ** (bits - 1) - 1) if word >> (bits - 1) else word


def undo_difference(words: list[int], base: list[int], bits: int, is_float: bool) -> list[int]:
    out = []
    for z, b in zip(words, base, strict=True):
        d = z // 2 if z % 2 == 0 else -(z + 1) // 2
        step = ((ladder(b, bits) if is_float else b) + d) % 2**bits
        out.append(ladder(step, bits) if is_float else step)
    return out


def f32(value: float) -> int:
    return int.from_bytes(struct.pack("<f", value), "little")


def quantised(coding: int, scales: Reader, body: Reader, counts: list[int]) -> list[int]:
    if coding == 4:
        return [w for n in counts for w in halves(scales, body, n)]
    if coding == 5:
        return [w << 16 for n in counts for w in turn(planes(body, n, 2), 16)]
    if coding == 8:
        return ternary(scales, body, counts)
    return in_blocks(scales, body, counts, *((128, 127) if coding == 6 else (32, 7)))


def halves(scales: Reader, body: Reader, n: int) -> list[int]:
    shift = struct.unpack("b", scales.take(1))[0]
    floats = struct.unpack(f"<{n}e", struct.pack(f"<{n}H", *turn(planes(body, n, 2), 16)))
    return [f32(h * 2.0**-shift) for h in floats]


def ternary(scales: Reader, body: Reader, counts: list[int]) -> list[int]:
    tops = [struct.unpack("<f", scales.take(4))[0] for _ in counts]
    codes = [s // 3**i % 3 - 1 for s in body.stream((sum(counts) + 4) // 5) for i in range(5)]
    each = [top for n, top in zip(counts, tops, strict=True) for _ in range(n)]
    return [f32(code * top) for code, top in zip(codes[: len(each)], each, strict=True)]


def in_blocks(scales: Reader, body: Reader, counts: list[int], block: int, levels: int) -> list[int]:
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
    assert r.take(4) == b"fpr\x01"
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
        return undo_difference(planes(body, k, width), origin, 8 * width, is_float)
    numbers = [space.where[place][0] for place in found]
    return quantised(coding, scales, body, [numbers.count(i) for i in range(len(space.own))])
