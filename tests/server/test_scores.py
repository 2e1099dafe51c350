"""Scores at the coordinator: refused where they are not what was asked for, and taken up again after a kill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.errors import RemoteError
from fedprune.mask import Mask
from fedprune.score_frames import encode_growth, encode_scores
from fedprune.tensor import Schema, TensorSpec, Version
from fedprune.work import ScoreWork, TrainWork, UploadPlan
from fedprune.work import Work as WorkValue
from fedprune_server import rounds, scores
from fedprune_server.course import Phase, Rules
from fedprune_server.events import CloseRound, OpenRound
from fedprune_server.recovery import resumption
from fedprune_server.store import (
    AssignmentRecord,
    ReceiptRecord,
    Recovery,
    RoundRecord,
    RunRecord,
    Verdict,
    VersionRecord,
    Work,
)

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(8, 6)),))
MASK = Mask(schema=SCHEMA, version=1, alive={"w": np.arange(48).reshape(8, 6) % 3 == 0})
AT = Version(model=4, mask=1)
DEAD = np.flatnonzero(~MASK.alive["w"])


def asked(grow: tuple[int, ...] = (), *, client: int = 7, round_: int = 3, kind: Work = Work.SCORE) -> AssignmentRecord:
    work: WorkValue = ScoreWork(method="gradient", grow=grow) if kind is Work.SCORE else TrainWork()
    given = Assignment(
        assignment_id=10 + client + 100 * (kind is Work.TRAIN),
        run_id="r",
        round=round_,
        version=AT,
        deadline_s=1.0,
        work=work,
    )
    return AssignmentRecord(
        run_id="r",
        assignment_id=given.assignment_id,
        round=round_,
        client=client,
        version=AT,
        kind=kind,
        work=wire.assignment_message(given).SerializeToString(),
    )


def vote(places: list[int], value: float = 1.0) -> memoryview:
    at = np.array(places, np.intp)
    values = np.full(at.size, value, np.float32)
    return memoryview(encode_growth({"w": at}, {"w": values}, MASK, UploadPlan(), AT))


def refusal(grow: tuple[int, ...], data: memoryview) -> str:
    """What the check says against the result; nothing where it is what was asked for."""
    try:
        scores.check(asked(grow=grow), data, MASK, examples=5)
    except RemoteError as error:
        return str(error)
    return ""


def test_what_was_asked_for_passes() -> None:
    whole = {"w": np.ones((8, 6), np.float32)}
    assert refusal((), memoryview(encode_scores(whole, MASK, UploadPlan(), AT))) == ""
    two = vote([int(DEAD[0]), int(DEAD[4])])
    assert refusal((3,), two) == refusal((2,), two) == ""
    assert "names more than 1 weights" in refusal((1,), two)


@pytest.mark.parametrize(
    ("grow", "data", "examples", "problem"),
    [
        ((3,), vote([int(p) for p in DEAD[:4]]), 5, "client 7: its vote on 'w' names more than 3 weights"),
        ((3,), vote([int(DEAD[0])], np.inf), 5, "client 7: .*not finite"),
        ((3,), vote([int(DEAD[0])]), 0, "client 7: .*without examples"),
        ((), vote([int(DEAD[0])]), 5, "mask"),
        ((), memoryview(b"scores"), 5, "frame"),
    ],
)
def test_whatever_else_comes_is_refused_for_its_sender(
    grow: tuple[int, ...], data: memoryview, examples: int, problem: str
) -> None:
    with pytest.raises(RemoteError, match=problem):
        scores.check(asked(grow=grow), data, MASK, examples=examples)


def receipt(client: int, round_: int) -> ReceiptRecord:
    return ReceiptRecord(
        run_id="r",
        assignment_id=10 + client,
        round=round_,
        client=client,
        kind=Work.SCORE,
        verdict=Verdict.ACCEPTED,
        reason="",
        sha256="",
        size=1,
        examples=5,
        metrics_json="{}",
        work_s=0.0,
        residual_norm=0.0,
    )


def left(round_: int, *, frozen: frozenset[Work] = frozenset()) -> Recovery:
    """A coordinator was killed when client 0 of two had scored."""
    latest = VersionRecord(run_id="r", round=max(0, round_ - 1), version=AT, model_digest="m", mask_digest="k")
    return Recovery(
        run=RunRecord(run_id="r", name="r", config_toml="", schema_digest=SCHEMA.digest),
        shards={0: 0, 1: 1},
        latest=latest,
        last_round=round_,
        cohort=(0, 1),
        open_round=RoundRecord(run_id="r", round=round_, version=AT, deadline_s=600.0, target=2),
        assignments=tuple(asked(client=c, round_=round_) for c in (0, 1)),
        receipts=(receipt(0, round_),),
        frozen=frozen,
    )


def test_a_killed_coordinator_finds_its_scores_again() -> None:
    found = resumption(left(3), Rules(rounds=5, scored=frozenset({3})), {})
    assert found.state.phase is Phase.SCORING
    assert (found.state.cohort, found.state.pending) == ((0, 1), (1,))
    assert isinstance(found.assigned[1].work, ScoreWork)
    assert found.found.endswith("round 3 open with 1 of 2 scores")


def test_scoring_that_was_closed_is_not_waited_for_again() -> None:
    rules = Rules(rounds=5, scored=frozenset({0, 3}))
    later = resumption(left(3, frozen=frozenset({Work.SCORE})), rules, {}).state
    assert OpenRound(3, (0, 1), True) in rounds.resume(later)[1]
    first = resumption(left(0, frozen=frozenset({Work.SCORE})), rules, {}).state
    assert not first.primed
    assert CloseRound(0, (1,)) in rounds.resume(first)[1]


def test_once_training_has_begun_the_scores_are_done() -> None:
    recovery = left(3, frozen=frozenset({Work.SCORE}))
    training = replace(
        recovery, assignments=(*recovery.assignments, *(asked(client=c, kind=Work.TRAIN) for c in (0, 1)))
    )
    state = resumption(training, Rules(rounds=5, scored=frozenset({0, 3})), {}).state
    assert (state.phase, state.accepted, state.pending) == (Phase.TRAINING, frozenset(), (0, 1))
    assert state.primed
