"""Budgets over layers: they add up, never fill a layer above 1, and bend to the densities of single layers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.errors import LocalError
from fedprune.pruning.plan import SPREADS, keep_count
from fedprune.pruning.spread import apportion, erk_counts, erk_factor, shares, uniform_counts
from fedprune.tensor import Schema, TensorSpec

LENET = Schema(
    tensors=(
        TensorSpec(name="conv1.weight", shape=(6, 1, 5, 5)),
        TensorSpec(name="conv2.weight", shape=(16, 6, 5, 5)),
        TensorSpec(name="fc1.weight", shape=(120, 256)),
        TensorSpec(name="fc2.weight", shape=(84, 120)),
    )
)
SIZE = sum(t.size for t in LENET)


@given(density=st.floats(0.0, 1.0))
def test_counts_add_up_and_fit(density: float) -> None:
    keep = keep_count(density, SIZE)
    for by_layer in (uniform_counts, erk_counts):
        counts = by_layer(keep, LENET.prunable)
        assert counts.sum() == keep
        assert all(0 <= n <= t.size for n, t in zip(counts, LENET, strict=True))


def test_uniform_is_the_same_density_within_a_weight() -> None:
    counts = uniform_counts(keep_count(0.1, SIZE), LENET.prunable)
    assert all(abs(n - 0.1 * t.size) <= 1 for n, t in zip(counts, LENET, strict=True))


def test_erk_follows_its_formula_where_nothing_is_full() -> None:
    keep = keep_count(0.005, SIZE)
    counts = erk_counts(keep, LENET.prunable)
    epsilon = keep / sum(erk_factor(t) * t.size for t in LENET)
    for n, t in zip(counts, LENET, strict=True):
        assert epsilon * erk_factor(t) < 1
        assert abs(n - epsilon * erk_factor(t) * t.size) <= 1
    assert erk_factor(LENET["conv2.weight"]) == pytest.approx((16 + 6 + 5 + 5) / (16 * 6 * 5 * 5))


def test_erk_redistributes_what_full_layers_cannot_take() -> None:
    keep = keep_count(0.2, SIZE)
    counts = dict(zip([t.name for t in LENET], erk_counts(keep, LENET.prunable), strict=True))
    assert counts["conv1.weight"] == 150, "an early small layer is kept whole"
    rest = [t for t in LENET if counts[t.name] < t.size]
    ratios = [counts[t.name] / (erk_factor(t) * t.size) for t in rest]
    assert max(ratios) / min(ratios) < 1.01


def test_apportion_gives_the_rest_to_the_largest_remainders() -> None:
    quotas, caps = np.array([1.6, 1.6, 2.8]), np.array([9, 9, 9], np.int64)
    assert apportion(6, quotas, caps).tolist() == [2, 1, 3]
    assert apportion(9, np.array([3.0, 3.0, 3.0]), np.array([1, 9, 9], np.int64)).tolist() == [1, 4, 4]
    with pytest.raises(LocalError, match="larger than the layers"):
        apportion(4, np.array([4.0]), np.array([3], np.int64))


@pytest.mark.parametrize("spread", SPREADS)
def test_overrides_hold_and_the_others_share_the_rest(spread: str) -> None:
    keep = keep_count(0.1, SIZE)
    found = shares(spread, keep, LENET, {"conv1.weight": 0.5})
    assert sum(s.keep for s in found) == keep
    assert found[0].names == ("conv1.weight",)
    assert found[0].keep == 75
    assert sorted(n for s in found for n in s.names) == sorted(t.name for t in LENET)
    assert len(found) == (4 if spread in ("uniform", "erk") else 2)


def test_recurrent_matrices_are_ranked_by_themselves() -> None:
    """Not the two together, and not with the others."""
    named = {
        "embed.weight": 50,
        "rnn.weight_ih_l0": 120,
        "rnn.weight_hh_l0_reverse": 180,
        "cell.weight_hh": 60,
        "fc": 90,
    }
    schema = Schema(tensors=tuple(TensorSpec(name=name, shape=(10, size // 10)) for name, size in named.items()))
    found = shares("global", 100, schema, {})
    assert [(share.names, share.keep) for share in found] == [
        (("embed.weight", "fc"), 28),
        (("rnn.weight_ih_l0",), 24),
        (("rnn.weight_hh_l0_reverse",), 36),
        (("cell.weight_hh",), 12),
    ]
    plain = Schema(tensors=tuple(TensorSpec(name=n, shape=(4, 5)) for n in ("weight_ihx", "my_weight_hh_l0x")))
    assert [share.names for share in shares("global", 9, plain, {})] == [("weight_ihx", "my_weight_hh_l0x")]


def test_every_layer_overridden_leaves_nothing_to_share() -> None:
    found = shares("global", SIZE, LENET, {t.name: 1.0 for t in LENET})
    assert [s.keep for s in found] == [t.size for t in LENET]


@pytest.mark.parametrize(("density", "own"), [(0.1, 1.0), (0.99, 0.1)])
def test_overrides_that_contradict_the_whole_are_refused(density: float, own: float) -> None:
    with pytest.raises(LocalError, match="contradict the density of the whole"):
        shares("global", keep_count(density, SIZE), LENET, {"fc1.weight": own})
