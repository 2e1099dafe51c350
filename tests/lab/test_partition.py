"""Partitioners: every example once, repeatable, and as lopsided as asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.errors import LocalError
from fedprune_lab.partition import Positions, by_id, by_size, dirichlet, iid, shards

LABELS = np.repeat(np.arange(5), [40, 60, 30, 50, 20])
IDS = np.repeat(np.arange(9), [40, 5, 30, 25, 20, 10, 30, 20, 20])

WAYS: dict[str, Callable[[int, int], list[Positions]]] = {
    "iid": lambda clients, seed: iid(len(LABELS), clients, seed=seed),
    "dirichlet": lambda clients, seed: dirichlet(LABELS, clients, alpha=0.5, seed=seed),
    "shards": lambda clients, seed: shards(LABELS, clients, per_client=2, seed=seed),
    "by_id": lambda clients, seed: by_id(IDS, clients),
    "by_size": lambda clients, seed: by_size(len(LABELS), range(1, clients + 1), seed=seed),
}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=30)
@given(clients=st.integers(1, 9), seed=st.integers(0, 20))
def test_each_example_has_one_owner_and_each_owner_some(way: str, clients: int, seed: int) -> None:
    parts = WAYS[way](clients, seed)
    assert len(parts) == clients
    assert all(len(part) and np.array_equal(part, np.unique(part)) for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))
    assert all(np.array_equal(a, b) for a, b in zip(parts, WAYS[way](clients, seed), strict=True))


@pytest.mark.parametrize("way", ["iid", "dirichlet", "shards", "by_size"])
def test_the_seed_decides(way: str) -> None:
    one, other = WAYS[way](4, 1), WAYS[way](4, 2)
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_iid_shares_are_even_and_mixed() -> None:
    parts = iid(len(LABELS), 7, seed=1)
    assert {len(part) for part in parts} <= {28, 29}
    assert skew(parts) < 0.15


def skew(parts: list[Positions]) -> float:
    """Mean distance (total variation) between a client's labels and everyone's."""
    whole = np.bincount(LABELS, minlength=5) / len(LABELS)
    return float(np.mean([np.abs(np.bincount(LABELS[p], minlength=5) / len(p) - whole).sum() / 2 for p in parts]))


def test_a_small_alpha_makes_lopsided_clients() -> None:
    skews = [
        np.mean([skew(dirichlet(LABELS, 4, alpha=alpha, seed=seed)) for seed in range(10)])
        for alpha in (0.1, 1.0, 100.0)
    ]
    assert skews[0] > 1.5 * skews[1] > 3 * skews[2]


def test_dirichlet_gives_everyone_enough_or_says_that_it_cannot() -> None:
    assert min(map(len, dirichlet(LABELS, 5, alpha=0.3, seed=1, at_least=15))) >= 15
    with pytest.raises(LocalError, match=r"no Dirichlet partition gave each of 5 clients 40 examples.*alpha 0.05"):
        dirichlet(LABELS, 5, alpha=0.05, seed=1, at_least=40)
    with pytest.raises(LocalError, match="concentration above 0"):
        dirichlet(LABELS, 5, alpha=0.0, seed=1)


def test_shards_hold_few_labels() -> None:
    assert max(len(np.unique(LABELS[part])) for part in shards(LABELS, 10, per_client=2, seed=1)) <= 4


def test_owners_stay_whole_and_sizes_stay_close() -> None:
    parts = by_id(IDS, 3)
    owners = [set(IDS[part]) for part in parts]
    assert sum(map(len, owners)) == 9
    assert max(map(len, parts)) - min(map(len, parts)) <= 10


def test_sizes_follow_the_weights() -> None:
    assert [len(part) for part in by_size(103, [1, 2, 7], seed=1)] == [11, 21, 71]


@pytest.mark.parametrize(
    "ask",
    [
        lambda: iid(3, 4, seed=1),
        lambda: iid(3, 0, seed=1),
        lambda: shards(LABELS, 101, per_client=2, seed=1),
        lambda: by_id(IDS, 10),
        lambda: by_size(2, [1, 1, 1], seed=1),
        lambda: dirichlet(LABELS, 30, alpha=1.0, seed=1, at_least=10),
    ],
)
def test_more_clients_than_data_is_refused(ask: Callable[[], object]) -> None:
    with pytest.raises(LocalError, match="not enough data for so many clients"):
        ask()


def test_weights_must_be_above_zero() -> None:
    with pytest.raises(LocalError, match="weight must be above 0"):
        by_size(10, [1, 0], seed=1)
