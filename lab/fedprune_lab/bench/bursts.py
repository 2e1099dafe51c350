"""How long a line was busy, from the trace of its frames: the network's part of a round, without asking the programs.

A line is busy while a frame is on its way: waiting for its turn, being sent, travelling. That includes what TCP makes of
it, slow start and acknowledgements. While nothing is on its way, a program is at work at one of the ends, coding or syncing;
pauses too short to tell that from TCP's own timers count as the network's. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# An acknowledgement may be held back for so long.
TIMERS_S = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """One client's line over some time: seconds of it that were busy, and the frames' bytes each way."""

    seconds: float
    up_bytes: int
    down_bytes: int
    frames: int


def busy(trace: NDArray[Any], *, client: int, from_s: float, until_s: float, pause_s: float = TIMERS_S) -> Busy:
    """The line of one client, by the frames that arrived in [from_s, until_s). `trace` has fields sent_s and time_s (of
    arrival), client, way (0 up), bytes. Pauses of up to `pause_s` with nothing on its way count as busy, too."""
    mine = trace[(trace["client"] == client) & (trace["time_s"] >= from_s) & (trace["time_s"] < until_s)]
    mine = mine[np.argsort(mine["sent_s"], kind="stable")]
    up = mine["way"] == 0
    sizes = mine["bytes"].astype(np.int64)
    return Busy(
        seconds=_covered_s(mine["sent_s"], np.maximum.accumulate(mine["time_s"]), pause_s),
        up_bytes=int(sizes[up].sum()),
        down_bytes=int(sizes[~up].sum()),
        frames=len(mine),
    )


def _covered_s(began_s: NDArray[Any], over_s: NDArray[Any], pause_s: float) -> float:
    """Seconds in which something was on its way. `over_s` is when all that began so far has arrived."""
    if not len(began_s):
        return 0.0
    pauses = began_s[1:] - over_s[:-1]
    return float(over_s[-1] - began_s[0] - pauses[pauses > pause_s].sum())
