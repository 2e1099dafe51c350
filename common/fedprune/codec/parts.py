"""A set of places inside a coding: its own coding, how many they are, and the places themselves."""

from __future__ import annotations

from collections.abc import Iterator

from fedprune.codec.base import Cursor, Part, Positions, Shape, length, varint
from fedprune.codec.gaps import Gap, Rice
from fedprune.codec.places import Places
from fedprune.codec.plain import Bitmap, Everything, PositionCoding
from fedprune.errors import DecodeError, LimitError

CODINGS: dict[Positions, PositionCoding] = {
    Positions.ALL: Everything(),
    Positions.BITMAP: Bitmap(),
    Positions.GAP: Gap(),
    Positions.RICE: Rice(),
}
RICE_PLACES = 1 << 12  # up to here, a short stream may be smaller without a table
BITMAP_SHARE = 0.1


def write(places: Places) -> list[Part]:
    """The shortest part that says `places`, ties to the simpler."""
    if places.count == places.size:
        return _parts(Positions.ALL, places)
    return min((_parts(coding, places) for coding in _candidates(places)), key=length)


def _candidates(places: Places) -> Iterator[Positions]:
    if places.count > BITMAP_SHARE * places.size:
        yield Positions.BITMAP
    if places.count < RICE_PLACES:
        yield Positions.RICE
    yield Positions.GAP


def _parts(coding: Positions, places: Places) -> list[Part]:
    return [bytes((coding,)), varint(places.count), *CODINGS[coding].encode(places, [Shape(1, places.size)])]


def read(cursor: Cursor, size: int) -> Places:
    """A part over `size` places. Raises `DecodeError` or `LimitError`."""
    number, count = cursor.byte(), cursor.varint()
    coding = next((coding for known, coding in CODINGS.items() if known == number), None)
    if coding is None:
        raise DecodeError("no coding for a part", seen=number)
    if count > size:
        raise LimitError("more places in a part than there are", seen=count, expected=f"at most {size}")
    return coding.decode(cursor, count, [Shape(1, size)])
