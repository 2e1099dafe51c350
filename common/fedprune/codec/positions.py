"""Which places of an index space are meant: a set of positions as bytes, and back.

The space is what both ends know: the elements of one or more tensors laid end to end, restricted to the alive ones
where both hold the mask. A coding never says how long its space is or how many positions there are: the segment
header does, and the receiver checks both before it gets here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fedprune.codec import entropy
from fedprune.codec.base import Cursor, Positions, Shape
from fedprune.errors import DecodeError
from fedprune.mask import Indices


class PositionCoding(Protocol):
    """`indices` [count] ascending, over the space that `shapes` make up end to end."""

    def encode(self, indices: Indices, shapes: Sequence[Shape]) -> list[bytes]: ...

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Indices | None: ...


class Everything:
    """`all` and `ref`: nothing travels, every place of the space is meant."""

    def encode(self, indices: Indices, shapes: Sequence[Shape]) -> list[bytes]:
        return []

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> None:
        if count != space_size(shapes):
            raise DecodeError("fewer positions than the space has", seen=count, expected=space_size(shapes))


class Bitmap:
    """One bit a place, most significant first, Huffman-coded where it pays."""

    def encode(self, indices: Indices, shapes: Sequence[Shape]) -> list[bytes]:
        bits = np.zeros(space_size(shapes), np.bool_)
        bits[indices] = True
        return entropy.pack(np.packbits(bits))

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Indices:
        size = space_size(shapes)
        packed = np.empty(-(-size // 8), np.uint8)
        entropy.unpack(cursor, packed)
        if size % 8 and packed[-1] & (0xFF >> size % 8):
            raise DecodeError("a bitmap has bits beyond its end")
        indices = np.flatnonzero(np.unpackbits(packed, count=size).view(np.bool_))
        return _counted(indices, count)


class Csr:
    """Row lengths, then columns, as the narrowest integers that hold them: what other programs know."""

    def encode(self, indices: Indices, shapes: Sequence[Shape]) -> list[bytes]:
        parts = []
        for part, shape in _split(indices, shapes):
            rows, columns = np.divmod(part, max(shape.columns, 1))
            lengths = np.bincount(rows, minlength=shape.rows)
            parts += [lengths.astype(_narrowest(shape.columns)).tobytes()]
            parts += [columns.astype(_narrowest(shape.columns - 1)).tobytes()]
        return parts

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Indices:
        parts, start = [], 0
        for shape in shapes:
            lengths = _take(cursor, shape.rows, _narrowest(shape.columns))
            columns = _take(cursor, int(lengths.sum()), _narrowest(shape.columns - 1))
            if columns.size and int(columns.max()) >= shape.columns:
                raise DecodeError("a column is outside its row", seen=int(columns.max()), expected=shape.columns)
            parts.append(start + np.repeat(np.arange(shape.rows) * shape.columns, lengths) + columns)
            start += shape.size
        indices = np.concatenate(parts) if parts else np.empty(0, np.intp)
        if indices.size > 1 and not bool((indices[1:] > indices[:-1]).all()):
            raise DecodeError("columns are not ascending")
        return _counted(indices, count)


def space_size(shapes: Sequence[Shape]) -> int:
    """Number of places in the space that `shapes` make up end to end."""
    return sum(shape.size for shape in shapes)


def _split(indices: Indices, shapes: Sequence[Shape]) -> list[tuple[Indices, Shape]]:
    ends = np.cumsum([shape.size for shape in shapes])
    cuts = np.searchsorted(indices, ends)
    starts = np.concatenate(([0], cuts[:-1]))
    return [
        (indices[a:b] - (end - shape.size), shape) for a, b, end, shape in zip(starts, cuts, ends, shapes, strict=True)
    ]


def _narrowest(largest: int) -> np.dtype[np.unsignedinteger]:
    return np.min_scalar_type(max(largest, 0)).newbyteorder("<")


def _take(cursor: Cursor, count: int, dtype: np.dtype[np.unsignedinteger]) -> Indices:
    return np.frombuffer(cursor.take(count * dtype.itemsize), dtype).astype(np.intp)


def _counted(indices: Indices, count: int) -> Indices:
    if indices.size != count:
        raise DecodeError("another number of positions than announced", seen=indices.size, expected=count)
    return indices


CODINGS: dict[Positions, PositionCoding] = {
    Positions.ALL: Everything(),
    Positions.REF: Everything(),
    Positions.BITMAP: Bitmap(),
    Positions.CSR: Csr(),
}
assert set(CODINGS) == set(Positions), "a position coding without code"
