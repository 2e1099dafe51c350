"""Exact sums: any order and any grouping give the same bits, and what cannot be summed is refused by name."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedprune.errors import LocalError, UpdateError
from fedprune.tensor import Role, TensorSpec
from fedprune_server.aggregation.fixed import BLOCK, MAX_EXAMPLES, MAX_UPDATES, Deltas, Partial, Scale

MATRIX = TensorSpec(name="w", shape=(1, 3))
VECTOR = TensorSpec(name="b", shape=(3,), role=Role.FREE)
BASE = np.zeros(3, np.float32)

narrow = st.lists(st.floats(-4000, 4000, width=32), min_size=3, max_size=3)
wide = st.lists(st.floats(-1e18, 1e18), min_size=3, max_size=3)
updates = st.lists(st.tuples(narrow, st.integers(1, MAX_EXAMPLES)), min_size=1, max_size=6)
wide_updates = st.lists(st.tuples(wide, st.integers(1, MAX_EXAMPLES)), min_size=1, max_size=6)

Many = list[tuple[list[float], int]]


def partial_of(many: Many, spec: TensorSpec = MATRIX) -> Partial:
    partial = Partial.empty(Scale.of(spec, BASE), 3)
    for values, examples in many:
        partial.add(Deltas(values=np.array(values), examples=examples), spec.name)
    return partial


def sums(partial: Partial) -> list[int]:
    """What a partial stands for, in units of its scale: wherever it is kept."""
    recent = [int(value) for value in partial.recent]
    return [
        value + sum(int(limb[j]) << 24 * i for i, limb in enumerate(partial.limbs)) for j, value in enumerate(recent)
    ]


@given(updates, st.randoms(use_true_random=False))
def test_order_does_not_show(many: Many, random: object) -> None:
    shuffled = list(many)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    assert sums(partial_of(shuffled)) == sums(partial_of(many))


@given(updates, updates, updates)
def test_grouping_does_not_show(first: Many, second: Many, third: Many) -> None:
    left = partial_of(first)
    left.merge(partial_of(second))
    left.merge(partial_of(third))
    tail = partial_of(second)
    tail.merge(partial_of(third))
    right = partial_of(first)
    right.merge(tail)
    assert sums(left) == sums(right) == sums(partial_of(first + second + third))
    assert (left.weights, left.count) == (right.weights, right.count)
    assert left.mean().tobytes() == right.mean().tobytes()


def exact_mean(many: Many, spec: TensorSpec) -> list[Fraction]:
    step = Fraction(2) ** Scale.of(spec, BASE).bits
    total = sum(examples for _, examples in many)
    return [sum(n * round(Fraction(v[j]) * step) for v, n in many) / (total * step) for j in range(3)]


@given(updates)
def test_the_mean_is_the_exact_one_rounded(many: Many) -> None:
    for got, wanted in zip(partial_of(many).mean(), exact_mean(many, MATRIX), strict=True):
        assert abs(Fraction(float(got)) - wanted) <= abs(wanted) * Fraction(1, 1 << 51)


@given(wide_updates)
def test_vectors_reach_far_and_stay_exact(many: Many) -> None:
    for got, wanted in zip(partial_of(many, VECTOR).mean(), exact_mean(many, VECTOR), strict=True):
        assert abs(Fraction(float(got)) - wanted) <= abs(wanted) * Fraction(1, 1 << 50)


def test_a_block_border_is_no_border() -> None:
    values = np.linspace(-1, 1, BLOCK + 3)
    partial = Partial.empty(Scale.of(MATRIX, BASE), values.size)
    partial.add(Deltas(values=values, examples=3), "w")
    assert np.abs(partial.mean() - values).max() < 2**-34


def test_what_is_too_large_for_a_float_leaves_what_is_there_already() -> None:
    values = np.full(2 * BLOCK, 2.0**-20)
    values[-1] = 1000.0
    partial = Partial.empty(Scale.of(MATRIX, BASE), values.size)
    for _ in range(3):
        partial.add(Deltas(values=values, examples=MAX_EXAMPLES), "w")
    assert partial.limbs, "the last block is beyond 2^53"
    assert np.array_equal(partial.mean(), values)


def test_sums_that_outgrow_a_float_are_carried_over() -> None:
    values = np.linspace(-3.0, 3.0, BLOCK + 3)
    partial = Partial.empty(Scale.of(MATRIX, BASE), values.size)
    examples = 1 << 15  # 3 is 2^36.6 steps: two updates are too many for 2^53
    for _ in range(5):
        partial.add(Deltas(values=values, examples=examples), "w")
        assert np.abs(partial.recent).max() <= partial.bound <= 2.0**53
    assert partial.limbs
    assert np.abs(partial.mean() - values).max() < 2**-34


def test_the_largest_sums_fit() -> None:
    scale = Scale.of(MATRIX, BASE)
    partial = Partial.empty(scale, 3)
    values = np.array([scale.limit - 1, 1 - scale.limit, scale.limit / 2]) / 2.0**scale.bits
    partial.add(Deltas(values=values, examples=MAX_EXAMPLES), "w")
    for _ in range(14):
        partial.merge(
            Partial(
                scale=scale,
                size=3,
                recent=partial.recent.copy(),
                limbs=[x.copy() for x in partial.limbs],
                weights=partial.weights,
                count=partial.count,
            )
        )
    assert partial.count == MAX_UPDATES
    assert partial.mean() == pytest.approx(values, rel=1e-15)
    with pytest.raises(LocalError, match="more updates"):
        partial.merge(partial_of([([0, 0, 0], 1)]))


def test_holders_weigh_only_what_they_hold() -> None:
    partial = Partial.empty(Scale.of(MATRIX, BASE), 3)
    partial.add(Deltas(values=np.array([1.0, 1.0, 1.0]), examples=10), "w")
    first, last = np.array([0]), np.array([2])
    partial.add(Deltas(values=np.array([4.0]), positions=first, holders=first, examples=30), "w")
    partial.add(Deltas(values=np.array([]), positions=last[:0], holders=last, examples=30), "w")
    assert isinstance(partial.weights, np.ndarray)
    assert partial.weights.tolist() == [40, 10, 40]
    assert partial.mean().tolist() == [3.25, 1.0, 0.25]


def test_a_place_without_holder_is_zero() -> None:
    partial = Partial.empty(Scale.of(MATRIX, BASE), 3)
    here = np.array([1])
    partial.add(Deltas(values=np.array([2.0]), positions=here, holders=here), "w")
    assert partial.mean().tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", [MATRIX, VECTOR])
def test_what_is_not_finite_is_refused_by_name(bad: float, spec: TensorSpec) -> None:
    partial = Partial.empty(Scale.of(spec, BASE), 3)
    with pytest.raises(UpdateError, match=f"site-7: update is not finite in tensor '{spec.name}'"):
        partial.add(Deltas(values=np.array([0, bad, 0]), party="site-7"), spec.name)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_limit_is_sharp(sign: int) -> None:
    scale = Scale.of(MATRIX, BASE)
    limit = sign * scale.limit / 2.0**scale.bits
    partial_of([([limit * (1 - 2**-40), 0, 0], 1)])
    with pytest.raises(UpdateError, match="moved too far"):
        partial_of([([limit, 0, 0], 1)])


def test_the_scale_follows_the_largest_weight() -> None:
    def bits_of(largest: float) -> int:
        return Scale.of(MATRIX, np.array([largest, -largest, 0.0])).bits

    assert bits_of(0.0) == bits_of(0.01) == bits_of(0.9) == 35
    assert bits_of(1.0) == bits_of(1.5) == 34
    assert bits_of(1000.0) == 25
    assert bits_of(3e38) < 0


@pytest.mark.parametrize("examples", [0, -1, MAX_EXAMPLES + 1])
def test_examples_are_counted_within_bounds(examples: int) -> None:
    with pytest.raises(UpdateError, match="weigh"):
        Deltas(values=BASE, examples=examples)


def test_partials_of_different_versions_do_not_mix() -> None:
    other: NDArray[np.float32] = np.full(3, 100, np.float32)
    with pytest.raises(LocalError, match="different"):
        Partial.empty(Scale.of(MATRIX, BASE), 3).merge(Partial.empty(Scale.of(MATRIX, other), 3))
