"""Prune and regrow: counts never change, nothing returns in the step that dropped it, live weights are never grown.

Several tests here stand for defects found in published code; each says which.
"""

from math import cos, pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Mask
from fedprune.pruning import Floors
from fedprune.pruning.regrowth import (
    Exchange,
    GrowthVote,
    check_readjusts_before_training,
    exchange,
    exchange_counts,
    exchange_share,
    largest_dead,
    tally_growth,
)
from fedprune.tensor import Schema, TensorSpec

SCHEMA = Schema(tensors=(TensorSpec(name="a", shape=(20, 30)), TensorSpec(name="b", shape=(6, 4, 3, 3))))


def sparse(seed: int, density: float) -> Mask:
    rng = np.random.default_rng(seed)
    return Mask(schema=SCHEMA, version=1, alive={t.name: rng.random(t.shape) < density for t in SCHEMA})


def some(seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(seed)
    return {t.name: rng.random(t.shape, np.float32) for t in SCHEMA}


def swap(mask: Mask, share: float, seed: int, floors: Floors) -> Exchange:
    return exchange(some(seed), some(seed + 1), mask, exchange_counts(mask, share), floors, 2, score="magnitude")


def test_the_share_starts_at_its_amount_not_at_its_square() -> None:
    # FedDST's released code multiplies by the amount twice: 0.01 starts at 1e-4 and the mask hardly ever moves.
    assert exchange_share(0, 300, 0.01) == 0.01
    assert exchange_share(150, 300, 0.4) == pytest.approx(0.2)
    assert exchange_share(75, 300, 0.4) == pytest.approx(0.2 * (1 + cos(pi / 4)))
    assert exchange_share(300, 300, 0.4) == exchange_share(400, 300, 0.4) == 0.0
    with pytest.raises(LocalError, match="no such exchange"):
        exchange_share(0, 0, 0.4)


@settings(max_examples=40, deadline=None)
@given(
    density=st.floats(0.0, 1.0),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 50),
    floors=st.sampled_from([Floors(), Floors(weights=0, share=0.0, connect=False)]),
)
def test_invariants(density: float, share: float, seed: int, floors: Floors) -> None:
    mask = sparse(seed, density)
    done = swap(mask, share, seed, floors)
    for name, before in mask.alive.items():
        after = done.mask.alive[name]
        assert after.sum() == before.sum(), "the number of alive weights of each layer"
        # FedDST's released code picks among all weights, live ones included, and ends sparser than it should.
        assert not before.reshape(-1)[done.grown[name]].any(), "only the dead grow"
        assert not after.reshape(-1)[done.dropped[name]].any(), "nothing returns at once"
        assert done.grown[name].size == done.dropped[name].size <= exchange_counts(mask, share)[name]
    assert [layer.before for layer in done.layers] == [layer.after for layer in done.layers]


def test_the_smallest_go_and_the_largest_come() -> None:
    mask = sparse(1, 0.3)
    done = swap(mask, 0.2, 4, Floors(weights=0, share=0.0, connect=False))
    magnitude, growth = some(4)["a"].reshape(-1), some(5)["a"].reshape(-1)
    alive = mask.alive["a"].reshape(-1)
    count = int(0.2 * alive.sum())
    assert set(done.dropped["a"]) == set(np.flatnonzero(alive)[np.argsort(magnitude[alive])[:count]])
    assert set(done.grown["a"]) == set(np.flatnonzero(~alive)[np.argsort(-growth[~alive])[:count]])


def test_floors_shrink_the_step_and_few_candidates_do_too() -> None:
    line = np.zeros((20, 30), np.bool_)
    np.fill_diagonal(line, True)  # each row's only weight
    mask = Mask(schema=SCHEMA, version=1, alive={"a": line, "b": sparse(0, 0.5).alive["b"]})
    done = exchange(some(0), some(1), mask, {"a": 10, "b": 10}, Floors(), 2, score="m")
    assert done.grown["a"].size == 0
    assert done.grown["b"].size == 10
    growth = {name: np.zeros_like(array) for name, array in some(1).items()}
    growth["b"].reshape(-1)[np.flatnonzero(~mask.alive["b"])[:3]] = 1
    assert exchange(some(0), growth, mask, {"a": 10, "b": 10}, Floors(), 2, score="m").grown["b"].size == 3


