"""Where work is given out: what each client of the open round was told to do, as values, records and messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.config import RunConfig
from fedprune.tensor import Schema, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.work import UploadPlan
from fedprune.work import Work as WorkValue
from fedprune_server import plan
from fedprune_server.autoplan import Choice
from fedprune_server.members import Members
from fedprune_server.proposal import Need
from fedprune_server.saying import NO_STEPS, Steps
from fedprune_server.store import AssignmentRecord, Work

# How long a version may hold up the line of a client when it goes out with the work.
INLINE_S = 5.0
_UNKNOWN: Mapping[int, float] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class Desk:
    """The assignments of one run, by client. `first_sha256` is the digest of the weights that the run's seed gives;
    `epoch` counts rollbacks: clients drop the residuals of an earlier one; `teacher` is the version before a pruning step
    that recovers."""

    config: RunConfig
    run_id: str
    schema: Schema
    members: Members
    choose: Callable[[int], Choice | None]
    first_sha256: bytes
    epoch: Callable[[], int]
    teacher: Callable[[], Version | None] = lambda: None
    _given: dict[int, Assignment] = field(default_factory=dict)
    _records: dict[int, AssignmentRecord] = field(default_factory=dict)

    def take_over(self, assigned: Mapping[int, Assignment]) -> None:
        """Go on with what an earlier process had given out."""
        self._given.update(assigned)

    def holds(self, client: int, assignment_id: int) -> bool:
        """Whether this is what the client was given last."""
        given = self._given.get(client)
        return given is not None and given.assignment_id == assignment_id

    def version_of(self, client: int, assignment_id: int) -> Version | None:
        """The version of what the client was given last, if that is it."""
        return self._given[client].version if self.holds(client, assignment_id) else None

    def record(self, assignment_id: int) -> AssignmentRecord | None:
        """What was given out last under this id, by this process."""
        return self._records.get(assignment_id)

    def prepare(
        self,
        round_: int,
        kind: Work,
        version_for: Callable[[int], Version],
        clients: Mapping[int, int],
        *,
        first_id: int,
        need: Need | None = None,
    ) -> list[AssignmentRecord]:
        """One assignment for each client (its index -> its shard), with ids from `first_id` on; `need` says what to
        score, and `version_for` which version a client is to have for it."""
        records = []
        self._records.clear()
        for number, (client, shard) in enumerate(clients.items()):
            work, upload = self._work(round_, kind, shard, need)
            assignment = Assignment(
                assignment_id=first_id + number,
                run_id=self.run_id,
                round=round_,
                version=version_for(client),
                deadline_s=self.config.clients.deadline_s,
                work=work,
                plan=upload,
            )
            self._given[client] = assignment
            records.append(_record(assignment, client, kind))
            self._records[assignment.assignment_id] = records[-1]
        return records

    def _work(self, round_: int, kind: Work, shard: int, need: Need | None) -> tuple[WorkValue, UploadPlan]:
        if kind is Work.EVALUATE:
            return plan.evaluate_work(self.config), UploadPlan()
        if kind is Work.REESTIMATE:
            return plan.reestimate_work(self.config, round_=round_, shard=shard), UploadPlan()
        if need is not None:
            work = plan.score_work(self.config, need, round_=round_, shard=shard)
            return work, plan.score_plan(self.config, need, round_=round_, shard=shard)
        config = plan.chosen(self.config, self.choose(round_), round_=round_)
        training = plan.train_work(config, round_=round_, shard=shard, teacher=self.teacher())
        return training, plan.upload_plan(config, round_=round_, shard=shard, residual_epoch=self.epoch())

    def send(self, client: int, steps: Steps = NO_STEPS) -> None:
        """Tell a client what it was given, for the first time or again."""
        message = pb.CoordinatorMessage(assignment=wire.assignment_message(self._given[client]))
        self.members.tell(client, message, steps)

    def send_new(
        self, clients: Sequence[int], steps: Sequence[Steps] = (), *, links: Mapping[int, float] = _UNKNOWN
    ) -> None:
        """Tell clients what they were given just now, with those of `steps` that bring a client to the version of it. Whose
        link (bytes a second, as far as they are known) takes long for them pulls them: a message of its own would be in
        the way of all that is said meanwhile."""
        ways = {(way.parts[0].base, way.parts[-1].version): way for way in steps if way.parts}
        for client in clients:
            member = self.members[client]
            member.step = member.steps = 0
            member.state = "working"
            way = ways.get((member.holds, self._given[client].version), NO_STEPS)
            slow = way.size > INLINE_S * links.get(client, inf)
            self.send(client, NO_STEPS if slow else way)

    def cancel(self, clients: Sequence[int], reason: str) -> None:
        """Tell clients that what they were given is not wanted any more."""
        for client in clients:
            cancel = pb.Cancel(assignment_id=self._given[client].assignment_id, reason=reason)
            self.members.tell(client, pb.CoordinatorMessage(cancel=cancel))

    def send_start(self, client: int, shards: Sequence[int]) -> None:
        """Tell a client which run this is, and which share of the data is its own."""
        start = pb.Start(
            run_id=self.run_id,
            run_name=self.config.run.name,
            rounds=self.config.run.rounds,
            shard=pb.Shard(index=shards.index(client), count=len(shards)),
            roles=wire.role_numbers(self.schema),
            held_out=self.config.training.held_out,
            fold=self.config.training.fold,
            seed=self.config.run.seed,
            first_sha256=self.first_sha256,
        )
        self.members.tell(client, pb.CoordinatorMessage(start=start))


def _record(assignment: Assignment, client: int, kind: Work) -> AssignmentRecord:
    return AssignmentRecord(
        run_id=assignment.run_id,
        assignment_id=assignment.assignment_id,
        round=assignment.round,
        client=client,
        version=assignment.version,
        kind=kind,
        work=wire.assignment_message(assignment).SerializeToString(),
    )
