"""Quantised values: within the stated error, unbiased when a generator is given, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedprune.codec import Content, Limits, Plan, UpdateReader, account, decode_update, encode_update
from fedprune.codec.reader import HELD_VALUES
from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec

LOSSY = ("fp16", "bf16", "int8", "int4", "ternary")
Floats = NDArray[np.float32]


def there_and_back(values: Floats, plan: Plan, schema: Schema | None = None) -> Floats:
    schema = schema or Schema(tensors=(TensorSpec(name="w", shape=values.shape),))
    frame = encode_update({"w": values}, schema=schema, plan=plan, content=Content.DELTA)
    assert len(frame) <= Limits.of_update(schema).max_bytes
    return np.asarray(decode_update(frame, schema=schema)["w"], np.float32)


def noise(size: int, seed: int = 0) -> Floats:
    """Values of an update: small, rows of different size."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1e-4, size) * np.repeat(rng.lognormal(0, 1, -(-size // 64)), 64)[:size]).astype(np.float32)


@pytest.mark.parametrize(("values", "block", "levels"), [("int8", 128, 127), ("int4", 32, 7)])
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("size", [33, 128, 5000, 70_001])
def test_integers_are_off_by_at_most_a_step_of_their_block(
    values: str, block: int, levels: int, stochastic: bool, size: int
) -> None:
    sent = noise(size)
    got = there_and_back(sent, Plan(values=values, rng=np.random.default_rng(1) if stochastic else None))
    starts = np.arange(0, size, block)
    peaks = np.repeat(np.maximum.reduceat(np.abs(sent), starts), block)[:size]
    step = peaks * 2 ** (1 / 8) * 1.00001 / levels  # a scale is at most an eighth of an octave above the peak
    assert np.all(np.abs(got - sent) <= step * (1.0 if stochastic else 0.5001))


@pytest.mark.parametrize(("values", "levels"), [("bf16", 128), ("int8", 127), ("int4", 7), ("ternary", 1)])
def test_stochastic_rounding_is_unbiased(values: str, levels: int) -> None:
    rng, turns = np.random.default_rng(5), 600
    sent = (rng.uniform(0.3, 1, 700) * rng.choice((-1, 1), 700)).astype(np.float32)
    every = np.stack([there_and_back(sent, Plan(values=values, rng=rng)) for _ in range(turns)]).astype(np.float64)
    spread = every.std(axis=0) / np.sqrt(turns) + 0.002 / levels  # what rounds up once in 600 may not be seen to
    off = (every.mean(axis=0) - sent) / spread
    assert abs(off.mean()) < 5 / np.sqrt(700), "the mean over all values"
    assert np.abs(off).max() < 5, "each value"


def test_float16_keeps_the_precision_of_small_updates() -> None:
    sent = noise(5000) * np.float32(1e-4)  # about 1e-8: subnormal in bare float16, lost almost whole
    big = np.abs(sent) > 1e-4 * np.abs(sent).max()
    got = there_and_back(sent, Plan(values="fp16"))
    assert np.all(np.abs(got - sent)[big] <= np.abs(sent[big]) * 2.0**-10)


def test_bfloat16_rounds_to_nearest_even() -> None:
    sent = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0xBF807FFF], "<u4").view("<f4").repeat(9)
    got = there_and_back(sent, Plan(values="bf16")).view("<u4")[::9]
    assert [hex(word) for word in got] == ["0x3f800000", "0x3f820000", "0x3f810000", "0xbf800000"]


def test_ternary_without_a_generator_keeps_signs_and_one_scale() -> None:
    sent = noise(4000)
    got = there_and_back(sent, Plan(values="ternary"))
    assert len(np.unique(np.abs(got))) == 2
    assert np.all(got * sent >= 0)


@pytest.mark.parametrize("values", LOSSY)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.float32(2.0**127)])
def test_what_is_not_finite_is_refused_by_name(values: str, bad: float) -> None:
    sent = noise(400)
    sent[317] = bad
    with pytest.raises(LocalError, match="'w'"):
        there_and_back(sent, Plan(values=values))


@pytest.mark.parametrize("values", LOSSY)
@pytest.mark.parametrize("size", [0, 1, 31, 129, 1000])
def test_zeros_and_small_tensors(values: str, size: int) -> None:
    zeros = np.zeros(size, np.float32)
    assert not np.any(there_and_back(zeros, Plan(values=values)))
    there_and_back(noise(size), Plan(values=values, rng=np.random.default_rng(0)))


@pytest.mark.parametrize("values", LOSSY)
def test_where_loss_saves_nothing_nothing_is_lost(values: str) -> None:
    sent = np.array([0.3], np.float32)
    assert there_and_back(sent, Plan(values=values)) == sent


