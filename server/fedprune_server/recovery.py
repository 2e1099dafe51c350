"""From what the store holds of an unfinished run to a state that `rounds` can go on from.

Nothing is asked of a person: a killed coordinator is started again, finds the run, and every client that comes back
is sent the assignment it had, so that what is sealed is submitted and what is done is not done again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedprune.assignment import Assignment
from fedprune.report import RoundReport
from fedprune_server.course import Course, Phase, Rules
from fedprune_server.scores import assignment_of
from fedprune_server.store import Recovery, RoundRecord, Verdict, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """Where to go on: the state, the assignments of the open round by client, and what to tell people. `judged`: the
    latest version was judged, and the run went on from it."""

    state: Course
    assigned: dict[int, Assignment]
    found: str
    judged: bool = False

    @property
    def unpublished(self) -> int | None:
        """The round whose evaluation is still to be entered."""
        waits = self.state.unevaluated or self.state.unmeasured
        return self.state.round if waits or self.state.phase in (Phase.MEASURING, Phase.DECIDING) else None


def resumption(
    found: Recovery,
    rules: Rules,
    reports: dict[int, RoundReport],
    *,
    awaited: bool = False,
    decided: bool = False,
    unmeasured: bool = False,
    measured: bool = False,
) -> Resumption:
    """The state of a run as an earlier process left it. `awaited`: a pruning step waits for what clients find about the
    latest version; `decided`: their evaluation of it is closed. `unmeasured`: its running statistics are those before its
    mask; `measured`: what clients found of them is closed, and not yet a version."""
    shards = tuple(sorted(found.shards, key=lambda client: found.shards[client]))
    counted = sum(r.clients_counted for r in reports.values())
    opened = Course(rules=rules, shards=shards, counted=counted)
    if found.open_round is not None:
        return _within(found, found.open_round, opened, judged=awaited and decided)
    last = _last(found)
    evaluated = last not in reports or bool(reports[last].metrics)
    due = awaited or (rules.evaluates(last) and not evaluated)
    state = replace(
        opened,
        phase=_behind(measured=unmeasured and measured, decided=due and decided),
        round=found.last_round,
        cohort=found.cohort,
        unmeasured=unmeasured and not measured,
        unevaluated=due and not decided,
        judged=awaited and not decided,
        empty_rounds=found.last_round - last,
        primed=found.latest is not None and found.latest.version.model > 0,
    )
    return Resumption(state=state, assigned={}, found=f"{last} of {rules.rounds} rounds committed")


def _last(found: Recovery) -> int:
    """The round of the latest version."""
    return found.latest.round if found.latest else 0


def _within(found: Recovery, open_round: RoundRecord, opened: Course, *, judged: bool) -> Resumption:
    """In the middle of a round that was given out."""
    # What was given last: scores come before training.
    kind = Work.TRAIN if any(a.kind is Work.TRAIN for a in found.assignments) else Work.SCORE
    given = [a for a in found.assignments if a.kind is kind]
    accepted = frozenset(r.client for r in found.receipts if r.kind is kind and r.verdict is Verdict.ACCEPTED)
    cohort = tuple(sorted(a.client for a in given))
    rules, last = opened.rules, _last(found)
    state = replace(
        opened,
        phase=_phase(kind, closed=kind in found.frozen),
        round=open_round.round,
        cohort=cohort,
        target=open_round.target,
        accepted=accepted,
        # Scoring that was closed is not waited for again.
        declined=frozenset(cohort) - accepted if kind is Work.SCORE and kind in found.frozen else frozenset(),
        primed=open_round.round > 0,
        extended=open_round.deadline_s > rules.deadline_s,
        empty_rounds=max(0, open_round.round - 1 - last),
    )
    text = f"{last} of {rules.rounds} rounds committed, round {state.round} open with {len(accepted)} of {len(cohort)}"
    what = "updates" if kind is Work.TRAIN else "scores"
    return Resumption(
        state=state, assigned={a.client: assignment_of(a) for a in given}, found=f"{text} {what}", judged=judged
    )


def _behind(*, measured: bool, decided: bool) -> Phase:
    """Where a run stands whose latest version is committed."""
    return Phase.MEASURING if measured else Phase.DECIDING if decided else Phase.GATHERING


def _phase(kind: Work, *, closed: bool) -> Phase:
    if kind is Work.SCORE:
        return Phase.SCORING
    return Phase.FOLDING if closed else Phase.TRAINING
