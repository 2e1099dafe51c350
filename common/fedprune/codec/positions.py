"""Which places of an index space are meant: a set of places as bytes, and back.

The space is what both ends know: the elements of one or more tensors laid end to end, restricted to the alive ones
where both hold the mask. A coding never says how long its space is or how many places there are: the segment header
does, and the receiver checks both before it gets here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedprune.codec import entropy
from fedprune.codec.base import Cursor, Part, Positions, Shape, space_size
from fedprune.codec.gaps import Gap, Rice
from fedprune.codec.grid import Grid
from fedprune.codec.places import Places
from fedprune.codec.plain import Bitmap, Everything, PositionCoding, counted, unpack_bits
from fedprune.errors import DecodeError
from fedprune.mask import Bits, Indices


class RowsColumns:
    """Whole rows and columns, as channel pruning leaves them: two bits for each pair of axes, not one an element."""

    def encode(self, places: Places, shapes: Sequence[Shape]) -> list[Part]:
        lines = []
        for bits, shape in _split_bits(places.bits, shapes):
            block = bits.reshape(shape)
            lines += [block.any(axis=(1, 2)), block.any(axis=(0, 2))]
        return entropy.pack(np.packbits(np.concatenate(lines)))

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Places:
        lines = unpack_bits(cursor, sum(shape.rows + shape.columns for shape in shapes))
        bits = np.empty(space_size(shapes), np.bool_)
        start = 0
        for block, shape in _split_bits(bits, shapes):
            middle, end = start + shape.rows, start + shape.rows + shape.columns
            block.reshape(shape)[...] = lines[start:middle, None, None] & lines[None, middle:end, None]
            start = end
        return counted(Places.of_bits(bits), count)


class Csr:
    """Row lengths, then columns, as the narrowest integers that hold them: what other programs know."""

    def encode(self, places: Places, shapes: Sequence[Shape]) -> list[Part]:
        parts: list[Part] = []
        for indices, shape in _split(places.indices, shapes):
            rows, columns = np.divmod(indices, max(shape.width, 1))
            lengths = np.bincount(rows, minlength=shape.rows)
            parts += [lengths.astype(_narrowest(shape.width)).tobytes()]
            parts += [columns.astype(_narrowest(shape.width - 1)).tobytes()]
        return parts

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Places:
        parts, start = [np.empty(0, np.intp)], 0
        for shape in shapes:
            lengths = _take(cursor, shape.rows, _narrowest(shape.width))
            columns = _take(cursor, int(lengths.sum()), _narrowest(shape.width - 1))
            if columns.size and int(columns.max()) >= shape.width:
                raise DecodeError("a column is outside its row", seen=int(columns.max()), expected=shape.width)
            parts.append(start + np.repeat(np.arange(shape.rows) * shape.width, lengths) + columns)
            start += shape.size
        indices = np.concatenate(parts)
        if indices.size > 1 and not bool((indices[1:] > indices[:-1]).all()):
            raise DecodeError("columns are not ascending")
        return counted(Places.of_indices(indices, start), count)


def is_rows_columns(bits: Bits, shape: Shape) -> bool:
    """True when the alive places of one tensor are exactly some rows times some columns."""
    block = bits.reshape(shape)
    some = next((row for row in block[: shape.rows] if row.any()), None)
    if some is None:
        return True
    columns = some.any(axis=1)
    if not np.array_equal(some, np.broadcast_to(columns[:, None], some.shape)):
        return False
    return all(not row.any() or np.array_equal(row, some) for row in block)


def _split_bits(bits: Bits, shapes: Sequence[Shape]) -> list[tuple[Bits, Shape]]:
    ends = np.cumsum([shape.size for shape in shapes])
    return [(bits[end - shape.size : end], shape) for end, shape in zip(ends, shapes, strict=True)]


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


# `xor` and `parts` stand on these: they are in diff.py, since they need a base mask.
CODINGS: dict[Positions, PositionCoding] = {
    Positions.ALL: Everything(),
    Positions.REF: Everything(),
    Positions.BITMAP: Bitmap(),
    Positions.CSR: Csr(),
    Positions.ROWS_COLUMNS: RowsColumns(),
    Positions.GAP: Gap(),
    Positions.RICE: Rice(),
    Positions.GRID: Grid(),
}
assert set(CODINGS) == set(Positions) - {Positions.XOR, Positions.PARTS}, "a position coding without code"