def test_a_wide_range_drops_only_what_is_far_below_the_largest() -> None:
    sent = np.repeat(np.float32(2.0) ** -np.arange(0, 60, 2, dtype=np.float32), 128)
    got = there_and_back(sent, Plan(values="int8"))
    kept = sent > 2.0**-31
    assert np.all(np.abs(got - sent)[kept] <= sent[kept] * 0.01)
    assert not np.any(got[sent < 2.0**-33])


def test_exact_tensors_buffers_and_other_dtypes_stay_whole() -> None:
    rng = np.random.default_rng(0)
    schema = Schema(
        tensors=(
            TensorSpec(name="w", shape=(64, 64)),
            TensorSpec(name="norm.weight", shape=(500,), role=Role.FREE),
            TensorSpec(name="mean", shape=(500,), role=Role.BUFFER),
            TensorSpec(name="half", shape=(500,), dtype="float16", role=Role.FREE),
        )
    )
    sent = {spec.name: rng.normal(size=spec.shape).astype(spec.numpy_dtype) for spec in schema}
    frame = encode_update(sent, schema=schema, plan=Plan(values="int4", exact=("norm.*",)))
    got = decode_update(frame, schema=schema)
    for name in ("norm.weight", "mean", "half"):
        assert got[name].tobytes() == sent[name].tobytes()
    assert got["w"].tobytes() != sent["w"].tobytes()
    assert account(frame)["scales"] > 0


def test_vectors_may_be_coded_otherwise() -> None:
    rng = np.random.default_rng(0)
    schema = Schema(
        tensors=(TensorSpec(name="w", shape=(64, 64)), TensorSpec(name="b", shape=(500,), role=Role.FREE)),
    )
    sent = {spec.name: rng.normal(size=spec.shape).astype(np.float32) for spec in schema}
    got = decode_update(encode_update(sent, schema=schema, plan=Plan(values="int4", vectors="lossless")), schema=schema)
    assert got["b"].tobytes() == sent["b"].tobytes()
    assert got["w"].tobytes() != sent["w"].tobytes()
    with pytest.raises(LocalError, match="int7"):
        Plan(vectors="int7")


@pytest.mark.parametrize("values", LOSSY)
def test_one_seed_gives_one_frame(values: str) -> None:
    sent, schema = {"w": noise(9000)}, Schema(tensors=(TensorSpec(name="w", shape=(9000,)),))
    frames = [
        encode_update(sent, schema=schema, plan=Plan(values=values, rng=np.random.default_rng(seed))) for seed in (1, 1)
    ]
    assert frames[0] == frames[1]


def test_a_plan_must_be_one() -> None:
    with pytest.raises(LocalError, match="int7"):
        Plan(values="int7")


floats = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100)


@settings(max_examples=150, deadline=None)
@given(st.lists(floats, max_size=300), st.sampled_from(LOSSY), st.booleans())
def test_any_finite_values_come_back_finite_and_no_larger(sent: list[float], values: str, stochastic: bool) -> None:
    array = np.array(sent, np.float32)
    got = there_and_back(array, Plan(values=values, rng=np.random.default_rng(0) if stochastic else None))
    assert np.all(np.isfinite(got))
    assert np.abs(got).max(initial=0) <= np.abs(array).max(initial=0) * 1.1


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_values_go_to_their_places_and_leave_the_others_alone(values: str) -> None:
    # a segment of its own, some that share one, and then more values than are held before they are put to their places
    sizes = {"large": (200, 900), "none": (0, 3), "small": (40, 50), "whole": (30, 40), "empty": (7, 0), "last": (3, 3)}
    sizes |= {f"larger {number}": (500, 900) for number in range(3)}
    schema = Schema(tensors=tuple(TensorSpec(name=name, shape=shape) for name, shape in sizes.items()))
    rng = np.random.default_rng(0)
    assert sum(0.3 * rows * columns for rows, columns in sizes.values()) > HELD_VALUES
    alive = {name: rng.random(shape) < (1 if name == "whole" else 0.3) for name, shape in sizes.items()}
    mask = Mask(schema=schema, version=1, alive=alive)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in sizes.items()}
    frame = encode_update(arrays, schema=schema, plan=values, mask=mask)
    out = {name: np.full(shape, np.float32(7)) for name, shape in sizes.items()}
    reader = UpdateReader(frame, schema=schema, mask=mask)
    reader.into(out)
    for spec, packed in reader:
        assert np.array_equal(out[spec.name][alive[spec.name]], packed.values)
        assert (out[spec.name][~alive[spec.name]] == 7).all()
