"""Scores without data, and the mean of the clients' scores."""

import numpy as np
import pytest

from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Mask
from fedprune.pruning import Floors, select
from fedprune.pruning.scores import ClientScores, combine, lamp, magnitudes, randoms, values, within_rows
from fedprune.tensor import Role, Schema, TensorSpec

SCHEMA = Schema(
    tensors=(TensorSpec(name="w", shape=(3, 4)), TensorSpec(name="b", shape=(3,), role=Role.FREE)),
)


def test_bfloat16_patterns_are_widened_exactly() -> None:
    floats = np.array([[-3.0, 0.5], [1.0, -2.0]], np.float32)
    spec = TensorSpec(name="w", shape=(2, 2), dtype="bfloat16")
    assert (values(spec, (floats.view("<u4") >> 16).astype("<u2")) == floats).all()


def test_float64_that_overflows_float32_is_refused_not_ranked() -> None:
    with pytest.raises(LocalError, match="not finite"):
        values(TensorSpec(name="w", shape=(1,), dtype="float64"), np.array([1e300]))


def test_magnitude_covers_the_prunable_only() -> None:
    assert list(magnitudes(SCHEMA, {"w": -np.ones((3, 4), np.float32)})) == ["w"]
    assert magnitudes(SCHEMA, {"w": -np.ones((3, 4), np.float32)})["w"].min() == 1


def test_random_scores_come_from_the_given_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # the legacy tuple form
    first, second = (randoms(SCHEMA, np.random.default_rng(5))["w"] for _ in range(2))
    assert (first == second).all()
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]  # the legacy tuple form
    assert first.shape == (3, 4)


def test_random_pruning_works_and_keeps_a_random_part() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(50, 50)),))
    masks = [
        select(randoms(schema, np.random.default_rng(s)), Mask.full(schema), 250, Floors(), 1, score="random").mask
        for s in (1, 2)
    ]
    assert masks[0].alive_count == masks[1].alive_count == 250
    assert masks[0].fingerprint != masks[1].fingerprint


def test_lamp_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    w = np.abs(rng.standard_normal((5, 6))).astype(np.float32)
    alive = rng.random((5, 6)) < 0.7
    scores = lamp(w, alive)
    for place in zip(*np.nonzero(alive), strict=True):
        larger = np.square(w[alive & (w >= w[place])].astype(np.float64)).sum()
        assert scores[place] == pytest.approx(w[place] ** 2 / larger, rel=1e-5)
    assert scores[alive].max() == 1
    assert (scores[~alive] == 0).all()


def test_lamp_does_not_depend_on_the_scale_of_a_layer() -> None:
    w = np.abs(np.random.default_rng(0).standard_normal((5, 6))).astype(np.float32)
    everything = np.ones(w.shape, np.bool_)
    assert np.allclose(lamp(w, everything), lamp(w * np.float32(1000), everything), rtol=1e-4)
    assert lamp(np.zeros((2, 2), np.float32), np.ones((2, 2), np.bool_)).sum() == 0


def test_within_rows_takes_the_same_share_of_every_row() -> None:
    rng = np.random.default_rng(1)
    scores = rng.random((8, 10), np.float32) * (10.0 ** np.arange(8))[:, None].astype(np.float32)
    ranked = within_rows(scores, np.ones(scores.shape, np.bool_))
    assert ((ranked > 0.65).sum(1) == 4).all()
    assert (ranked.argmax(1) == scores.argmax(1)).all()
    some = rng.random((8, 10)) < 0.5
    assert (within_rows(scores, some)[~some] == 0).all()


def client(number: int, examples: int, level: float) -> ClientScores:
    return ClientScores(client=number, examples=examples, scores={"w": np.full((3, 4), level, np.float32)})


def test_clients_weigh_by_examples_and_their_order_does_not_matter() -> None:
    assert combine(SCHEMA, [client(0, 30, 1.0), client(1, 10, 5.0)])["w"] == pytest.approx(np.full((3, 4), 2.0))
    rounding = [client(0, 5, 1e16), client(1, 5, -1e16), client(2, 5, 1.0)]
    first, second = combine(SCHEMA, rounding)["w"], combine(SCHEMA, [rounding[k] for k in (0, 2, 1)])["w"]
    assert (first == second).all()
    assert first.max() > 0.3


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (ClientScores(client=3, examples=5, scores={"w": np.zeros((4, 3), np.float32)}), "another shape"),
        (ClientScores(client=3, examples=5, scores={"v": np.zeros((3, 4), np.float32)}), "other tensors"),
        (ClientScores(client=3, examples=5, scores={}), "other tensors"),
        (ClientScores(client=3, examples=0, scores={"w": np.zeros((3, 4), np.float32)}), "without examples"),
        (ClientScores(client=3, examples=5, scores={"w": np.full((3, 4), np.nan, np.float32)}), "not finite"),
    ],
)
def test_a_client_that_lies_about_its_scores_is_refused_by_name(part: ClientScores, problem: str) -> None:
    with pytest.raises(UpdateError, match=f"client 3: .*{problem}"):
        part.check(SCHEMA)


def test_honest_scores_pass_and_no_scores_do_not_combine() -> None:
    client(0, 1, 1.0).check(SCHEMA)
    with pytest.raises(LocalError, match="no client sent scores"):
        combine(SCHEMA, [])
