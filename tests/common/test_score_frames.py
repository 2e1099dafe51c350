"""Scores and votes come back as they went, are small where they should be, and bad bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest

from fedprune.errors import RemoteError, VersionError
from fedprune.mask import Mask
from fedprune.score_frames import Floats, decode_scores, decode_votes, encode_scores, encode_votes, score_schema
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.work import UploadPlan

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="a", shape=(40, 30)),
        TensorSpec(name="bias", shape=(40,), role=Role.FREE),
        TensorSpec(name="half", shape=(20, 40), dtype="bfloat16"),
        TensorSpec(name="count", shape=(), dtype="int64", role=Role.COUNTER),
    )
)
RNG = np.random.default_rng(5)
SCORES = {t.name: RNG.random(t.shape, np.float32) + np.float32(0.1) for t in SCHEMA.prunable}
HALF = Mask(schema=SCHEMA, version=3, alive={t.name: RNG.random(t.shape) < 0.5 for t in SCHEMA.prunable})
VERSION = Version(model=7, mask=3)


def test_only_prunable_tensors_have_scores_and_all_are_float32() -> None:
    assert [(t.name, t.dtype) for t in score_schema(SCHEMA)] == [("a", "float32"), ("half", "float32")]


@pytest.mark.parametrize("mask", [HALF, Mask.full(SCHEMA)])
def test_scores_come_back_where_weights_are_alive(mask: Mask) -> None:
    found = decode_scores(encode_scores(SCORES, mask, plan=UploadPlan(), version=VERSION), mask)
    for name, alive in mask.alive.items():
        assert np.array_equal(found[name], np.where(alive, SCORES[name], 0))


def test_coarse_scores_are_small_and_near() -> None:
    fine, coarse = (
        encode_scores(SCORES, HALF, plan=UploadPlan(values=v), version=VERSION) for v in ("lossless", "int8")
    )
    assert len(coarse) < len(fine) / 2
    found = decode_scores(coarse, HALF)
    assert np.abs(found["a"] - np.where(HALF.alive["a"], SCORES["a"], 0)).max() < 0.02


def vote() -> tuple[dict[str, np.ndarray], dict[str, Floats]]:
    places = {"a": np.array([3, 17, 1199]), "half": np.array([], np.intp)}
    return places, {"a": np.array([-0.5, 2.0, 1e-9], np.float32), "half": np.array([], np.float32)}


def test_votes_come_back_with_their_signs() -> None:
    places, gradients = vote()
    frame = encode_votes(places, gradients, SCHEMA, plan=UploadPlan(), version=VERSION)
    found, values = decode_votes(frame, SCHEMA)
    assert [found[n].tolist() for n in ("a", "half")] == [[3, 17, 1199], []]
    assert np.array_equal(values["a"], gradients["a"])
    assert len(frame) < 200


def test_a_vote_for_everything_is_read_too() -> None:
    places = {t.name: np.arange(t.size) for t in SCHEMA.prunable}
    gradients = {name: SCORES[name].reshape(-1) for name in places}
    found, values = decode_votes(encode_votes(places, gradients, SCHEMA, plan=UploadPlan(), version=VERSION), SCHEMA)
    assert found["half"].tolist() == list(range(800))
    assert np.array_equal(values["half"], gradients["half"])


def test_other_masks_and_broken_bytes_are_refused() -> None:
    frame = encode_scores(SCORES, HALF, plan=UploadPlan(), version=VERSION)
    with pytest.raises(VersionError):
        decode_scores(frame, Mask.full(SCHEMA))
    for broken in (b"", frame[:-1], frame[:40] + bytes([frame[40] ^ 1]) + frame[41:]):
        with pytest.raises(RemoteError):
            decode_scores(broken, HALF)
        with pytest.raises(RemoteError):
            decode_votes(broken, SCHEMA)