def test_counts_are_capped_by_what_is_dead() -> None:
    assert exchange_counts(Mask.full(SCHEMA), 0.3) == {"a": 0, "b": 0}
    mask = sparse(0, 0.9)
    dead = {name: int((~bits).sum()) for name, bits in mask.alive.items()}
    assert exchange_counts(mask, 1.0) == dead


def test_readjusting_after_the_last_step_is_refused() -> None:
    # FedDST's default settings do so: what grew is averaged in as zeros.
    check_readjusts_before_training(4, 5)
    with pytest.raises(LocalError, match="grows only zeros"):
        check_readjusts_before_training(5, 5)


def vote(client: int, examples: int, places: list[int], gradients: list[float] | None = None) -> GrowthVote:
    return GrowthVote(
        client=client,
        examples=examples,
        indices={"a": np.array(places, np.intp), "b": np.zeros(0, np.intp)},
        gradients=None if gradients is None else {"a": np.array(gradients, np.float32), "b": np.zeros(0, np.float32)},
    )


def test_a_client_votes_for_its_largest_gradients_among_the_dead() -> None:
    mask = sparse(1, 0.4)
    gradients = {name: array - np.float32(0.5) for name, array in some(3).items()}
    found = largest_dead(gradients, mask, {"a": 25, "b": 10_000})
    dead = np.flatnonzero(~mask.alive["a"])
    strongest = dead[np.argsort(-np.abs(gradients["a"].reshape(-1)[dead]))[:25]]
    assert found["a"].tolist() == sorted(strongest)
    assert found["b"].tolist() == np.flatnonzero(~mask.alive["b"]).tolist(), "no more than there are"
    counts = {name: places.size for name, places in found.items()}
    GrowthVote(client=0, examples=1, indices=found).check(mask, counts)


def test_votes_count_by_examples() -> None:
    tally = tally_growth(SCHEMA, [vote(0, 30, [1, 5]), vote(1, 10, [5, 7])])["a"].reshape(-1)
    assert tally[[1, 5, 7, 0]] == pytest.approx([0.75, 1.0, 0.25, 0.0])


def test_gradients_that_disagree_cancel() -> None:
    tally = tally_growth(SCHEMA, [vote(0, 30, [1, 5], [2.0, 1.0]), vote(1, 10, [5, 7], [-3.0, 4.0])])["a"].reshape(-1)
    assert tally[[1, 5, 7]] == pytest.approx([1.5, 0.0, 1.0])
    with pytest.raises(LocalError, match="nobody voted"):
        tally_growth(SCHEMA, [])


DEAD = Mask(schema=SCHEMA, version=1, alive={t.name: np.zeros(t.shape, np.bool_) for t in SCHEMA})


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (vote(2, 5, [1, 2, 3]), "more than 2 weights"),
        (vote(2, 5, [3, 1]), "not ascending"),
        (vote(2, 5, [1, 1]), "not ascending"),
        (vote(2, 5, [-1, 1]), "not ascending"),
        (vote(2, 5, [1, 600]), "not ascending"),
        (vote(2, 0, [1]), "without examples"),
        (vote(2, 5, [1], [1.0, 2.0]), "another number of gradients"),
        (vote(2, 5, [1], [np.nan]), "not finite"),
        (GrowthVote(client=2, examples=5, indices={}), "other layers"),
    ],
)
def test_votes_that_are_none_are_refused_by_name(bad: GrowthVote, problem: str) -> None:
    with pytest.raises(UpdateError, match=f"client 2: .*{problem}"):
        bad.check(DEAD, {"a": 2, "b": 0})


def test_a_vote_for_the_living_is_refused() -> None:
    with pytest.raises(UpdateError, match="alive"):
        vote(2, 5, [1]).check(Mask.full(SCHEMA), {"a": 2, "b": 0})
    vote(2, 5, [1]).check(DEAD, {"a": 2, "b": 0})
