"""What goes in comes out, for every dtype, shape and layout that a model can have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.codec import (
    Content,
    Limits,
    Plan,
    Positions,
    UpdateReader,
    account,
    decode_mask,
    decode_mask_set,
    decode_update,
    encode_mask,
    encode_mask_set,
    encode_update,
)
from fedprune.codec.chooser import entropy_bytes
from fedprune.codec.planes import BLOCK_VALUES, FEW_WORDS
from fedprune.errors import LocalError, VersionError
from fedprune.mask import Mask
from fedprune.tensor import NUMPY_DTYPES, Role, Schema, TensorSpec, Version

Arrays = dict[str, np.ndarray]


def same(left: Arrays, right: Arrays) -> bool:
    """Bit for bit, NaN and -0.0 included."""
    return list(left) == list(right) and all(
        left[n].shape == right[n].shape and left[n].tobytes() == right[n].tobytes() for n in left
    )


def network() -> Schema:
    return Schema(
        tensors=(
            TensorSpec(name="conv", shape=(16, 8, 3, 3)),
            TensorSpec(name="conv.bias", shape=(16,), role=Role.FREE),
            TensorSpec(name="mean", shape=(16,), role=Role.BUFFER),
            TensorSpec(name="steps", shape=(), dtype="int64", role=Role.COUNTER),
            TensorSpec(name="half", shape=(7, 5), dtype="float16", role=Role.FREE),
            TensorSpec(name="brain", shape=(6, 4), dtype="bfloat16", role=Role.FREE),
            TensorSpec(name="double", shape=(3, 3), dtype="float64"),
            TensorSpec(name="flags", shape=(9,), dtype="bool", role=Role.COUNTER),
            TensorSpec(name="empty", shape=(0, 4)),
            TensorSpec(name="fc", shape=(600, 300)),
        )
    )


def fill(schema: Schema, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for spec in schema:
        if spec.dtype == "bool":
            arrays[spec.name] = rng.random(spec.shape) < 0.5
        elif spec.dtype in ("float32", "float64", "float16"):
            arrays[spec.name] = np.asarray(rng.normal(0, 0.05, spec.shape)).astype(spec.numpy_dtype)
        else:
            arrays[spec.name] = rng.integers(0, 100, spec.shape).astype(spec.numpy_dtype)
    return arrays


def random_mask(schema: Schema, density: float, seed: int = 0, version: int = 3) -> Mask:
    rng = np.random.default_rng(seed)
    alive = {t.name: np.asarray(rng.random(t.shape) < density) for t in schema.prunable}
    return Mask(schema=schema, version=version, alive=alive)


def drop(arrays: Arrays, mask: Mask) -> None:
    """Positive zeros off the mask, as a receiver fills in."""
    for name, bits in mask.alive.items():
        arrays[name] = np.where(bits, arrays[name], np.zeros((), arrays[name].dtype))


@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("with_base", [False, True])
def test_masked_weights_come_back_bit_for_bit(density: float, with_base: bool) -> None:
    schema, mask = network(), random_mask(network(), density)
    arrays, base = fill(schema, 1), fill(schema, 2)
    drop(arrays, mask)
    held = base if with_base else None
    data = encode_update(arrays, schema=schema, mask=mask, base=held, version=Version(model=4, mask=3))
    assert same(decode_update(data, schema=schema, mask=mask, base=held), arrays)
    assert sum(account(data).values()) == len(data)


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9, 1.0])
def test_without_a_mask_the_zeros_stay_at_home(zeros: float) -> None:
    schema, arrays = network(), fill(network(), 1)
    drop(arrays, random_mask(schema, 1 - zeros))
    data = encode_update(arrays, schema=schema)
    assert same(decode_update(data, schema=schema), arrays)
    assert len(data) <= (1 - zeros) * schema.dense_bytes + schema.parameters / 8 + 1000


@pytest.mark.parametrize("density", [0.3, 0.1, 0.01])
def test_places_of_an_update_cost_two_percent_over_their_entropy(density: float) -> None:
    rng, schema = np.random.default_rng(0), Schema(tensors=(TensorSpec(name="w", shape=(400, 300)),))
    sent = (rng.normal(size=(400, 300)) * (rng.random((400, 300)) < density)).astype(np.float32)
    bound = entropy_bytes(120_000, int(np.count_nonzero(sent)))
    for plan, arrays in (("lossless", sent + np.float32(0.0)), ("int8", sent)):  # -0.0 + 0.0 is 0.0
        spent = account(encode_update({"w": arrays}, schema=schema, plan=plan, content=Content.DELTA))["positions"]
        assert spent <= 1.02 * bound + 32


def test_under_a_shared_mask_no_positions_travel() -> None:
    schema, mask, arrays = network(), random_mask(network(), 0.1), fill(network(), 1)
    drop(arrays, mask)
    assert "positions" not in account(encode_update(arrays, schema=schema, mask=mask))


def test_packed_values_of_a_shared_mask_have_no_indices() -> None:
    schema, mask, arrays = network(), random_mask(network(), 0.1), fill(network(), 1)
    reader = UpdateReader(encode_update(arrays, schema=schema, mask=mask), schema=schema, mask=mask)
    seen = {spec.name: packed for spec, packed in reader}
    assert list(seen) == [spec.name for spec in schema]
    assert all(packed.indices is None for packed in seen.values())
    assert np.array_equal(seen["fc"].values, arrays["fc"].reshape(-1)[mask.indices("fc")])


def test_sparse_inside_the_mask_says_which() -> None:
    schema, mask, arrays = network(), random_mask(network(), 0.2), fill(network(), 1)
    drop(arrays, mask)
    thinner = random_mask(schema, 0.1, seed=9)
    drop(arrays, thinner)
    data = encode_update(arrays, schema=schema, mask=mask, plan=Plan(sparse=True), content=Content.DELTA)
    assert same(decode_update(data, schema=schema, mask=mask), arrays)
    packed = {spec.name: packed for spec, packed in UpdateReader(data, schema=schema, mask=mask)}["fc"]
    assert packed.indices is not None
    assert np.array_equal(packed.indices, np.flatnonzero(arrays["fc"]))
    assert np.array_equal(packed.values, arrays["fc"].reshape(-1)[packed.indices])


def test_same_input_same_bytes() -> None:
    schema, mask, arrays = network(), random_mask(network(), 0.1), fill(network(), 1)
    first, second = (encode_update(arrays, schema=schema, mask=mask) for _ in range(2))
    assert first == second


def test_nan_infinity_and_negative_zero_survive() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(8,)),))
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, -1.0, 3.4e38], "<f4")
    for base in (None, {"w": special[::-1].copy()}):
        data = encode_update({"w": special}, schema=schema, base=base)
        assert same(decode_update(data, schema=schema, base=base), {"w": special})


@pytest.mark.parametrize("size", [FEW_WORDS - 1, FEW_WORDS, BLOCK_VALUES + 1])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "int64", "int16", "uint8"])
def test_few_and_many_values_of_every_width_survive(dtype: str, size: int) -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(size,), dtype=dtype, role=Role.BUFFER),))
    rng = np.random.default_rng(0)
    width = schema["w"].numpy_dtype.itemsize
    # little in the highest byte, as in exponents, so that planes pay
    planes = rng.integers(0, [256] * (width - 1) + [9], (size, width)).astype(np.uint8)
    arrays = {"w": planes.reshape(-1).view(schema["w"].numpy_dtype)}
    frame = encode_update(arrays, schema=schema)
    assert len(frame) < planes.nbytes
    assert same(decode_update(frame, schema=schema), arrays)


def test_foreign_layouts_are_brought_into_form() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(40, 30)),))
    array = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    for layout in (array.astype(">f4"), np.asfortranarray(array), np.repeat(array, 2, axis=1)[:, ::2]):
        assert same(decode_update(encode_update({"w": layout}, schema=schema), schema=schema), {"w": array})


def test_wrong_arrays_are_refused_by_name() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(4,)),))
    for wrong in ({}, {"w": np.zeros(5, np.float32)}, {"w": np.zeros(4, np.float64)}, {"w": np.zeros(4, np.int32)}):
        with pytest.raises(LocalError, match="'w'"):
            encode_update(wrong, schema=schema)


def test_another_mask_model_or_base_is_noticed() -> None:
    schema, mask = network(), random_mask(network(), 0.1)
    arrays, base = fill(schema, 1), fill(schema, 1)
    base["fc"] = base["fc"] + np.float32(1e-6)
    data = encode_update(arrays, schema=schema, mask=mask, base=base)
    with pytest.raises(VersionError, match="mask"):
        decode_update(data, schema=schema, mask=random_mask(schema, 0.1, seed=5), base=base)
    with pytest.raises(VersionError, match="mask"):
        decode_update(data, schema=schema, base=base, limits=Limits.of_update(schema))
    with pytest.raises(VersionError, match="base"):
        decode_update(data, schema=schema, mask=mask, base=fill(schema, 2))
    with pytest.raises(VersionError, match="base"):
        decode_update(data, schema=schema, mask=mask)
    other = schema.with_roles([Role.FREE if t.name == "conv" else t.role for t in schema])
    with pytest.raises(VersionError, match="model"):
        decode_update(data, schema=other, base=base)


def test_the_receiver_may_lend_its_arrays() -> None:
    schema, mask, arrays = network(), random_mask(network(), 0.1), fill(network(), 1)
    drop(arrays, mask)
    lent = fill(schema, 7)
    got = decode_update(encode_update(arrays, schema=schema, mask=mask), schema=schema, mask=mask, out=lent)
    assert all(got[name] is lent[name] for name in lent)
    assert same(lent, arrays)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.4, 0.99, 1.0])
def test_mask_sets_come_back_with_their_version(density: float) -> None:
    mask = random_mask(network(), density, version=11)
    got = decode_mask_set(encode_mask_set(mask), schema=network(), version=11)
    assert got.version == 11
    assert got.fingerprint == mask.fingerprint


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 0), (5, 70_000), (4, 3, 3, 3)])
@pytest.mark.parametrize("coding", [None, Positions.BITMAP, Positions.CSR])
def test_single_masks_of_any_shape(shape: tuple[int, ...], coding: Positions | None) -> None:
    bits = np.asarray(np.random.default_rng(1).random(shape) < 0.3)
    limits = Limits(max_bytes=500_000, max_elements=bits.size)
    assert np.array_equal(decode_mask(encode_mask(bits, plan=Plan(positions=coding)), shape=shape, limits=limits), bits)


dtypes = st.sampled_from(sorted(NUMPY_DTYPES))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bits_of_any_dtype_survive_and_never_outgrow_dense(data: st.DataObject) -> None:
    specs: list[TensorSpec] = []
    arrays: Arrays = {}
    base: Arrays = {}
    for index in range(data.draw(st.integers(0, 4))):
        shape = tuple(data.draw(st.lists(st.integers(0, 6), max_size=3)))
        dtype = data.draw(dtypes)
        spec = TensorSpec(name=f"t{index}", shape=shape, dtype=dtype, role=data.draw(st.sampled_from(list(Role)[:3])))
        specs.append(spec)
        for held in (arrays, base):
            raw = data.draw(st.binary(min_size=spec.nbytes, max_size=spec.nbytes))
            array = np.frombuffer(raw, np.uint8) if dtype != "bool" else np.frombuffer(raw, np.uint8) % 2
            held[spec.name] = array.view(spec.numpy_dtype).reshape(shape)
    schema = Schema(tensors=tuple(specs))
    held_base = base if data.draw(st.booleans()) else None
    mask = random_mask(schema, data.draw(st.floats(0, 1))) if data.draw(st.booleans()) else None
    if mask:
        drop(arrays, mask)
    frame = encode_update(arrays, schema=schema, mask=mask, base=held_base)
    assert same(decode_update(frame, schema=schema, mask=mask, base=held_base), arrays)
    assert len(frame) <= Limits.of_update(schema, mask).max_bytes
