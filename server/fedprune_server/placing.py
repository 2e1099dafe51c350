"""Which part of the model each client holds: set by hand, or as much as it can carry within the deadline.

A client whose density nobody set begins at the lowest level, because nothing is known of it yet. Each round that it
completes shows its speed; the next one is planned with the densest level that leaves a margin to the deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from fedprune.pruning.nested import Speed, level
from fedprune_server.members import Member

# What a plan leaves free of the deadline: links and machines are not the same from one round to the next.
MARGIN = 0.8


@dataclass(slots=True, kw_only=True)
class Placing:
    """The levels of the clients of one run. `densities` are the levels there are, none where all hold the whole model;
    `by_hand` patterns of names with theirs, the first that fits counts. `dense_bytes` and `fixed_bytes` are what a round
    moves both ways of the prunable weights at density 1, and of everything else. With `each` every client has a mask of its
    own, now and then, which goes by its number."""

    densities: Sequence[float]
    by_hand: Mapping[str, float]
    deadline_s: float
    dense_bytes: float
    fixed_bytes: float
    member: Callable[[int], Member]
    each: bool = False
    _speeds: dict[int, Speed] = field(default_factory=dict)
    _chosen: dict[int, float] = field(default_factory=dict)

    def choose(self, client: int) -> float | None:
        """The level for a round that begins; None where nobody has one."""
        if self.each:
            return float(client)
        if not self.densities:
            return None
        self._chosen[client] = self._by_hand(client) or self._by_speed(client)
        return self._chosen[client]

    def whole(self, client: int) -> None:
        """No level: for work on all of the mask, whoever does it."""

    def chosen(self, client: int) -> float | None:
        """The level of the round before: what it evaluates is what it holds."""
        return self._chosen.get(client) or self.choose(client)

    def held(self, client: int, *, most: float) -> float:
        """The density of what a client holds of a run whose mask has the density `most`."""
        return min(self._chosen.get(client, most), most)

    @property
    def clients(self) -> tuple[int, ...]:
        """Those that hold a level, in order; none where all hold the whole model."""
        return tuple(sorted(self._chosen))

    def take_over(self, chosen: Mapping[int, float]) -> None:
        """Go on with what an earlier process had chosen; what it had measured is measured again."""
        self._chosen.update(chosen)

    def measured(self, client: int, *, work_s: float, bytes_per_s: float | None) -> None:
        """A client completed a round: seconds of work, and how fast its transfers were, if that could be seen."""
        if bytes_per_s is None:
            return
        latest = Speed(work_s=work_s, bytes_per_s=bytes_per_s)
        before = self._speeds.get(client)
        self._speeds[client] = before.with_round(latest) if before else latest

    def _by_hand(self, client: int) -> float | None:
        member = self.member(client)
        names = (member.name, member.identity)
        fits = (d for p, d in self.by_hand.items() if any(fnmatchcase(name, p) for name in names if name))
        return next(fits, None)

    def _by_speed(self, client: int) -> float:
        speed = self._speeds.get(client)
        if speed is None:
            return self._chosen.get(client, min(self.densities))
        return level(
            speed,
            self.densities,
            MARGIN * self.deadline_s,
            dense_bytes=self.dense_bytes,
            fixed_bytes=self.fixed_bytes,
        )
