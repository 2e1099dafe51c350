"""Places without any structure that a coding could use: all of them, or one bit each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fedprune.codec import entropy
from fedprune.codec.base import Cursor, Part, Shape, space_size
from fedprune.codec.places import Places
from fedprune.errors import DecodeError
from fedprune.mask import Bits, PackedBits, count_ones


class PositionCoding(Protocol):
    """`places` in the space that `shapes` make up end to end; `count` of them."""

    def encode(self, places: Places, shapes: Sequence[Shape]) -> list[Part]: ...

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Places: ...


class Everything:
    """Nothing travels, every place of the space is meant."""

    def encode(self, places: Places, shapes: Sequence[Shape]) -> list[Part]:
        return []

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Places:
        if count != space_size(shapes):
            raise DecodeError("fewer positions than the space has", seen=count, expected=space_size(shapes))
        return Places.everything(count)


class Bitmap:
    """One bit a place, most significant first, Huffman-coded where it pays."""

    def encode(self, places: Places, shapes: Sequence[Shape]) -> list[Part]:
        return entropy.pack(places.packed)

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Places:
        size = space_size(shapes)
        packed = _read_packed(cursor, size)
        check_count(count_ones(packed), count)
        return Places(size=size, count=count, bits=_unpacked(packed, size), indices=None, packed=packed)


def unpack_bits(cursor: Cursor, size: int) -> Bits:
    """A stream of `size` bits."""
    return _unpacked(_read_packed(cursor, size), size)


def _read_packed(cursor: Cursor, size: int) -> PackedBits:
    packed = entropy.unpack(cursor, -(-size // 8))
    if size % 8 and packed[-1] & (0xFF >> size % 8):
        raise DecodeError("a bitmap has bits beyond its end")
    return packed


def _unpacked(packed: PackedBits, size: int) -> Bits:
    return np.unpackbits(packed, count=size).view(np.bool_)


def counted(places: Places, count: int) -> Places:
    """The places, if they are as many as announced."""
    check_count(places.count, count)
    return places


def check_count(seen: int, announced: int) -> None:
    """Raise `DecodeError` when a coding holds another number of places than its segment says."""
    if seen != announced:
        raise DecodeError("another number of positions than announced", seen=seen, expected=announced)
