"""A mask against a mask that both ends hold: only what changed.

`xor` is one set of places over the whole space. `parts` says what was dropped, counted over what was alive, and what
grew, counted over what was dead: nested pruning drops only, and what follows gradients grows in clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fedprune.codec import chooser, parts
from fedprune.codec.base import Cursor, Plan, Positions, Shape, space_size, varint
from fedprune.codec.places import Places
from fedprune.errors import DecodeError
from fedprune.mask import Bits


def alternatives(now: Bits, base: Bits, plan: Plan) -> list[chooser.Choice]:
    """The codings of `now` [size] against `base` [size] that the plan allows, simplest first."""
    changed = now ^ base
    if not changed.any():
        return [chooser.Choice(coding=Positions.REF, parts=[], cost_s=0.0)]
    spaces = ((Positions.XOR, [changed]), (Positions.PARTS, [changed[base], changed[~base]]))
    wanted = [space for space in spaces if plan.positions in (None, space[0])]
    return [_choice(coding, [Places.of_bits(bits) for bits in sets], plan) for coding, sets in wanted]


def _choice(coding: Positions, sets: Iterable[Places], plan: Plan) -> chooser.Choice:
    inner = Plan(link_bytes_per_s=plan.link_bytes_per_s)
    coded, cost_s = [], 0.0
    for places in sets:
        choice = chooser.choose_positions(places, [Shape(1, places.size)], inner)
        coded += [bytes((choice.coding,)), varint(places.count), *choice.parts]
        cost_s += choice.cost_s
    return chooser.Choice(coding=coding, parts=coded, cost_s=cost_s)


def decode(coding: Positions, cursor: Cursor, count: int, shapes: Sequence[Shape], base: Bits) -> Bits:
    """The bits [size] of a mask coded against `base` [size]; new memory."""
    if coding is Positions.REF:
        bits = base.copy()
    elif coding is Positions.XOR:
        bits = base ^ parts.read(cursor, space_size(shapes)).bits
    else:
        bits = base.copy()
        dropped = parts.read(cursor, int(np.count_nonzero(base)))
        grown = parts.read(cursor, base.size - dropped.size)
        bits[np.flatnonzero(base).take(dropped.indices)] = False
        bits[np.flatnonzero(~base).take(grown.indices)] = True
    if np.count_nonzero(bits) != count:
        raise DecodeError("another number of positions than announced", seen=np.count_nonzero(bits), expected=count)
    return bits
