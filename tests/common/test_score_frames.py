"""Scores and votes as frames: what one side says is what the other reads, and nothing else is accepted."""

from __future__ import annotations

import numpy as np
import pytest

from fedprune.errors import RemoteError, VersionError
from fedprune.mask import Mask
from fedprune.score_frames import PLACES_ONLY, encode_growth, encode_scores, read_growth, read_scores
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.work import UploadPlan

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="a", shape=(30, 20)),
        TensorSpec(name="bias", shape=(30,), role=Role.FREE),
        TensorSpec(name="b", shape=(16, 30), dtype="bfloat16"),
    )
)
RNG = np.random.default_rng(3)
MASK = Mask(schema=SCHEMA, version=2, alive={t.name: RNG.random(t.shape) < 0.3 for t in SCHEMA.prunable})
AT = Version(model=5, mask=2)
SCORES = {t.name: RNG.normal(size=t.shape).astype(np.float32) for t in SCHEMA.prunable}


def test_scores_of_what_is_alive_arrive_and_of_nothing_else() -> None:
    frame = memoryview(encode_scores(SCORES, MASK, UploadPlan(), AT))
    found = read_scores(frame, MASK, AT)
    for name, bits in MASK.alive.items():
        assert np.array_equal(found[name], np.where(bits, SCORES[name], 0))


def test_they_can_be_asked_for_in_any_order_and_by_their_names_only() -> None:
    found = read_scores(memoryview(encode_scores(SCORES, MASK, UploadPlan(), AT)), MASK, AT)
    assert list(found) == ["a", "b"]
    assert len(found) == 2
    assert np.array_equal(found["b"], dict(found)["b"])
    assert np.array_equal(found["a"], found["a"])
    with pytest.raises(KeyError):
        found["bias"]


def test_eight_bits_are_a_quarter() -> None:
    small = encode_scores(SCORES, MASK, UploadPlan(values="int8", seed=1), AT)
    assert len(small) < 0.4 * len(encode_scores(SCORES, MASK, UploadPlan(), AT))
    found = read_scores(memoryview(small), MASK, AT)
    assert np.abs(found["a"] - SCORES["a"])[MASK.alive["a"]].max() < 0.05


@pytest.mark.parametrize("values", ["lossless", "int8", PLACES_ONLY])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_votes_arrive_where_they_were_cast(values: str, share: float) -> None:
    places = {n: np.flatnonzero(~bits)[: int(share * (~bits).sum())] for n, bits in MASK.alive.items()}
    gradients = {n: np.linspace(1, 2, at.size, dtype=np.float32) for n, at in places.items()}
    frame = memoryview(encode_growth(places, gradients, MASK, UploadPlan(values=values, seed=1), AT))
    found, asked = read_growth(frame, MASK, AT)
    for name, at in places.items():
        assert np.array_equal(found[name], at)
        expected = np.ones_like(asked[name]) if values == PLACES_ONLY else gradients[name]
        assert np.allclose(asked[name], expected, atol=0.02)


def test_a_weight_without_gradient_gets_no_vote() -> None:
    places = {n: np.flatnonzero(~bits)[:3] for n, bits in MASK.alive.items()}
    gradients = {n: np.array([1, 0, 2], np.float32) for n in places}
    found, _ = read_growth(memoryview(encode_growth(places, gradients, MASK, UploadPlan(), AT)), MASK, AT)
    assert np.array_equal(found["a"], places["a"][[0, 2]])


def test_another_mask_another_version_and_bytes_that_are_none_are_refused() -> None:
    frame = memoryview(encode_scores(SCORES, MASK, UploadPlan(), AT))
    other = Mask(schema=SCHEMA, version=2, alive={n: ~b for n, b in MASK.alive.items()})
    with pytest.raises(VersionError):
        read_scores(frame, other, AT)
    with pytest.raises(VersionError, match="another version than assigned"):
        read_scores(frame, MASK, Version(model=6, mask=2))
    for data in (b"", bytes(frame)[:-1], bytes(frame) + b"x"):
        with pytest.raises(RemoteError):
            dict(read_scores(memoryview(data), MASK, AT))
    with pytest.raises(VersionError):
        read_growth(frame, MASK, AT)
