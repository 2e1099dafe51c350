"""How long a line was busy, from the trace of its frames: the network's part of a round, without asking the programs.

Transfers are trains of frames. Where a line is silent for longer than `gap_s`, a program was at work at one of its
ends, and not the network: no party of a transfer waits longer than a round trip for the other. What stays below the gap,
coding included, counts as the network's. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """One client's line over some time: seconds of it that were busy, and the frames' bytes each way."""

    seconds: float
    up_bytes: int
    down_bytes: int
    frames: int


def busy(trace: NDArray[Any], *, client: int, from_s: float, until_s: float, delay_s: float, gap_s: float) -> Busy:
    """The line of one client in [from_s, until_s). `trace` has fields time_s (of arrival), client, way (0 up), bytes.
    A train began a `delay_s` before its first frame arrived."""
    mine = trace[(trace["client"] == client) & (trace["time_s"] >= from_s) & (trace["time_s"] < until_s)]
    up = mine["way"] == 0
    sizes = mine["bytes"].astype(np.int64)
    pauses = np.diff(mine["time_s"])
    trains = int((pauses > gap_s).sum()) + 1 if len(mine) else 0
    return Busy(
        seconds=float(pauses[pauses <= gap_s].sum()) + trains * delay_s,
        up_bytes=int(sizes[up].sum()),
        down_bytes=int(sizes[~up].sum()),
        frames=len(mine),
    )
