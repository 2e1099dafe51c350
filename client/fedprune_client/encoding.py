"""From trained weights or scores to the frame that is sealed: whole and lossless, or compressed; updates with error
feedback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedprune.applying import Array, weights_of
from fedprune.assignment import Assignment
from fedprune.codec import encode_update
from fedprune.errors import LocalError
from fedprune.feedback import Memory, caught_up, codec_plan, compress, is_compressed
from fedprune.mask import Mask
from fedprune.score_frames import encode_growth, encode_proposal, encode_scores
from fedprune_client.replica import Replica
from fedprune_client.residual import Belonging, ResidualFile
from fedprune_client.scoring import Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The bytes to seal, and the norm of what they leave out."""

    frame: bytes
    norm: float = 0.0


def check(assignment: Assignment) -> None:
    """Raise `LocalError` for a plan that this client does not know: before it trains for nothing."""
    try:
        codec_plan(assignment.plan)
    except LocalError as error:
        raise LocalError(
            "the coordinator asks for an upload plan that this client does not know",
            seen=error.seen,
            expected=error.expected,
            next_step="Install the same fedprune on both sides",
        ) from error


def encode(assignment: Assignment, replica: Replica, weights: Mapping[str, Array], residual: ResidualFile) -> Update:
    """Encode the weights that training gave, as the assignment's plan says; both outcomes of a compressed update are
    put beside it before it can be sent."""
    if is_compressed(assignment.plan):
        return _compressed(assignment, replica, weights, residual)
    return _exact(assignment, replica, weights, residual)


def encode_scored(assignment: Assignment, mask: Mask, scored: Scored) -> bytes:
    """Encode scores, or votes on what to grow, as the assignment's plan says, or a mask; nothing is kept of what is left
    out."""
    if scored.proposed is not None:
        return encode_proposal(scored.proposed, mask)
    if scored.scores is not None:
        return encode_scores(scored.scores, mask, assignment.plan, assignment.version)
    assert scored.grown is not None
    assert scored.gradients is not None
    return encode_growth(scored.grown, scored.gradients, mask, assignment.plan, assignment.version)


def _exact(assignment: Assignment, replica: Replica, weights: Mapping[str, Array], residual: ResidualFile) -> Update:
    """Everything there is to say; also what compressed updates before it left out."""
    assert replica.mask is not None
    memory, belongs = _remembered(assignment, replica, residual)
    if memory.residual:
        change = {n: weights[n] - replica.weights[n] for n in memory.residual}
        residual.stage(Memory(), Memory(residual=caught_up(change, memory)), belongs, assignment.assignment_id)
    frame = encode_update(
        caught_up(weights, memory),
        schema=replica.schema,
        plan=assignment.plan.values,
        mask=replica.mask,
        base=replica.weights,
        version=assignment.version,
    )
    return Update(frame=frame)


def _compressed(
    assignment: Assignment, replica: Replica, weights: Mapping[str, Array], residual: ResidualFile
) -> Update:
    assert replica.mask is not None
    memory, belongs = _remembered(assignment, replica, residual)
    differing = {spec.name for spec in weights_of(replica.schema)}
    change = {n: a - replica.weights[n] if n in differing else a for n, a in weights.items()}
    compressed = compress(
        change,
        memory,
        schema=replica.schema,
        mask=replica.mask,
        plan=assignment.plan,
        version=assignment.version,
        party="this client",
    )
    residual.stage(compressed.after, compressed.unsent, belongs, assignment.assignment_id)
    return Update(frame=compressed.frame, norm=compressed.after.norm)


def _remembered(assignment: Assignment, replica: Replica, residual: ResidualFile) -> tuple[Memory, Belonging]:
    """What updates before this one left out, and what the memory that follows will be good for."""
    assert replica.mask is not None
    belongs = Belonging(
        run_id=assignment.run_id,
        schema_digest=replica.schema.digest,
        epoch=assignment.plan.residual_epoch,
        round=assignment.round,
    )
    memory = residual.load(
        replica.schema, replica.mask, run_id=belongs.run_id, epoch=belongs.epoch, round_=belongs.round
    )
    return memory, belongs
