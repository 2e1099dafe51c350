"""A mask for each client, all cut from one ranking, so that the smaller lies within the larger.

Nested masks keep what most clients share at the top of the rank: the core is trained by all, the tail by the strong.
A client's level is the densest one with which it can still make the deadline, by what was measured of it. Pruning
without removing channels does not make training faster, so only the bytes are taken to shrink with density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning.floors import Floors, Scores
from fedprune.pruning.plan import keep_count
from fedprune.pruning.selection import select


def nested_masks(
    scores: Mapping[str, Scores], mask: Mask, densities: Sequence[float], floors: Floors, first_version: int
) -> dict[float, Mask]:
    """density -> mask, each within the next denser one and all within `mask`; one global rank.

    Only densities below that of `mask` get one, densest first, under versions from `first_version` on: at the others a
    client holds `mask` itself."""
    masks: dict[float, Mask] = {}
    within, version = mask, first_version
    for density in sorted(set(densities), reverse=True):
        if not 0.0 < density <= 1.0:
            raise LocalError("a client's density is out of range", seen=density, expected="above 0, at most 1")
        keep = keep_count(density, mask.size)
        if keep < mask.alive_count:
            within = select(scores, within, keep, floors, version, score="nested").mask
            masks[density] = within
            version += 1
    return masks


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What was measured of one client, smoothed over rounds: seconds of work and bytes per second of transfer."""

    work_s: float
    bytes_per_s: float

    def __post_init__(self) -> None:
        if self.work_s < 0 or self.bytes_per_s <= 0:
            raise LocalError("no such speed", seen=self, expected="seconds from 0, bytes per second above 0")

    def with_round(self, latest: Speed, weight: float = 0.3) -> Speed:
        """The exponentially weighted mean, `latest` counting `weight`. Transfer is averaged as seconds per byte: time
        is what the deadline counts."""
        pace = (1 - weight) / self.bytes_per_s + weight / latest.bytes_per_s
        return Speed(work_s=(1 - weight) * self.work_s + weight * latest.work_s, bytes_per_s=1 / pace)

    def round_s(self, density: float, *, dense_bytes: float, fixed_bytes: float) -> float:
        """Predicted seconds of a round at `density`: `dense_bytes` both ways of prunable weights at density 1, and
        `fixed_bytes` that travel whatever the density."""
        return self.work_s + (fixed_bytes + density * dense_bytes) / self.bytes_per_s


def level(
    speed: Speed, densities: Sequence[float], deadline_s: float, *, dense_bytes: float, fixed_bytes: float
) -> float:
    """The largest density whose predicted round meets the deadline; the smallest there is when none does."""
    fits = [d for d in densities if speed.round_s(d, dense_bytes=dense_bytes, fixed_bytes=fixed_bytes) <= deadline_s]
    return max(fits, default=min(densities))


def lifted(client: int, round: int, chosen: float, densities: Sequence[float], every: int) -> float:
    """`chosen`, or one level up in the client's turn: each client every `every` rounds, not all in the same, so that
    the tail of the rank is trained by more than the strongest. `every` = 0: never."""
    ordered = sorted(set(densities))
    place = ordered.index(chosen)
    turn = every > 0 and (client + round) % every == 0
    return ordered[min(place + 1, len(ordered) - 1)] if turn else chosen
