"""`[compression] plan = "auto"`: how fine the next round's values travel, decided from the rounds before it.

The plans stand on a ladder from fine to coarse. The wish is the finest one whose transfers take no more than a tenth
of the time that the clients work: what the network gives for nothing is not saved at the cost of accuracy. Accuracy
has the last word: when it falls behind its best by more than the tolerance, the plan goes one step back and does not
return for a while. Steps are one rung at a time, and a plan is left alone until its effect shows.

Pure: the decision follows from the reports of committed rounds, so a coordinator that comes back decides the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

from fedprune.report import RoundReport
from fedprune.section import Values

# Share of the clients' working time that transfers may take.
TRANSFER_SHARE = 0.1
# A finer plan must fit with this much to spare, or the choice would swing to and fro.
SPARE = 1.5
# Rounds after which a plan's effect shows, and over which accuracy is averaged.
SETTLE_ROUNDS = 3
# Rounds for which a plan that was left for a finer one is not tried again, and over which links are judged.
MEMORY_ROUNDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One plan: value coding, share that travels, and about what a weight costs in bytes, positions included."""

    values: str
    top: float
    bytes_a_weight: float

    def __str__(self) -> str:
        return self.values if self.top >= 1.0 else f"{self.values} top {self.top:g}"


LADDER = (
    Rung(values="lossless", top=1.0, bytes_a_weight=3.4),
    Rung(values="fp16", top=1.0, bytes_a_weight=1.9),
    Rung(values="int8", top=1.0, bytes_a_weight=0.95),
    Rung(values="int8", top=0.25, bytes_a_weight=0.36),
    Rung(values="ternary", top=0.1, bytes_a_weight=0.073),
    Rung(values="ternary", top=0.04, bytes_a_weight=0.036),
    Rung(values="ternary", top=0.01, bytes_a_weight=0.012),
)
FINE_TO_COARSE: tuple[str, ...] = get_args(Values)
# Costs next to no accuracy on any task we know, and shows the links something to measure.
BEGIN = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may be chosen: `coarsest` value coding, `least_top` share; `tolerance` is a share of accuracy. `weights` is
    the number of the model's parameters."""

    coarsest: str
    least_top: float
    tolerance: float
    weights: int

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """The plans within the bounds, fine to coarse; lossless always is."""
        last = FINE_TO_COARSE.index(self.coarsest)
        return tuple(r for r in LADDER if r.top >= self.least_top and FINE_TO_COARSE.index(r.values) <= last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The plan of a round, and why."""

    rung: Rung
    reason: str

    def __str__(self) -> str:
        return f"{self.rung}: {self.reason}"


def decide(rows: Sequence[RoundReport], bounds: Bounds) -> Choice:
    """The plan of the round after `rows`, which are the committed rounds in order."""
    ladder = bounds.ladder
    names = [str(rung) for rung in ladder]
    if not rows or rows[-1].plan not in names:
        place = names.index(BEGIN) if BEGIN in names else len(ladder) - 1
        return Choice(rung=ladder[place], reason="nothing is measured yet")
    at = names.index(rows[-1].plan)
    if _rounds_at(rows) < SETTLE_ROUNDS:
        return Choice(rung=ladder[at], reason="its effect does not show yet")
    behind = _behind(rows)
    if behind > bounds.tolerance and at > 0:
        return Choice(rung=ladder[at - 1], reason=f"accuracy is {100 * behind:.1f} points behind its best")
    return _for_the_links(rows, bounds, at, blocked=_left(rows))


def _for_the_links(rows: Sequence[RoundReport], bounds: Bounds, at: int, *, blocked: set[str]) -> Choice:
    ladder = bounds.ladder
    rates = [row.link_bytes_per_s for row in rows[-MEMORY_ROUNDS:] if row.link_bytes_per_s]
    if not rates:
        return Choice(rung=ladder[at], reason="no link is measured")
    # Short transfers are mostly latency: the best rate of the slowest client is nearest to its link.
    rate, allowed_s = max(rates), TRANSFER_SHARE * rows[-1].work_seconds
    weights = bounds.weights * rows[-1].density_of_all

    def lasts_s(rung: Rung) -> float:
        return 2 * weights * rung.bytes_a_weight / rate

    link = f"the slowest link moves {rate / 1000:.0f} kB/s"
    if lasts_s(ladder[at]) > allowed_s and at + 1 < len(ladder):
        coarser = ladder[at + 1]
        if str(coarser) in blocked:
            return Choice(rung=ladder[at], reason=f"{link}, but {coarser} was left {MEMORY_ROUNDS} rounds ago or less")
        return Choice(rung=coarser, reason=f"{link}: {ladder[at]} takes {lasts_s(ladder[at]):.2g} s of {allowed_s:.2g}")
    if at > 0 and SPARE * lasts_s(ladder[at - 1]) <= allowed_s:
        finer = ladder[at - 1]
        return Choice(rung=finer, reason=f"{link}: {finer} fits into {allowed_s:.2g} s")
    return Choice(rung=ladder[at], reason=f"{link}, which suits it")


def _rounds_at(rows: Sequence[RoundReport]) -> int:
    """For how many rounds the latest plan has been in force."""
    other = [number for number, row in enumerate(rows) if row.plan != rows[-1].plan]
    return len(rows) - (other[-1] + 1 if other else 0)


def _behind(rows: Sequence[RoundReport]) -> float:
    """How far the mean accuracy of the last rounds is behind the best such mean; 0 where too little is known."""
    scores = [row.accuracy for row in rows if row.accuracy is not None]
    means = [sum(scores[i : i + SETTLE_ROUNDS]) / SETTLE_ROUNDS for i in range(len(scores) - SETTLE_ROUNDS + 1)]
    return max(means) - means[-1] if means else 0.0


def _left(rows: Sequence[RoundReport]) -> set[str]:
    """The plans that were left for a finer one in the last rounds."""
    finer = {str(rung): place for place, rung in enumerate(LADDER)}
    recent = rows[-MEMORY_ROUNDS - 1 :]
    return {a.plan for a, b in pairwise(recent) if finer.get(b.plan, 0) < finer.get(a.plan, 0)}
