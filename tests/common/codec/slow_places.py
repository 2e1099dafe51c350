"""Streams and places of docs/format.md, read the slow and obvious way. Half of the second decoder."""

from __future__ import annotations

import zstandard


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
            elif mode == 2:
                out += [self.number(1)] * size
            elif mode == 3:
                out += self.pairs(size)
            else:
                assert mode == 4
                high, low = self.nibbles(size), self.nibbles(size)
                out += [16 * h + l for h, l in zip(high, low, strict=True)]
        assert len(out) == n
        return out

    def pairs(self, n: int) -> list[int]:
        lowest, half = self.number(1), (n + 1) // 2
        above = apart(self.coded(half, half)[0], n)
        where = [i for i, a in enumerate(above) if a == 15]
        far = self.coded(len(where), len(where))[0] if where else []
        for i, a in zip(where, far, strict=True):
            above[i] = a
        return [(lowest + a) % 256 for a in above]

    def nibbles(self, n: int) -> list[int]:
        data, is_zstd = self.coded(n, (n + 1) // 2)
        return data if is_zstd else apart(data, n)

    def coded(self, n: int, raw: int) -> tuple[list[int], bool]:
        length = self.varint()
        if length == 0:
            return list(self.take(raw)), False
        data = list(zstandard.ZstdDecompressor().decompress(self.take(length)))
        assert len(data) == n
        return data, True

    def bits(self, n: int) -> list[int]:
        return to_bits(list(self.take((n + 7) // 8)), n)


def apart(data: list[int], n: int) -> list[int]:
    return [d % 16 for d in data] + [d // 16 for d in data][: n - len(data)]


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
    if coding == 9:
        return grid(r, shapes)
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


def grid(r: Reader, shapes: list[tuple[int, int, int]]) -> list[int]:
    row_classes = r.stream(sum(a for a, _, _ in shapes))
    column_classes = r.stream(sum(b * c for _, b, c in shapes))
    groups: list[list[int]] = [[] for _ in range(31)]
    start = 0
    for a, b, c in shapes:
        rows, row_classes = row_classes[:a], row_classes[a:]
        columns, column_classes = column_classes[: b * c], column_classes[b * c :]
        for row_class in range(16):
            for i in range(a):
                for j in range(b * c):
                    if rows[i] == row_class:
                        groups[row_class + columns[j]].append(start + i * b * c + j)
        start += a * b * c
    return sorted(cells[i] for cells in groups if cells for i in part(r, len(cells)))


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
