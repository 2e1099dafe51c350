"""What goes out to the clients of a run: shares, work, words, and the farewell.

What of it and when is decided in `rounds.py`; its effects are carried out here for the course that they belong to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fedprune.config import RunConfig
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server import events
from fedprune_server.course import Course
from fedprune_server.desk import Desk
from fedprune_server.members import Member, Members
from fedprune_server.saying import small_steps
from fedprune_server.settling import Settling
from fedprune_server.store import AssignmentRecord, RoundRecord, RunState, Store, Work

log = logging.getLogger("fedprune.run")


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """The voice of one run. `waiting_for` is what it waits for, in words; `more`: another run follows."""

    config: RunConfig
    members: Members
    settling: Settling
    desk: Desk
    more: bool
    waiting_for: str = ""
    _farewell: pb.CoordinatorMessage | None = None
    _sent_home: set[int] = field(default_factory=set)

    @property
    def _store(self) -> Store:
        return self.settling.store

    def freeze(self, course: Course, effect: events.Freeze) -> None:
        """Give out the shares: who is here now has one each."""
        self._store.freeze_shards(self.settling.run_id, {client: index for index, client in enumerate(effect.clients)})
        self.settling.output.clients = len(effect.clients)
        self._store.set_run_state(self.settling.run_id, RunState.RUNNING)
        for client in effect.clients:
            self.desk.send_start(client, effect.clients)

    def greet(self, course: Course, effect: events.Greet) -> None:
        """Say to a client that came what is its own, or that it is too late for this run."""
        member = self.members[effect.client]
        if not course.shards:
            return
        if not effect.admitted:
            reason = "the shards of this run are given out; waiting for the next run"
            member.send(pb.CoordinatorMessage(waiting=pb.Waiting(reason=reason)))
            return
        shards = {client: index for index, client in enumerate(course.shards)}
        self._store.freeze_shards(self.settling.run_id, shards)
        self.desk.send_start(effect.client, course.shards)
        if effect.working:
            self.desk.send(effect.client)

    def open_scoring(self, course: Course, effect: events.OpenScoring) -> None:
        """Begin a round with scores, before anybody trains."""
        self._begin_round(course, effect.round, self._prepare(course, effect.round, Work.SCORE, effect.cohort))
        self.say(f"round {effect.round}: waiting for the scores of {len(effect.cohort)} clients")
        self._send_out(effect.cohort)
        self.settling.at("assignments-sent")

    def open_round(self, course: Course, effect: events.OpenRound) -> None:
        """Ask for a round's updates."""
        if effect.scored:
            self._store.freeze(self.settling.run_id, effect.round, Work.SCORE)
            self._store.add_assignments(self._prepare(course, effect.round, Work.TRAIN, effect.cohort))
        else:
            self._begin_round(course, effect.round, self._prepare(course, effect.round, Work.TRAIN, effect.cohort))
        choice = self.settling.choose(effect.round)
        if choice is not None:
            log.info("%s: round %d: %s", self.settling.run_id, effect.round, choice)
        self.say(f"round {effect.round}: waiting for {len(effect.cohort)} clients")
        self._send_out(effect.cohort)
        self.settling.at("assignments-sent")

    def _begin_round(self, course: Course, round_: int, assignments: list[AssignmentRecord]) -> None:
        self.settling.clock.open()
        self.settling.accounts.round = round_
        record = RoundRecord(
            run_id=self.settling.run_id,
            round=round_,
            version=self.settling.versions.latest.version,
            deadline_s=self.config.clients.deadline_s,
            target=course.target,
        )
        self._store.open_round(record, assignments)

    def extend_round(self, course: Course, effect: events.ExtendRound) -> None:
        """Let the open round last longer."""
        self._store.extend_round(self.settling.run_id, effect.round, effect.deadline_s)

    def open_reestimation(self, course: Course, effect: events.OpenReestimation) -> None:
        """Ask for statistics under a new mask."""
        self._open_behind(course, effect.round, Work.REESTIMATE, effect.cohort)
        self.say(f"round {effect.round}: waiting for the statistics of {len(effect.cohort)} clients under the new mask")

    def open_evaluation(self, course: Course, effect: events.OpenEvaluation) -> None:
        """Ask how good the model is."""
        self._open_behind(course, effect.round, Work.EVALUATE, effect.cohort)
        self.say(f"round {effect.round}: waiting for {len(effect.cohort)} evaluations")

    def _open_behind(self, course: Course, round_: int, kind: Work, cohort: tuple[int, ...]) -> None:
        self.settling.clock.rest()
        self._store.add_assignments(self._prepare(course, round_, kind, cohort))
        self._send_out(cohort)

    def _send_out(self, cohort: tuple[int, ...]) -> None:
        most, blobs = self.config.network.small_bytes, self._store.blobs
        steps = [small_steps(way, blobs, most_bytes=most) for way in self.settling.versions.last_steps()]
        self.desk.send_new(cohort, steps, links=self.settling.accounts.links)

    def _prepare(self, course: Course, round_: int, kind: Work, cohort: tuple[int, ...]) -> list[AssignmentRecord]:
        clients = {client: course.shards.index(client) for client in cohort}
        first = self._store.next_assignment_id()
        need = self.settling.closing.need(round_) if kind is Work.SCORE else None
        placing = self.settling.placing
        place = {Work.TRAIN: placing.choose, Work.SCORE: placing.whole}.get(kind, placing.chosen)
        return self.desk.prepare(
            round_, kind, lambda c: self.settling.versions.latest.at_level(place(c)), clients, first_id=first, need=need
        )

    def tell(self, course: Course, effect: events.Say) -> None:
        """Say to everyone who has nothing to do what is waited for."""
        self.say(effect.text)
        self.settling.say(effect.text)
        message = pb.CoordinatorMessage(waiting=pb.Waiting(reason=effect.text))
        for member in self.members.connected:
            if member.index not in course.pending:
                member.send(message)

    def say(self, text: str) -> None:
        """What the run waits for now."""
        self.waiting_for = text
        log.info(text)

    def farewell(self, effect: events.EndRun) -> None:
        """Tell everyone who is there that the run is over; who comes later is told by `dismiss`."""
        run_id = self.settling.run_id
        summary = pb.RunEnd(run_id=run_id, summary=f"{effect.outcome}: {effect.reason}", more=self.more)
        self._farewell = pb.CoordinatorMessage(run_end=summary)
        for member in self.members.connected:
            self._send_home(member, self._farewell)

    def dismiss(self, course: Course, effect: events.Dismiss) -> None:
        """Send home a client that came after the end."""
        if self._farewell is not None:
            self._send_home(self.members[effect.client], self._farewell)

    def _send_home(self, member: Member, farewell: pb.CoordinatorMessage) -> None:
        member.state = "done"
        member.send(farewell)
        self._sent_home.add(member.index)

    def untold(self, course: Course) -> frozenset[int]:
        """The clients of the run that have not heard that it is over."""
        return frozenset(course.shards) - self._sent_home


OUTGOING: dict[type[events.Effect], Callable[[Outgoing, Course, Any], None]] = {
    events.Freeze: Outgoing.freeze,
    events.Greet: Outgoing.greet,
    events.OpenScoring: Outgoing.open_scoring,
    events.OpenRound: Outgoing.open_round,
    events.ExtendRound: Outgoing.extend_round,
    events.OpenReestimation: Outgoing.open_reestimation,
    events.OpenEvaluation: Outgoing.open_evaluation,
    events.Say: Outgoing.tell,
    events.Dismiss: Outgoing.dismiss,
}
