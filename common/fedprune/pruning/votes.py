"""Masks proposed by clients become one.

Each client's vote weighs as much as its examples. Masks of K clients that chose on their own hardly overlap: their
union at density d is 1 - (1 - d)^K dense, 0.65 for ten clients at 0.1. So a merge is always followed by a re-prune to
the budget, and the density before it is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Mask
from fedprune.pruning.floors import Floors, Scores
from fedprune.pruning.scores import within_rows
from fedprune.pruning.selection import Share, select

# The share of the examples that must want a weight alive; "quorum" is given by the run.
RULES: dict[str, float | None] = {"union": 0.0, "majority": 0.5, "intersection": 1.0, "quorum": None}
ALARM = 1.2


def shares_of(keep: Sequence[int], names: Sequence[str]) -> tuple[Share, ...]:
    """The budget of a proposal: one count for each layer, or one alone for all of them together. Raises `LocalError`
    for another number of counts."""
    if len(keep) == 1:
        return (Share(names=tuple(names), keep=keep[0]),)
    if len(keep) != len(names):
        raise LocalError("a budget for other layers", seen=f"{len(keep)} counts", expected=f"1 or {len(names)}")
    return tuple(Share(names=(name,), keep=count) for name, count in zip(names, keep, strict=True))


def propose(scores: Mapping[str, Scores], mask: Mask, keep: Sequence[int], *, method: str) -> Mask:
    """The mask that a client asks for: within `mask`, the largest of its own scores. Floors are for the merge."""
    ranked = {n: within_rows(s, mask.alive[n]) for n, s in scores.items()} if method == "wanda" else scores
    shares = shares_of(keep, tuple(mask.alive))
    free = Floors(weights=0, share=0.0, connect=False)
    return select(ranked, mask, shares, free, mask.version + 1, score=method).mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """The mask one client proposes, and how many examples stand behind it."""

    client: int
    examples: int
    mask: Mask

    def check(self, mask: Mask, keep: Sequence[int]) -> None:
        """Raise `UpdateError`, naming the client, where this is no proposal of `keep` weights within `mask`."""
        party = f"client {self.client}"
        if self.examples < 1:
            raise UpdateError("a mask without examples behind it", party=party, seen=self.examples)
        if self.mask.schema.digest != mask.schema.digest:
            raise UpdateError("a mask of another model", party=party)
        if not self.mask.within(mask):
            raise UpdateError("it proposes weights that are pruned", party=party)
        self._check_counts(shares_of(keep, tuple(mask.alive)), party)

    def check_exchange(self, mask: Mask, counts: Mapping[str, int]) -> None:
        """Raise `UpdateError`, naming the client, where this is not `mask` with at most `counts[name]` weights of each layer
        exchanged for others."""
        party = f"client {self.client}"
        if self.examples < 1:
            raise UpdateError("a mask without examples behind it", party=party, seen=self.examples)
        for name, bits in self.mask.alive.items():
            grown, alive = int(np.count_nonzero(bits & ~mask.alive[name])), int(np.count_nonzero(mask.alive[name]))
            if grown > counts[name]:
                raise UpdateError(
                    f"it exchanges more of {name!r} than asked", party=party, seen=grown, expected=counts[name]
                )
            if int(np.count_nonzero(bits)) != alive:
                raise UpdateError(
                    f"its {name!r} has another number of weights",
                    party=party,
                    seen=int(np.count_nonzero(bits)),
                    expected=alive,
                )

    def _check_counts(self, shares: Sequence[Share], party: str) -> None:
        for share in shares:
            kept = sum(int(np.count_nonzero(self.mask.alive[name])) for name in share.names)
            if kept > share.keep:
                raise UpdateError(
                    f"it proposes more than its share of {', '.join(share.names)}",
                    party=party,
                    seen=kept,
                    expected=f"at most {share.keep}",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What the rule gave before any re-prune, and the share of examples behind each weight."""

    mask: Mask
    support: Mapping[str, Scores]

    def densified(self, target: float) -> bool:
        """True when the merge is more than 1.2 times as dense as the budget: the clients' masks do not agree."""
        return self.mask.density > ALARM * target


def coverage(masks: Sequence[tuple[int, Mask]]) -> dict[str, NDArray[np.int64]]:
    """A_j: the sum of examples over the masks that have j alive, from (examples, mask) pairs."""
    if not masks:
        raise LocalError("no masks to count")
    first = masks[0][1]
    return {
        name: np.asarray(sum(examples * mask.alive[name].astype(np.int64) for examples, mask in masks), np.int64)
        for name in first.alive
    }


def merge(ballots: Sequence[Ballot], rule: str, floors: Floors, version: int, *, quorum: float = 0.5) -> Merged:
    """Keep the weights that enough examples want alive: union (any), majority (half), intersection (all), or the share
    `quorum`. Where that leaves a layer below its floors, its best supported weights stay as well."""
    if rule not in RULES or not 0.0 <= quorum <= 1.0:
        raise LocalError("no such merge", seen=f"{rule}, quorum {quorum}", expected=" | ".join(RULES))
    given = RULES[rule]
    share = quorum if given is None else given
    counts = coverage([(ballot.examples, ballot.mask) for ballot in ballots])
    total = sum(ballot.examples for ballot in ballots)
    least = max(1, int(np.ceil(share * total - 1e-9)))
    support = {name: (c / total).astype(np.float32) for name, c in counts.items()}
    schema = ballots[0].mask.schema
    anyone = Mask(schema=schema, version=version, alive={name: c > 0 for name, c in counts.items()})
    shares = [Share(names=(name,), keep=int(np.count_nonzero(c >= least))) for name, c in counts.items()]
    chosen = select(support, anyone, shares, floors, version, score="votes")
    return Merged(mask=chosen.mask, support=support)


def damping(coverage: NDArray[np.int64], total: int, least_share: float = 0.2) -> NDArray[np.float32]:
    """The factor on the step of each weight: min(1, A_j / (c * sum n)), so that one small client cannot own a weight.

    c = `least_share`; 0 gives 1 everywhere, the pure rule."""
    if total < 1 or not 0.0 <= least_share <= 1.0:
        raise LocalError("no such damping", seen=f"{least_share} of {total} examples", expected="a share, 1 example up")
    if least_share == 0.0:
        return np.ones(coverage.shape, np.float32)
    return np.minimum(1.0, coverage / (least_share * total)).astype(np.float32)
