"""Which coding a segment takes: the smallest that was measured, ties to the simpler.

Every candidate is encoded and weighed. Order in the candidate list is order of simplicity, and only a strictly
smaller one replaces what came before.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedprune.codec import positions as position_codings
from fedprune.codec import values as value_codings
from fedprune.codec.base import Array, Plan, Positions, Shape, Values
from fedprune.mask import Indices

SAMPLE_VALUES = 1 << 16


def choose_positions(indices: Indices, shapes: Sequence[Shape], plan: Plan) -> tuple[Positions, list[bytes]]:
    """The coding and bytes of `indices` in the space of `shapes`."""
    candidates = [Positions.BITMAP, Positions.CSR] if plan.positions is None else [plan.positions]
    return min(
        ((coding, position_codings.CODINGS[coding].encode(indices, shapes)) for coding in candidates),
        key=lambda choice: sum(map(len, choice[1])),
    )


def choose_lossless(values: Array, dtype: str, base: Array | None) -> tuple[Values, list[bytes]]:
    """The coding and bytes of `values` [n]: decided on a sample, taken back where raw is not larger."""
    candidates = [Values.PLANES] if base is None else [Values.PLANES, Values.DIFFERENCE]
    coding = min(candidates, key=lambda c: _sample_bytes(c, values, dtype, base))
    parts = value_codings.CODINGS[coding].encode(values, dtype, base)
    if sum(map(len, parts)) < values.nbytes:
        return coding, parts
    return Values.RAW, value_codings.CODINGS[Values.RAW].encode(values, dtype, base)


def _sample_bytes(coding: Values, values: Array, dtype: str, base: Array | None) -> int:
    cut = slice((values.size - SAMPLE_VALUES) // 2, None) if values.size > SAMPLE_VALUES else slice(None)
    sample = values[cut][:SAMPLE_VALUES]
    origin = None if base is None else base[cut][:SAMPLE_VALUES]
    return sum(map(len, value_codings.CODINGS[coding].encode(sample, dtype, origin)))
