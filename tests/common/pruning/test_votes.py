"""Masks of clients become one: by examples, whatever the order, and seen for what their union is."""

from math import sqrt

import numpy as np
import pytest

from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Mask
from fedprune.pruning import Floors, magnitude_mask
from fedprune.pruning.votes import Ballot, coverage, damping, merge, propose
from fedprune.tensor import Role, Schema, TensorSpec

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(1, 4)),))
FULL = Mask.full(SCHEMA)
FREE = Floors(weights=0, share=0.0, connect=False)


def ballot(client: int, examples: int, bits: str) -> Ballot:
    alive = {"w": np.array([[bit == "1" for bit in bits]])}
    return Ballot(client=client, examples=examples, mask=Mask(schema=SCHEMA, version=1, alive=alive))


BALLOTS = [ballot(0, 60, "1100"), ballot(1, 30, "1010"), ballot(2, 10, "1000")]


@pytest.mark.parametrize(
    ("rule", "quorum", "kept"),
    [
        ("union", 0.5, "1110"),
        ("majority", 0.5, "1100"),  # 60 of 100 examples, though one client of three
        ("intersection", 0.5, "1000"),
        ("quorum", 0.3, "1110"),
        ("quorum", 0.31, "1100"),
        ("quorum", 0.0, "1110"),
    ],
)
def test_rules_weigh_by_examples(rule: str, quorum: float, kept: str) -> None:
    for ballots in (BALLOTS, BALLOTS[::-1]):
        merged = merge(ballots, rule, FREE, 2, quorum=quorum)
        assert "".join("01"[int(b)] for b in merged.mask.alive["w"][0]) == kept
        assert merged.support["w"][0] == pytest.approx([1.0, 0.6, 0.3, 0.0])


def test_equal_masks_merge_to_themselves() -> None:
    same = [ballot(k, k + 1, "0110") for k in range(3)]
    for rule in ("union", "majority", "intersection"):
        assert merge(same, rule, FREE, 2).mask.fingerprint == same[0].mask.fingerprint


def test_a_layer_that_nobody_agrees_on_keeps_its_best_supported() -> None:
    split = [ballot(0, 5, "1000"), ballot(1, 9, "0100")]
    merged = merge(split, "intersection", Floors(weights=1, share=0.0, connect=False), 2)
    assert merged.mask.alive["w"].tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(("density", "clients"), [(0.1, 10), (0.2, 5), (0.02, 20)])
def test_the_union_of_independent_masks_is_as_dense_as_theory_says(density: float, clients: int) -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(200, 250)),))
    rng = np.random.default_rng(7)
    ballots = [
        Ballot(
            client=k,
            examples=1,
            mask=Mask(schema=schema, version=1, alive={"w": rng.random((200, 250)) < density}),
        )
        for k in range(clients)
    ]
    merged = merge(ballots, "union", FREE, 2)
    expected = 1 - (1 - density) ** clients
    sigma = sqrt(expected * (1 - expected) / 50_000)
    assert abs(merged.mask.density - expected) < 3 * sigma
    assert merged.densified(density)
    weights = {"w": rng.standard_normal((200, 250)).astype(np.float32)}
    pruned = magnitude_mask(weights, merged.mask, density, FREE, 3)
    assert pruned.density == pytest.approx(density)
    assert pruned.within(merged.mask)


def test_coverage_and_damping() -> None:
    counts = coverage([(b.examples, b.mask) for b in BALLOTS])["w"]
    assert counts.tolist() == [[100, 60, 30, 0]]
    assert damping(counts, 100, 0.5).tolist() == [[1.0, 1.0, pytest.approx(0.6), 0.0]]
    assert damping(counts, 100, 0.0).min() == 1.0
    assert damping(counts, 100)[0, 2] == 1.0
    with pytest.raises(LocalError, match="no such damping"):
        damping(counts, 0)
    with pytest.raises(LocalError, match="no masks"):
        coverage([])


def test_bad_rules_and_ballots_are_refused() -> None:
    with pytest.raises(LocalError, match="no such merge"):
        merge(BALLOTS, "loudest", FREE, 2)
    with pytest.raises(LocalError, match="no such merge"):
        merge(BALLOTS, "quorum", FREE, 2, quorum=1.5)
    with pytest.raises(UpdateError, match=r"client 4: .*without examples"):
        ballot(4, 0, "1000").check(FULL, (2,))
    with pytest.raises(UpdateError, match=r"client 0: .*another model"):
        BALLOTS[0].check(Mask.full(Schema(tensors=(TensorSpec(name="w", shape=(1, 4), role=Role.FREE),))), ())
    with pytest.raises(UpdateError, match=r"client 0: .*weights that are pruned"):
        BALLOTS[0].check(ballot(9, 1, "0111").mask, (2,))
    with pytest.raises(UpdateError, match=r"client 0: .*more than its share of w"):
        BALLOTS[0].check(FULL, (1,))
    with pytest.raises(LocalError, match="a budget for other layers"):
        BALLOTS[0].check(FULL, (1, 1))
    BALLOTS[0].check(FULL, (2,))


def test_an_exchange_keeps_the_count_and_takes_no_more_than_asked() -> None:
    mask = ballot(0, 1, "1100").mask
    ballot(4, 1, "1010").check_exchange(mask, {"w": 1})
    ballot(4, 1, "1100").check_exchange(mask, {"w": 0})
    for bits, count, said in (
        ("0011", 1, "exchanges more of 'w' than asked"),
        ("1110", 1, "another number of weights"),
        ("1000", 1, "another number of weights"),
    ):
        with pytest.raises(UpdateError, match=f"client 4: .*{said}"):
            ballot(4, 1, bits).check_exchange(mask, {"w": count})
    with pytest.raises(UpdateError, match=r"client 4: .*without examples"):
        ballot(4, 0, "1010").check_exchange(mask, {"w": 1})


def test_a_client_proposes_the_largest_of_its_scores_within_the_mask() -> None:
    schema = Schema(tensors=(TensorSpec(name="a", shape=(2, 3)), TensorSpec(name="b", shape=(1, 4))))
    mask = Mask(
        schema=schema, version=4, alive={"a": np.array([[1, 1, 1], [0, 1, 1]], bool), "b": np.ones((1, 4), bool)}
    )
    scores = {
        "a": np.array([[9, 8, 7], [99, 1, 2]], np.float32),
        "b": np.array([[6, 5, 0.5, 0.1]], np.float32),
    }

    def kept(keep: tuple[int, ...], method: str = "snip") -> list[list[int]]:
        proposed = propose(scores, mask, keep, method=method)
        assert proposed.version == 5
        Ballot(client=0, examples=1, mask=proposed).check(mask, keep)
        return [np.flatnonzero(proposed.alive[name]).tolist() for name in "ab"]

    assert kept((4,)) == [[0, 1, 2], [0]]
    assert kept((1, 3)) == [[0], [0, 1, 2]]
    # Wanda ranks within rows: the second one keeps its best as soon as the first one does.
    assert kept((2, 0), "wanda") == [[0, 5], []]
