"""Which coding a segment takes: by bytes on the link and time at both ends, then by what was measured.

A model of each coding (bytes and nanoseconds from the size of the space and the number of places, constants measured
on one core) says which are worth trying; those are encoded, and their real length decides. Candidates stand in order
of simplicity, and only one that costs strictly less replaces what came before. The clock is not asked: the same input
gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from fedprune.codec import positions as position_codings
from fedprune.codec import values as value_codings
from fedprune.codec.base import Array, Part, Plan, Positions, Shape, Values, length
from fedprune.codec.grid import is_gathered
from fedprune.codec.places import Places
from fedprune.codec.room import Room

SAMPLE_VALUES = 1 << 14
SMALL_SPACE = 1 << 18
# Places of real nets have structure, so an estimate above the best may still win; in a large space it costs time.
WORTH_TRYING = {"small": 1.3, "large": 1.03}
RICE_PLACES = 1 << 12
# A grid codes up to 31 groups, whatever their size: both ends take milliseconds for a few thousand places. It saves a
# fifth at the most, so it is tried where its time is less than a sixth of what the best of the others costs.
GRID_NS = 6e6
GRID_SHARE = 1 / 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One coding of a set of places: its bytes, and what they cost on the plan's link with the time at both ends."""

    coding: Positions
    parts: list[Part]
    cost_s: float

    @property
    def size(self) -> int:
        """Length in bytes."""
        return length(self.parts)


def choose_positions(places: Places, shapes: Sequence[Shape], plan: Plan) -> Choice:
    """The best coding of `places` in the space of `shapes`, or the one that the plan asks for."""
    return min(alternatives(places, shapes, plan), key=lambda choice: choice.cost_s)


def alternatives(places: Places, shapes: Sequence[Shape], plan: Plan) -> list[Choice]:
    """Every coding that was tried, simplest first."""
    if plan.positions is not None:
        return [_try(plan.positions, places, shapes, plan)]
    size, count = places.size, places.count
    if count == size:
        return [_try(Positions.ALL, places, shapes, plan)]
    costs = {c: _cost_s(c, estimate_bytes(c, size, count), size, count, plan) for c in _candidates(count)}
    bound = WORTH_TRYING["small" if size < SMALL_SPACE else "large"] * min(costs.values())
    tried = [coding for coding, cost in costs.items() if cost <= bound]
    choices = [_try(coding, places, shapes, plan) for coding in tried]
    worth_s = GRID_SHARE * min(choice.cost_s for choice in choices)
    if _cost_s(Positions.GRID, 0, size, count, plan) < worth_s and is_gathered(places, shapes):
        choices.append(_try(Positions.GRID, places, shapes, plan))
    return choices


def _candidates(count: int) -> list[Positions]:
    short = [Positions.RICE] if count < RICE_PLACES else []
    return [Positions.BITMAP, *short, Positions.GAP]


def _try(coding: Positions, places: Places, shapes: Sequence[Shape], plan: Plan) -> Choice:
    parts = position_codings.CODINGS[coding].encode(places, shapes)
    cost = _cost_s(coding, length(parts), places.size, places.count, plan)
    return Choice(coding=coding, parts=parts, cost_s=cost)


def entropy_bytes(size: int, count: int) -> float:
    """n H(p) / 8: what `count` random places out of `size` weigh at least."""
    if not 0 < count < size:
        return 0.0
    p = count / size
    return -size * (p * log2(p) + (1 - p) * log2(1 - p)) / 8


def estimate_bytes(coding: Positions, size: int, count: int) -> float:
    """Length of a coding for random places: factors over the entropy, fitted to docs/codec-bench.md."""
    bound, p = entropy_bytes(size, count), count / max(size, 1)
    if coding is Positions.BITMAP:
        return min(size / 8, bound * (1 + 0.0004 / max(p, 1e-4) ** 2)) + 80
    if coding is Positions.GAP:
        return bound * (1.01 + 0.32 * max(0.0, p - 0.25)) + 60
    return bound * 1.03 + 9


def _cost_s(coding: Positions, length: float, size: int, count: int, plan: Plan) -> float:
    """Seconds on the link plus encoding and decoding, in the order of what docs/codec-bench.md measures."""
    time_ns = {
        Positions.BITMAP: 0.6 * size,
        Positions.GAP: 0.3 * size + 20 * count,
        Positions.RICE: 0.3 * size + 30 * count,
        Positions.GRID: GRID_NS + 0.3 * size + 120 * count,
    }
    return length / plan.link_bytes_per_s + time_ns.get(coding, 0.0) * 1e-9


def choose_lossless(values: Array, dtype: str, base: Array | None, room: Room) -> tuple[Values, list[Part]]:
    """The coding and bytes of `values` [n], perhaps in `room`: decided on a sample, taken back where raw is not larger."""
    coding = Values.PLANES
    if base is not None:
        sample = slice((values.size - SAMPLE_VALUES) // 2, None) if values.size > SAMPLE_VALUES else slice(None)
        piece, origin = values[sample][:SAMPLE_VALUES], base[sample][:SAMPLE_VALUES]
        coding = min((Values.PLANES, Values.DIFFERENCE), key=lambda c: length(_encode(c, piece, dtype, origin, room)))
    parts = _encode(coding, values, dtype, base, room)
    if length(parts) < values.nbytes:
        return coding, parts
    return Values.RAW, _encode(Values.RAW, values, dtype, base, room)


def _encode(coding: Values, values: Array, dtype: str, base: Array | None, room: Room) -> list[Part]:
    return value_codings.CODINGS[coding].encode(values, dtype, base, room)
