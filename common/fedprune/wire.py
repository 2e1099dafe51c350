"""Values to messages and back: the one place in the library that knows protobuf.

A message that makes no sense becomes a `RemoteError` naming the party, never a half-built value.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedprune.assignment import Assignment
from fedprune.errors import DecodeError, FedpruneError, LimitError, RemoteError
from fedprune.framing import Seal
from fedprune.manifest import manifest as signed_text
from fedprune.parts import Part, PartKind
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.work import EvaluateWork, ReestimateWork, ScoreWork, TrainWork, UploadPlan, Work

MAX_TENSORS = 1 << 16
MAX_METRICS = 64
MAX_METRIC_NAME = 64

ROLES: dict[Role, pb.Role.ValueType] = {
    Role.PRUNABLE: pb.ROLE_PRUNABLE,
    Role.FREE: pb.ROLE_FREE,
    Role.BUFFER: pb.ROLE_BUFFER,
    Role.COUNTER: pb.ROLE_COUNTER,
}
assert set(ROLES) == set(Role)
assert len(ROLES) == len(pb.Role.values()) - 1
_ROLE_OF: dict[int, Role] = {number: role for role, number in ROLES.items()}

PART_KINDS: dict[PartKind, pb.PartKind.ValueType] = {
    PartKind.MASK: pb.PART_KIND_MASK,
    PartKind.MODEL: pb.PART_KIND_MODEL,
    PartKind.DELTA: pb.PART_KIND_DELTA,
}
assert set(PART_KINDS) == set(PartKind)
assert len(PART_KINDS) == len(pb.PartKind.values()) - 1
_PART_KIND_OF: dict[int, PartKind] = {number: kind for kind, number in PART_KINDS.items()}


def version_message(version: Version) -> pb.Version:
    """(s, b, v) on the wire."""
    return pb.Version(shape=version.shape, model=version.model, mask=version.mask)


def version(message: pb.Version) -> Version:
    """(s, b, v) from the wire."""
    return Version(shape=message.shape, model=message.model, mask=message.mask)


def held_version(message: pb.PullRequest) -> Version | None:
    """What the caller holds; None when it holds nothing."""
    return version(message.held) if message.HasField("held") else None


def role_numbers(schema: Schema) -> list[pb.Role.ValueType]:
    """The role of each tensor, in order."""
    return [ROLES[spec.role] for spec in schema]


def roles(numbers: Iterable[int], *, party: str) -> list[Role]:
    """Roles from the wire. Raises `DecodeError` for one that is not known."""
    found: list[Role] = []
    for number in numbers:
        if number not in _ROLE_OF:
            raise DecodeError("unknown tensor role", party=party, seen=number, next_step="Update the older side")
        found.append(_ROLE_OF[number])
    return found


def schema_message(schema: Schema) -> list[pb.TensorSpec]:
    """The signature of a model."""
    return [pb.TensorSpec(name=t.name, shape=t.shape, dtype=t.dtype, role=ROLES[t.role]) for t in schema]


def schema(messages: Iterable[pb.TensorSpec], *, party: str) -> Schema:
    """A model's signature from the wire. Raises `RemoteError` when it cannot be one."""
    specs: list[TensorSpec] = []
    for message in messages:
        if len(specs) == MAX_TENSORS:
            raise LimitError("too many tensors", party=party, expected=f"at most {MAX_TENSORS}")
        (role,) = roles([message.role], party=party)
        try:
            specs.append(TensorSpec(name=message.name, shape=tuple(message.shape), dtype=message.dtype, role=role))
        except FedpruneError as error:
            raise DecodeError(f"not a model signature: {error}", party=party) from error
    try:
        return Schema(tensors=tuple(specs))
    except FedpruneError as error:
        raise DecodeError(f"not a model signature: {error}", party=party) from error


def plan_message(plan: UploadPlan) -> pb.UploadPlan:
    """How to compress an upload, on the wire."""
    return pb.UploadPlan(
        values=plan.values,
        top=plan.top,
        seed=plan.seed,
        error_feedback=plan.error_feedback,
        momentum=plan.momentum,
        clip_norm=plan.clip_norm,
        exact=plan.exact,
        residual_epoch=plan.residual_epoch,
    )


def _plan(message: pb.UploadPlan) -> UploadPlan:
    return UploadPlan(
        values=message.values,
        top=message.top,
        seed=message.seed,
        error_feedback=message.error_feedback,
        momentum=message.momentum,
        clip_norm=message.clip_norm,
        exact=tuple(message.exact),
        residual_epoch=message.residual_epoch,
    )


def assignment_message(assignment: Assignment) -> pb.Assignment:
    """An assignment on the wire."""
    message = pb.Assignment(
        assignment_id=assignment.assignment_id,
        run_id=assignment.run_id,
        round=assignment.round,
        version=version_message(assignment.version),
        deadline_s=assignment.deadline_s,
    )
    match assignment.work:
        case TrainWork() as work:
            message.train.CopyFrom(_train_message(work, assignment.plan))
        case EvaluateWork() as work:
            message.evaluate.CopyFrom(pb.Evaluate(batch_size=work.batch_size))
        case ScoreWork() as work:
            message.score.CopyFrom(_score_message(work, assignment.plan))
        case ReestimateWork() as work:
            message.reestimate.CopyFrom(pb.Reestimate(batches=work.batches, batch_size=work.batch_size, seed=work.seed))
    return message


