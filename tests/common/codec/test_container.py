"""What holds for every frame: streams, pools of small tensors, memory, and the account of bytes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedprune.codec import (
    Content,
    Plan,
    Positions,
    UpdateReader,
    Values,
    account,
    encode_mask_set,
    encode_update,
    iter_update,
)
from fedprune.codec.base import Cursor, Shape, varint
from fedprune.codec.container import Coded, Header, parse, short_digest, write
from fedprune.codec.entropy import BLOCK_SYMBOLS, Mode, pack, unpack
from fedprune.codec.grouping import POOL_ELEMENTS, SMALL_ELEMENTS, group
from fedprune.codec.places import Places
from fedprune.codec.positions import CODINGS
from fedprune.codec.room import FrameRoom, Room
from fedprune.errors import DecodeError, LocalError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec, Version

MLP = Schema(
    tensors=(
        TensorSpec(name="0.weight", shape=(256, 64)),
        TensorSpec(name="0.bias", shape=(256,), role=Role.FREE),
        TensorSpec(name="1.weight", shape=(192, 256)),
        TensorSpec(name="1.bias", shape=(192,), role=Role.FREE),
        TensorSpec(name="2.weight", shape=(10, 192), role=Role.FREE),
        TensorSpec(name="2.bias", shape=(10,), role=Role.FREE),
    )
)


@given(st.integers(0, (1 << 63) - 1))
def test_numbers_come_back(number: int) -> None:
    cursor = Cursor(memoryview(varint(number)))
    assert cursor.varint() == number
    assert cursor.left == 0


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 9, b"\x80" * 9 + b"\x01"])
def test_numbers_have_one_form(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Cursor(memoryview(data)).varint()


@pytest.mark.parametrize("size", [0, 1, 31, 32, BLOCK_SYMBOLS - 1, BLOCK_SYMBOLS, BLOCK_SYMBOLS + 1, 300_000])
@pytest.mark.parametrize("symbols", [1, 2, 17, 256])
def test_streams_come_back(size: int, symbols: int) -> None:
    data = np.random.default_rng(size).integers(0, symbols, size).astype(np.uint8)
    cursor = Cursor(memoryview(b"".join(pack(data))))
    assert np.array_equal(unpack(cursor, size), data)
    cursor.done()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=40))
def test_streams_are_near_their_order_0_entropy(weights: list[int]) -> None:
    p = np.array(weights) / sum(weights)
    data = np.random.default_rng(0).choice(len(p), 40_000, p=p).astype(np.uint8)
    counts = np.bincount(data)
    entropy = -np.sum(counts[counts > 0] * np.log2(counts[counts > 0] / data.size)) / 8
    # a Huffman code has whole bits: up to 0.086 + p(most frequent) bits a symbol over entropy (Gallager 1978)
    assert sum(map(len, pack(data))) <= entropy + (0.086 + p.max()) * data.size / 8 + 150


def entropy_of(symbols: NDArray[np.uint8]) -> float:
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / symbols.size
    return float(-np.sum(shares * np.log2(shares)) * symbols.size / 8)


@pytest.mark.parametrize("size", [32_768, 40_001, BLOCK_SYMBOLS + 33_003])
@pytest.mark.parametrize("mode", [Mode.PAIRS, Mode.HALVES])
def test_narrow_and_flat_streams_come_back_within_two_percent_of_their_entropy(mode: Mode, size: int) -> None:
    rng = np.random.default_rng(size)
    narrow = rng.normal(254, 2, size) + 60 * (rng.random(size) < 0.01)
    flat = rng.normal(128, 62, size)  # beyond a byte it comes in again at the other end
    data = (narrow if mode is Mode.PAIRS else flat).astype(np.int64).astype(np.uint8)
    coded = b"".join(pack(data))
    assert coded[0] == mode
    assert len(coded) <= 1.02 * entropy_of(data)
    cursor = Cursor(memoryview(coded))
    assert np.array_equal(unpack(cursor, size), data)
    cursor.done()


def test_what_is_written_in_a_room_stays_until_it_is_used_again() -> None:
    room = Room()
    room.restart(8)
    room.ahead(3)[:] = 7
    room.put([b"ab"])
    room.advance(1)
    assert bytes(room.written)[:2] == b"ab"
    assert len(room.written) == 3
    room.restart(2)
    assert len(room.written) == 0


@pytest.mark.parametrize("before", [b"", b"ab", b"abc"])
@pytest.mark.parametrize("expected_bytes", [0, 4, 64])
def test_a_frame_stays_where_it_was_written_moves_or_grows(before: bytes, expected_bytes: int) -> None:
    room, whole = FrameRoom(expected_bytes), b""
    for number in range(3):
        room.bytes_before = 3
        room.restart(8)
        room.ahead(8)[:] = number
        room.advance(5)
        body = room.written
        for part in (before, body, b"end"):
            room.append(part)
        whole += before + bytes([number] * 5) + b"end"
    del body, part
    assert room.finish() == whole


def test_a_large_frame_is_the_one_that_grows() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(3 << 20,)),))
    arrays = {"w": np.random.default_rng(0).normal(size=3 << 20).astype(np.float32)}
    parts = [bytes(part) for part in iter_update(arrays, schema=schema)]
    assert b"".join(parts) == encode_update(arrays, schema=schema)


def test_small_tensors_of_a_kind_share_a_group_and_large_ones_stand_alone() -> None:
    groups = group(["f", "f", "i", "f", "f"], [10, 20, 3, SMALL_ELEMENTS + 1, 30])
    assert groups.owner == (0, 0, 1, 2, 0)
    assert groups.members == ((0, 1, 4), (2,), (3,))


def test_a_pool_is_closed_before_it_grows_large() -> None:
    groups = group(["f"] * 5, [SMALL_ELEMENTS] * 5)
    pooled = [sum(SMALL_ELEMENTS for _ in members) for members in groups.members]
    assert max(pooled) <= POOL_ELEMENTS


def test_an_update_of_68_thousand_parameters_has_less_than_150_bytes_of_overhead() -> None:
    rng = np.random.default_rng(0)
    arrays = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in MLP}
    mask = Mask(schema=MLP, version=1, alive={t.name: rng.random(t.shape) < 0.1 for t in MLP.prunable})
    for plan in ("lossless", "int8", "int4"):
        kinds = account(encode_update(arrays, schema=MLP, mask=mask, plan=plan, version=Version(model=9, mask=1)))
        assert kinds["manifest"] <= 100


def test_parts_are_the_frame() -> None:
    arrays = {t.name: np.ones(t.shape, np.float32) for t in MLP}
    parts = [bytes(part) for part in iter_update(arrays, schema=MLP)]
    assert len(parts) > 2
    assert b"".join(parts) == encode_update(arrays, schema=MLP)


def test_the_reader_gives_versions_and_content() -> None:
    arrays = {t.name: np.ones(t.shape, np.float32) for t in MLP}
    version = Version(shape=1, model=1000, mask=7)
    reader = UpdateReader(
        encode_update(arrays, schema=MLP, version=version, content=Content.DELTA), schema=MLP, mask=None
    )
    assert reader.version == version
    assert reader.content is Content.DELTA


def test_a_mask_is_no_content_of_an_update() -> None:
    with pytest.raises(LocalError, match="mask"):
        encode_update({}, schema=Schema(tensors=()), content=Content.MASK)


def test_accounts_name_masks_and_add_up() -> None:
    mask = Mask(
        schema=MLP, version=1, alive={t.name: np.random.default_rng(1).random(t.shape) < 0.1 for t in MLP.prunable}
    )
    frame = encode_mask_set(mask)
    kinds = account(frame)
    assert set(kinds) == {"mask", "manifest"}
    assert sum(kinds.values()) == len(frame)
    with pytest.raises(DecodeError):
        account(frame[:30])


def test_an_empty_model_is_a_frame_too() -> None:
    frame = encode_update({}, schema=Schema(tensors=()))
    assert list(UpdateReader(frame, schema=Schema(tensors=()))) == []
    assert parse(memoryview(frame)).segments == ()


def frame_of(schema: Schema, segment: Coded) -> bytes:
    header = Header(
        content=Content.DELTA,
        version=Version(),
        schema=short_digest(schema.digest),
        mask=None,
        base=None,
        owner=(0,),
        segments=1,
    )
    return b"".join(write(header, [segment]))


def test_more_than_two_to_the_thirty_one_elements_are_addressed_and_not_allocated() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(1 << 20, 1 << 13)),))
    places = Places.of_indices(np.array([5, (1 << 32) + 7]), 1 << 33)
    body = np.array([1.5, -2.0], "<f4").tobytes()
    for coding in (Positions.GAP, Positions.RICE):
        parts = CODINGS[coding].encode(places, [Shape.of(schema["w"])])
        segment = Coded(positions=coding, values=Values.RAW, count=2, places=parts, body=[body])
        ((_, packed),) = UpdateReader(frame_of(schema, segment), schema=schema)
        assert packed.indices is not None
        assert packed.indices.tolist() == [5, (1 << 32) + 7]
        assert packed.values.tolist() == [1.5, -2.0]
    dense = Coded(positions=Positions.ALL, values=Values.RAW, count=1 << 33, places=[], body=[body])
    with pytest.raises(DecodeError, match="raw values"):
        UpdateReader(frame_of(schema, dense), schema=schema)


LARGE = Schema(tensors=tuple(TensorSpec(name=str(i), shape=(1 << 20,)) for i in range(3)))
TENSOR_BYTES = 4 << 20


def peak_of(work: Callable[[], object]) -> tuple[int, object]:
    """The most memory that was taken beside what was there before, and what came out."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("values", ["lossless", "difference", "bf16", "int8", "int4", "ternary"])
