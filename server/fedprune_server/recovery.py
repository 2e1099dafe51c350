"""From what the store holds of an unfinished run to a state that `rounds` can go on from.

Nothing is asked of a person: a killed coordinator is started again, finds the run, and every client that comes back
is sent the assignment it had, so that what is sealed is submitted and what is done is not done again.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.report import RoundReport
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.course import Course, Phase, Rules
from fedprune_server.store import AssignmentRecord, Recovery, Verdict, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """Where to go on: the state, the assignments of the open round by client, and what to tell people."""

    state: Course
    assigned: dict[int, Assignment]
    found: str


def resumption(found: Recovery, rules: Rules, reports: dict[int, RoundReport]) -> Resumption:
    """The state of a run as an earlier process left it."""
    shards = tuple(sorted(found.shards, key=lambda client: found.shards[client]))
    last = found.latest.round if found.latest else 0
    counted = sum(r.clients_counted for r in reports.values())
    if found.open_round is None:
        evaluated = last not in reports or bool(reports[last].metrics)
        state = Course(
            rules=rules,
            round=found.last_round,
            shards=shards,
            counted=counted,
            unevaluated=rules.evaluates(last) and not evaluated,
            empty_rounds=found.last_round - last,
        )
        return Resumption(state=state, assigned={}, found=f"{last} of {rules.rounds} rounds committed")
    training = [a for a in found.assignments if a.kind is Work.TRAIN]
    accepted = frozenset(r.client for r in found.receipts if r.kind is Work.TRAIN and r.verdict is Verdict.ACCEPTED)
    cohort = tuple(sorted(a.client for a in training))
    state = Course(
        rules=rules,
        phase=Phase.FOLDING if Work.TRAIN in found.frozen else Phase.TRAINING,
        round=found.open_round.round,
        shards=shards,
        cohort=cohort,
        target=found.open_round.target,
        accepted=accepted,
        counted=counted,
        extended=found.open_round.deadline_s > rules.deadline_s,
        empty_rounds=found.open_round.round - 1 - last,
    )
    text = f"{last} of {rules.rounds} rounds committed, round {state.round} open with {len(accepted)} of {len(cohort)}"
    return Resumption(state=state, assigned={a.client: _assignment(a) for a in training}, found=f"{text} updates")


def _assignment(record: AssignmentRecord) -> Assignment:
    return wire.assignment(pb.Assignment.FromString(record.work), party="the store")