def _train_message(work: TrainWork, plan: UploadPlan) -> pb.Train:
    return pb.Train(
        epochs=work.epochs,
        steps=work.steps,
        batch_size=work.batch_size,
        optimizer=work.optimizer,
        learning_rate=work.learning_rate,
        momentum=work.momentum,
        weight_decay=work.weight_decay,
        proximal=work.proximal,
        seed=work.seed,
        plan=plan_message(plan),
        distill=work.distill,
        teacher=None if work.teacher is None else version_message(work.teacher),
    )


def _score_message(work: ScoreWork, plan: UploadPlan) -> pb.Score:
    return pb.Score(
        method=work.method,
        batches=work.batches,
        batch_size=work.batch_size,
        seed=work.seed,
        plan=plan_message(plan),
        grow=work.grow,
        keep=work.keep,
        train=None if work.train is None else _train_message(work.train, UploadPlan()),
    )


def assignment(message: pb.Assignment, *, party: str) -> Assignment:
    """An assignment from the wire. Raises `DecodeError` for work of a kind that is not known here."""
    try:
        work, plan = _work(message)
    except FedpruneError as error:
        raise DecodeError(f"not an assignment: {error}", party=party) from error
    return Assignment(
        assignment_id=message.assignment_id,
        run_id=message.run_id,
        round=message.round,
        version=version(message.version),
        deadline_s=message.deadline_s,
        work=work,
        plan=plan,
    )


def _work(message: pb.Assignment) -> tuple[Work, UploadPlan]:
    match message.WhichOneof("work"):
        case "train":
            return _train(message.train), _plan(message.train.plan)
        case "evaluate":
            return EvaluateWork(batch_size=message.evaluate.batch_size), UploadPlan()
        case "score":
            return _score(message.score), _plan(message.score.plan)
        case "reestimate":
            asked = message.reestimate
            return ReestimateWork(batches=asked.batches, batch_size=asked.batch_size, seed=asked.seed), UploadPlan()
        case _:
            raise DecodeError("no work, or work this version does not know", next_step="Update the older side")


def _train(message: pb.Train) -> TrainWork:
    return TrainWork(
        epochs=message.epochs,
        steps=message.steps,
        batch_size=message.batch_size,
        optimizer=message.optimizer,
        learning_rate=message.learning_rate,
        momentum=message.momentum,
        weight_decay=message.weight_decay,
        proximal=message.proximal,
        seed=message.seed,
        distill=message.distill,
        teacher=version(message.teacher) if message.HasField("teacher") else None,
    )


def _score(message: pb.Score) -> ScoreWork:
    return ScoreWork(
        method=message.method,
        batches=message.batches,
        batch_size=message.batch_size,
        seed=message.seed,
        grow=tuple(message.grow),
        keep=tuple(message.keep),
        train=_train(message.train) if message.HasField("train") else None,
    )


def seal(message: pb.Begin | pb.PartHeader, *, party: str) -> Seal:
    """Size and digest of what is about to come. Raises `RemoteError` when they cannot be."""
    try:
        return Seal(size=message.size, sha256=message.sha256)
    except RemoteError as error:
        raise error.of(party) from error


def part_header(part: Part, *, number: int, count: int) -> pb.PartHeader:
    """Part `number` of `count`, announced."""
    return pb.PartHeader(
        part=number,
        parts=count,
        kind=PART_KINDS[part.kind],
        version=version_message(part.version),
        base=None if part.base is None else version_message(part.base),
        size=part.size,
        sha256=part.digest,
    )


def part(message: pb.PartHeader, *, party: str) -> Part:
    """An announced part. Raises `DecodeError` for a kind that is not known here."""
    if message.kind not in _PART_KIND_OF:
        raise DecodeError("unknown kind of part", party=party, seen=message.kind, next_step="Update the older side")
    announced = seal(message, party=party)
    return Part(
        kind=_PART_KIND_OF[message.kind],
        version=version(message.version),
        base=version(message.base) if message.HasField("base") else None,
        digest=announced.sha256,
        size=announced.size,
    )


def metrics(message: pb.Begin, *, party: str) -> dict[str, float]:
    """The metrics of a result, by name. Raises `LimitError` when there are too many, or with monstrous names."""
    found = dict(message.metrics)
    longest = max((len(name) for name in found), default=0)
    if len(found) > MAX_METRICS or longest > MAX_METRIC_NAME:
        raise LimitError(
            "too many metrics, or too long names",
            party=party,
            seen=f"{len(found)}, longest name {longest}",
            expected=f"at most {MAX_METRICS}, names up to {MAX_METRIC_NAME}",
        )
    return found


def manifest(message: pb.Begin) -> str:
    """What the sender of an announcement signs."""
    return signed_text(
        run_id=message.run_id,
        assignment_id=message.assignment_id,
        version=version(message.version),
        sha256=message.sha256,
        size=message.size,
        examples=message.examples,
        metrics=message.metrics,
        work_s=message.work_s,
        residual_norm=message.residual_norm,
    )
