"""How long a call takes on a core that strangers share.

On a rented machine the other hyperthread of a core works for somebody else most of the time. That halves what a loop in
the cache does, and leaves a copy of 64 MiB as it is: a ratio of the two then says who the neighbour was. A short loop
before and after each call tells how much of the core there was. The calls beside which it ran fastest are told apart
from all of them; a call's own time has no say in that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from statistics import median

LOOP_STEPS = 4000
CALMEST = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """CPU seconds of a call, medians: of all `calls`, and of the calmest of them, when the core did `share` of the
    fastest loop that was seen beside any call."""

    calls: int
    seconds: float
    calm_seconds: float
    share: float


def pace(call: Callable[[], object], *, for_seconds: float) -> Pace:
    """Call again and again for so long, and at least `CALMEST` times."""
    samples: list[tuple[float, float]] = []
    end = time.monotonic() + for_seconds
    while time.monotonic() < end or len(samples) < CALMEST:
        before = _loop_seconds()
        start = time.process_time()
        call()
        spent = time.process_time() - start
        samples.append((before + _loop_seconds(), spent))
    calm = sorted(samples, key=itemgetter(0))[:CALMEST]
    return Pace(
        calls=len(samples),
        seconds=median(spent for _, spent in samples),
        calm_seconds=median(spent for _, spent in calm),
        share=calm[0][0] / median(loop for loop, _ in calm),
    )


def _loop_seconds() -> float:
    start = time.perf_counter()
    total = 0
    for step in range(LOOP_STEPS):
        total += step
    return time.perf_counter() - start
