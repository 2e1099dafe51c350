"""The next mask: nested, exact to the weight, tie-proof, and equal to a slow and obvious ranking."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning import Floors, keep_count, magnitude_mask, magnitudes, select
from fedprune.tensor import Role, Schema, TensorSpec

NO_FLOORS = Floors(weights=0, share=0.0, connect=False)


def model(*shapes: tuple[int, ...], seed: int = 0) -> tuple[Schema, dict[str, NDArray[np.float32]]]:
    schema = Schema(tensors=tuple(TensorSpec(name=f"w{i}", shape=s) for i, s in enumerate(shapes)))
    rng = np.random.default_rng(seed)
    return schema, {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in schema}


def slow(
    weights: Mapping[str, NDArray[np.generic]], mask: Mask, keep: int, floors: Floors
) -> set[tuple[str, tuple[int, ...]]]:
    """The same by sorting a list of Python tuples: floors first, then the rank."""
    ranked = sorted(
        (
            (-abs(float(weights[n][place])), order, place, n)
            for order, n in enumerate(mask.alive)
            for place in np.ndindex(*mask.alive[n].shape)
            if mask.alive[n][place]
        ),
    )
    held: set[tuple[str, tuple[int, ...]]] = set()
    for axis in (0, 1) if floors.connect else ():
        for _, _, place, n in ranked:
            if len(place) > 1 and not any(m == n and p[axis] == place[axis] for m, p in held):
                held.add((n, place))
    while True:
        kept = set(held)
        for _, _, place, n in ranked:
            if len(kept) >= keep:
                break
            kept.add((n, place))
        short = [
            n
            for n in mask.alive
            if sum(m == n for m, _ in kept)
            < min(floors.of_layer(mask.alive[n].size), int(np.count_nonzero(mask.alive[n])))
        ]
        if not short:
            return kept
        for n in short:
            floor = min(floors.of_layer(mask.alive[n].size), int(np.count_nonzero(mask.alive[n])))
            for _, _, place, m in ranked:
                if m == n and sum(o == n for o, _ in held) < floor:
                    held.add((n, place))


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(
        st.one_of(
            st.tuples(st.integers(1, 6), st.integers(1, 6)),
            st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2)),
            st.tuples(st.integers(1, 9)),
        ),
        min_size=1,
        max_size=3,
    ),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 99),
    floors=st.builds(Floors, weights=st.integers(0, 4), share=st.sampled_from([0.0, 0.1, 0.5]), connect=st.booleans()),
)
def test_equals_the_slow_ranking(shapes: list[tuple[int, ...]], share: float, seed: int, floors: Floors) -> None:
    schema, _ = model(*shapes)
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.generic]] = {
        t.name: rng.integers(-4, 5, t.shape).astype(np.float32) for t in schema
    }  # few values: many ties
    mask = Mask(schema=schema, version=3, alive={t.name: rng.random(t.shape) < 0.8 for t in schema})
    keep = keep_count(share, mask.size)
    chosen = select(magnitudes(schema, weights), mask, keep, floors, 4, score="magnitude").mask
    assert {(n, p) for n in chosen.alive for p in zip(*np.nonzero(chosen.alive[n]), strict=True)} == slow(
        weights, mask, min(keep, mask.alive_count), floors
    )
    assert chosen.within(mask)


@pytest.mark.parametrize("density", [0.9, 0.5, 0.1, 0.03])
def test_density_is_exact_to_the_weight_and_masks_are_nested(density: float) -> None:
    schema, weights = model((96, 64), (33, 96), (8, 4, 3, 3))
    mask = magnitude_mask(weights, Mask.full(schema), 0.95, Floors(weights=4), 1)
    following = magnitude_mask(weights, mask, density, Floors(weights=4), 2)
    assert following.alive_count == keep_count(density, mask.size)
    assert following.within(mask)
    assert following.version == 2


def test_the_rank_is_global_not_by_layer() -> None:
    schema, weights = model((20, 20), (20, 20))
    weights["w1"] = weights["w1"] * np.float32(100)
    mask = magnitude_mask(weights, Mask.full(schema), 0.5, NO_FLOORS, 1)
    assert int(mask.alive["w1"].sum()) > 390


def test_floors_displace_the_weakest_of_the_others_and_are_counted() -> None:
    schema, weights = model((10, 10), (10, 10))
    weights["w0"] = weights["w0"] * np.float32(1e-3)
    chosen = select(magnitudes(schema, weights), Mask.full(schema), 60, Floors(weights=0, share=0.0), 1, score="m")
    small, large = chosen.layers
    assert chosen.mask.alive_count == 60
    assert chosen.mask.alive["w0"].any(0).all()
    assert chosen.mask.alive["w0"].any(1).all()
    assert small.floor_trimmed == small.after > 0
    assert (small.before, large.before) == (100, 100)
    assert small.after + large.after == 60
    kept = np.abs(weights["w1"][chosen.mask.alive["w1"]])
    assert large.threshold == pytest.approx(float(np.sort(kept)[large.floor_trimmed]))


def test_floors_above_the_budget_win_and_show() -> None:
    schema, weights = model((12, 12))
    chosen = select(magnitudes(schema, weights), Mask.full(schema), 5, Floors(), 1, score="m")
    assert chosen.mask.alive_count == chosen.layers[0].after >= 16
    assert chosen.layers[0].threshold is None
    assert chosen.layers[0].floor_trimmed == chosen.layers[0].after


def test_a_layer_that_was_below_its_floor_keeps_what_it_has() -> None:
    schema, weights = model((10, 10), (10, 10))
    alive = {"w0": np.zeros((10, 10), np.bool_), "w1": np.ones((10, 10), np.bool_)}
    alive["w0"][0, :3] = True
    mask = Mask(schema=schema, version=1, alive=alive)
    following = magnitude_mask(weights, mask, 0.2, Floors(), 2)
    assert (following.alive["w0"] == alive["w0"]).all()
    assert following.alive_count == 40


def test_more_than_is_alive_changes_nothing() -> None:
    schema, weights = model((10, 10))
    mask = magnitude_mask(weights, Mask.full(schema), 0.3, NO_FLOORS, 1)
    again = magnitude_mask(weights, mask, 0.8, NO_FLOORS, 2)
    assert again.fingerprint == mask.fingerprint


def test_free_tensors_and_bfloat16_patterns() -> None:
    schema = Schema(
        tensors=(
            TensorSpec(name="bias", shape=(4,), role=Role.FREE),
            TensorSpec(name="w", shape=(2, 2), dtype="bfloat16"),
        )
    )
    floats = np.array([[-3.0, 0.5], [1.0, -2.0]], np.float32)
    weights: dict[str, NDArray[np.generic]] = {"w": (floats.view("<u4") >> 16).astype("<u2"), "bias": np.zeros(4)}
    mask = magnitude_mask(weights, Mask.full(schema), 0.5, NO_FLOORS, 1)
    assert mask.alive["w"].tolist() == [[True, False], [False, True]]


def test_nothing_prunable_gives_an_empty_mask() -> None:
    schema = Schema(tensors=(TensorSpec(name="bias", shape=(4,), role=Role.FREE),))
    assert magnitude_mask({}, Mask.full(schema), 0.5, Floors(), 1).alive_count == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    schema, weights = model((4, 4))
    weights["w0"] = weights["w0"].copy()
    weights["w0"][1, 2] = bad
    with pytest.raises(LocalError, match="'w0' has values that are not finite"):
        magnitude_mask(weights, Mask.full(schema), 0.5, Floors(), 1)


def test_wrong_shapes_are_refused() -> None:
    schema, weights = model((4, 4))
    with pytest.raises(LocalError, match="do not fit"):
        magnitude_mask({"w0": weights["w0"][:3]}, Mask.full(schema), 0.5, Floors(), 1)
    with pytest.raises(LocalError, match="scores do not fit"):
        select({"w0": np.zeros((2, 8), np.float32)}, Mask.full(schema), 3, Floors(), 1, score="m")
