"""Masks and places: every coding on every shape, as small as its bound, chosen by what it weighs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedprune.codec import Limits, Plan, Positions, decode_mask, decode_mask_set, encode_mask, encode_mask_set
from fedprune.codec.base import Shape
from fedprune.codec.chooser import entropy_bytes
from fedprune.codec.container import parse
from fedprune.codec.grid import is_gathered
from fedprune.codec.places import Places
from fedprune.errors import LocalError, VersionError
from fedprune.mask import Mask, count_ones
from fedprune.tensor import Schema, TensorSpec

Bits = NDArray[np.bool_]
WIDE = Limits(max_bytes=1 << 24, max_elements=1 << 24)
ALONE = (Positions.BITMAP, Positions.CSR, Positions.GAP, Positions.RICE, Positions.GRID)


def codings(frame: bytes) -> list[Positions]:
    return [segment.positions for segment in parse(memoryview(frame)).segments]


def random_bits(shape: tuple[int, ...], density: float, seed: int = 0) -> Bits:
    return np.asarray(np.random.default_rng(seed).random(shape) < density)


def schema_of(**shapes: tuple[int, ...]) -> Schema:
    return Schema(tensors=tuple(TensorSpec(name=name, shape=shape) for name, shape in shapes.items()))


def mask_of(schema: Schema, density: float, seed: int = 0) -> Mask:
    alive = {t.name: random_bits(t.shape, density, seed + i) for i, t in enumerate(schema)}
    return Mask(schema=schema, version=1, alive=alive)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.floats(0, 1), st.sampled_from((None, *ALONE)))
def test_every_coding_on_every_shape(shape: list[int], density: float, coding: Positions | None) -> None:
    bits = random_bits(tuple(shape), density)
    frame = encode_mask(bits, plan=Plan(positions=coding))
    assert np.array_equal(decode_mask(frame, shape=bits.shape, limits=WIDE), bits)


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 3_000_000), max_size=40), st.sampled_from((Positions.GAP, Positions.RICE)))
def test_long_gaps(places: set[int], coding: Positions) -> None:
    bits = np.zeros(3_000_001, np.bool_)
    bits[list(places)] = True
    frame = encode_mask(bits, plan=Plan(positions=coding))
    assert np.array_equal(decode_mask(frame, shape=bits.shape, limits=WIDE), bits)


@pytest.mark.parametrize("density", [0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.002, 0.001])
@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_random_masks_cost_two_percent_over_their_entropy(density: float, size: int) -> None:
    bits = random_bits((size,), density)
    bound = entropy_bytes(size, int(np.count_nonzero(bits)))
    assert len(encode_mask(bits)) <= 1.02 * bound + 64


@pytest.mark.parametrize("density", [0.0, 0.0001, 0.3, 0.97, 1.0])
def test_a_mask_never_outgrows_its_bitmap(density: float) -> None:
    bits = random_bits((300, 70), density)
    assert len(encode_mask(bits)) <= 21_000 // 8 + 64


def test_full_and_empty_masks_cost_a_header() -> None:
    assert codings(encode_mask(np.ones((40, 50), np.bool_))) == [Positions.ALL]
    assert len(encode_mask(np.ones((4000, 500), np.bool_))) < 48
    assert len(encode_mask(np.zeros((4000, 500), np.bool_))) < 64


def test_more_columns_than_sixteen_bits() -> None:
    bits = random_bits((3, 70_000), 0.01)
    frame = encode_mask(bits, plan=Plan(positions=Positions.CSR))
    assert np.array_equal(decode_mask(frame, shape=bits.shape), bits)


def test_channel_masks_cost_two_bits_a_line() -> None:
    rng, alive, lines = np.random.default_rng(2), {}, 0
    schema = schema_of(a=(64, 3, 3, 3), b=(128, 64, 3, 3), c=(256, 128, 1, 1), d=(100, 256))
    for spec in schema:
        rows, columns = rng.random(spec.shape[0]) < 0.45, rng.random(spec.shape[1]) < 0.45
        outer = rows[:, None] & columns[None, :]
        alive[spec.name] = np.broadcast_to(outer.reshape(outer.shape + (1,) * (len(spec.shape) - 2)), spec.shape).copy()
        lines += sum(spec.shape[:2])
    mask = Mask(schema=schema, version=1, alive=alive)
    frame = encode_mask_set(mask)
    assert set(codings(frame)) == {Positions.ROWS_COLUMNS}
    assert len(frame) <= lines / 8 + 64
    assert decode_mask_set(frame, schema=schema).fingerprint == mask.fingerprint


def test_a_diff_costs_what_changed() -> None:
    schema = schema_of(a=(300, 400), b=(50, 50))
    base = mask_of(schema, 0.1)
    alive = {name: bits & ~random_bits(bits.shape, 0.02, 7) for name, bits in base.alive.items()}
    nested = Mask(schema=schema, version=2, alive=alive)
    frame = encode_mask_set(nested, base=base)
    dropped = base.alive_count - nested.alive_count
    assert len(frame) <= 1.2 * entropy_bytes(base.alive_count, dropped) + 100
    assert decode_mask_set(frame, schema=schema, base=base).fingerprint == nested.fingerprint


@pytest.mark.parametrize("coding", [None, Positions.XOR, Positions.PARTS])
@pytest.mark.parametrize("change", [0.0, 0.01, 0.5])
def test_masks_against_masks(coding: Positions | None, change: float) -> None:
    schema = schema_of(a=(30, 40), b=(7,), c=(0, 3))
    base = mask_of(schema, 0.2)
    alive = {name: bits ^ random_bits(bits.shape, change, 9) for name, bits in base.alive.items()}
    mask = Mask(schema=schema, version=2, alive=alive)
    frame = encode_mask_set(mask, base=base, plan=Plan(positions=coding))
    assert decode_mask_set(frame, schema=schema, base=base).fingerprint == mask.fingerprint


def test_another_base_is_refused() -> None:
    schema = schema_of(a=(30, 40))
    base, mask = mask_of(schema, 0.2), mask_of(schema, 0.2, seed=1)
    frame = encode_mask_set(mask, base=base)
    for wrong in (None, mask):
        with pytest.raises(VersionError, match="base mask"):
            decode_mask_set(frame, schema=schema, base=wrong)
    with pytest.raises(VersionError, match="mask version"):
        decode_mask_set(frame, schema=schema, base=base, version=5)
    with pytest.raises(LocalError, match="another model"):
        encode_mask_set(mask, base=mask_of(schema_of(a=(30, 41)), 0.2))


def test_single_masks_against_a_base() -> None:
    base = random_bits((200, 90), 0.1)
    bits = base & ~random_bits((200, 90), 0.01, 3)
    frame = encode_mask(bits, base=base)
    assert len(frame) < len(encode_mask(bits)) / 3
    assert np.array_equal(decode_mask(frame, shape=bits.shape, base=base), bits)


def test_a_mask_is_boolean() -> None:
    with pytest.raises(LocalError, match="boolean"):
        encode_mask(np.zeros((3, 3), np.int8))


def test_a_slow_link_pays_for_bytes_and_a_fast_one_for_time() -> None:
    bits = random_bits((1 << 20,), 0.1)
    slow, fast = (encode_mask(bits, plan=Plan(link_bytes_per_s=rate)) for rate in (1e4, 1e9))
    assert codings(slow) == [Positions.GAP]
    assert codings(fast) == [Positions.BITMAP]
    assert len(slow) < len(fast)


def gathered(rows: int, columns: int, seed: int = 0) -> Bits:
    """Places as the largest values of an outer product with noise leave them."""
    rng = np.random.default_rng(seed)
    shares = np.outer(rng.lognormal(0, 1, rows), rng.lognormal(0, 1, columns))
    return np.asarray(rng.random((rows, columns)) < np.minimum(0.1 * shares / shares.mean(), 0.9))


def test_places_that_gather_in_rows_and_columns_cost_less_than_random_ones() -> None:
    bits = gathered(300, 400)
    bound = entropy_bytes(bits.size, int(np.count_nonzero(bits)))
    frame = encode_mask(bits)
    assert codings(frame) == [Positions.GRID]
    assert len(frame) < 0.88 * bound
    assert len(frame) < 0.95 * len(encode_mask(bits, plan=Plan(positions=Positions.GAP)))
    assert np.array_equal(decode_mask(frame, shape=bits.shape), bits)


def test_small_tensors_share_one_grid() -> None:
    schema = schema_of(a=(200, 220), b=(250, 100, 2), c=(300,))
    alive = {"a": gathered(200, 220), "b": gathered(250, 200, 1).reshape(250, 100, 2), "c": random_bits((300,), 0.5)}
    mask = Mask(schema=schema, version=1, alive=alive)
    frame = encode_mask_set(mask)
    assert codings(frame) == [Positions.GRID]
    assert all(np.array_equal(decode_mask_set(frame, schema=schema).alive[name], bits) for name, bits in alive.items())


def test_random_places_are_not_tried_as_a_grid() -> None:
    assert not is_gathered(Places.of_bits(random_bits((512, 512), 0.1).reshape(-1)), [Shape(512, 512)])


def test_a_grid_of_few_places_is_not_worth_its_time_but_to_a_slow_link() -> None:
    bits = gathered(100, 120)
    assert is_gathered(Places.of_bits(bits.reshape(-1)), [Shape(100, 120)])
    assert codings(encode_mask(bits)) != [Positions.GRID]
    assert codings(encode_mask(bits, plan=Plan(link_bytes_per_s=1e3))) == [Positions.GRID]


@pytest.mark.parametrize("size", [0, 1, 7, 64, 1000, 4099])
def test_packed_bits_are_counted(size: int) -> None:
    bits = random_bits((size,), 0.3)
    assert count_ones(np.packbits(bits)) == np.count_nonzero(bits)


def test_a_tensor_that_is_whole_has_no_places() -> None:
    schema = schema_of(a=(3, 5), b=(4, 4))
    mask = Mask(schema=schema, version=1, alive={"a": np.ones((3, 5), np.bool_), "b": np.eye(4, dtype=np.bool_)})
    assert mask.places("a") is None
    places = mask.places("b")
    assert places is not None
    assert places.tolist() == [0, 5, 10, 15]
