"""Clients' scores and votes at the coordinator: what was asked for, checked as it arrives, read again at the close.

A result that is not what its assignment asked for is refused for that client alone, before it can touch a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning.floors import Scores
from fedprune.pruning.regrowth import GrowthVote
from fedprune.pruning.scores import ClientScores, combine
from fedprune.pruning.votes import Ballot
from fedprune.score_frames import read_growth, read_proposal, read_scores
from fedprune.tensor import Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.work import ScoreWork
from fedprune_server.proposal import Need
from fedprune_server.store import AssignmentRecord, ReceiptRecord, Store


def assignment_of(record: AssignmentRecord) -> Assignment:
    """What was assigned, from what was stored of it."""
    return wire.assignment(pb.Assignment.FromString(record.work), party="the store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the clients answered to a `Need`: scores by tensor, votes on what to grow, or masks."""

    scores: dict[str, Scores] | None = None
    growth: tuple[GrowthVote, ...] = ()
    ballots: tuple[Ballot, ...] = ()


def check(record: AssignmentRecord, data: memoryview, mask: Mask, *, examples: int) -> None:
    """Raise `RemoteError`, naming the client, unless the result is what `record` asked for under `mask`."""
    work = assignment_of(record).work
    if not isinstance(work, ScoreWork):
        raise LocalError("an assignment of another kind", seen=type(work).__name__, expected="ScoreWork")
    if work.keep:
        _ballot(record.client, examples, data, mask).check(mask, work.keep)
    elif work.train is not None:
        ballot = _ballot(record.client, examples, data, mask)
        ballot.check_exchange(mask, dict(zip(mask.alive, work.grow, strict=True)))
    elif work.grow:
        counts = dict(zip(mask.alive, work.grow, strict=True))
        _vote(record.client, examples, data, mask, record.version).check(mask, counts)
    else:
        _scores(record.client, examples, data, mask, record.version).check(mask.schema)


def hear(receipts: Sequence[ReceiptRecord], store: Store, need: Need, mask: Mask, version: Version) -> Heard:
    """Read the accepted results, in the order of their clients. At least one."""
    if need.keep or need.own:
        opened = [(r.client, r.examples, store.blobs.open(r.sha256), mask) for r in receipts]
        return Heard(ballots=tuple(_ballot(*ballot) for ballot in opened))
    frames = [(r.client, r.examples, store.blobs.open(r.sha256), mask, version) for r in receipts]
    if need.grow:
        return Heard(growth=tuple(_vote(*frame, values=need.values) for frame in frames))
    return Heard(scores=combine(mask.schema, [_scores(*frame) for frame in frames]))


def _vote(
    client: int, examples: int, data: memoryview, mask: Mask, version: Version, *, values: bool = True
) -> GrowthVote:
    places, gradients = read_growth(data, mask, version)
    return GrowthVote(client=client, examples=examples, indices=places, gradients=gradients if values else None)


def _ballot(client: int, examples: int, data: memoryview, mask: Mask) -> Ballot:
    return Ballot(client=client, examples=examples, mask=read_proposal(data, mask))


def _scores(client: int, examples: int, data: memoryview, mask: Mask, version: Version) -> ClientScores:
    return ClientScores(client=client, examples=examples, scores=read_scores(data, mask, version))