def test_memory_stays_within_a_tensor_and_a_half_beside_the_output(values: str, density: float) -> None:
    rng = np.random.default_rng(0)
    mask = Mask(schema=LARGE, version=1, alive={t.name: rng.random(t.shape) < density for t in LARGE})
    arrays = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in LARGE}
    base = {name: array * np.float32(1.01) for name, array in arrays.items()} if values == "difference" else None
    plan = Plan(values="lossless" if base else values, rng=rng)
    mask.apply(arrays)
    for name in mask.alive:
        mask.indices(name)  # kept with the mask, for all frames
    peak, frame = peak_of(lambda: encode_update(arrays, schema=LARGE, mask=mask, base=base, plan=plan))
    assert isinstance(frame, bytes)
    assert peak <= 1.5 * TENSOR_BYTES + len(frame)
    out = {name: np.zeros_like(array) for name, array in arrays.items()}
    peak, _ = peak_of(lambda: UpdateReader(frame, schema=LARGE, mask=mask, base=base).into(out))
    assert peak <= 1.5 * TENSOR_BYTES


def test_places_that_travel_cost_no_more_memory_than_the_tensor_and_its_indices() -> None:
    rng = np.random.default_rng(0)
    arrays = {t.name: rng.normal(size=t.shape).astype(np.float32) * (rng.random(t.shape) < 0.1) for t in LARGE}
    peak, frame = peak_of(lambda: encode_update(arrays, schema=LARGE, plan="int8"))
    assert isinstance(frame, bytes)
    assert peak <= 1.5 * TENSOR_BYTES + len(frame)
    out = {name: np.zeros_like(array) for name, array in arrays.items()}
    peak, _ = peak_of(lambda: UpdateReader(frame, schema=LARGE).into(out))
    assert peak <= 1.5 * TENSOR_BYTES
