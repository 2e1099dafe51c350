"""A compressor that does not act is worse than none: it costs time and nobody notices. Here it is noticed.

Pure: from what a round moved and what it would have moved dense, to sentences for the report.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedprune.codec import EXACT
from fedprune.traffic import Traffic


def shrinkers(*, density: float, values: str, top: float = 1.0) -> tuple[str, ...]:
    """What should make the bytes of one direction fewer, in words; empty where nothing was asked for."""
    found = []
    if density < 1.0:
        found.append(f"a mask of density {density:.3g}")
    if top < 1.0:
        found.append(f"the top {top:.3g} of the weights")
    if values not in EXACT:
        found.append(f"{values} values")
    return tuple(found)


def idle_warnings(payload: Traffic, dense: Traffic, *, up: Sequence[str], down: Sequence[str]) -> tuple[str, ...]:
    """A warning for each direction whose `payload` is not below its `dense` equivalent although `up` or `down` names
    something that should have made it so. A direction without any transfer is not judged."""
    directions = (("up", payload.up, dense.up, up), ("down", payload.down, dense.down, down))
    return tuple(
        f"compression {name} did not act: {moved} bytes in spite of {' and '.join(why)}, dense would be {full}"
        for name, moved, full, why in directions
        if why and full and moved >= full
    )
