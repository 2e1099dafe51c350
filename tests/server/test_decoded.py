"""A small update is read once between check and fold; room is bounded, and what is not here is read again."""

from __future__ import annotations

import numpy as np
import pytest

from fedprune.codec import UpdateReader, encode_update
from fedprune.tensor import Schema, TensorSpec
from fedprune_server import decoded
from fedprune_server.decoded import Decoded

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(50, 40)),))
BYTES = 50 * 40 * 4


class Reads:
    """Counts how often a frame is read."""

    def __init__(self, seed: int) -> None:
        self.weights = np.random.default_rng(seed).standard_normal((50, 40), np.float32)
        self.count = 0

    def __call__(self) -> UpdateReader:
        self.count += 1
        return UpdateReader(encode_update({"w": self.weights}, schema=SCHEMA), schema=SCHEMA)


def values(held: Decoded, sha256: str, reads: Reads) -> np.ndarray:
    ((_, packed),) = held.open(sha256, reads).tensors()
    return packed.values.reshape(50, 40)


def test_an_update_is_read_once_until_the_round_is_folded() -> None:
    held, reads = Decoded(), Reads(1)
    for _ in range(3):
        assert np.array_equal(values(held, "a", reads), reads.weights)
    assert reads.count == 1
    held.clear()
    assert np.array_equal(values(held, "a", reads), reads.weights)
    assert reads.count == 2


def test_updates_are_told_apart_by_their_digest() -> None:
    held, one, other = Decoded(), Reads(1), Reads(2)
    values(held, "a", one)
    assert np.array_equal(values(held, "b", other), other.weights)


def test_what_finds_no_room_is_read_again() -> None:
    held, one, other = Decoded(most_bytes=BYTES), Reads(1), Reads(2)
    for _ in range(2):
        values(held, "a", one)
        values(held, "b", other)
    assert (one.count, other.count) == (1, 2)


def test_a_large_update_is_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "SMALL_VALUES", 1999)
    held, reads = Decoded(), Reads(1)
    for _ in range(2):
        assert np.array_equal(values(held, "a", reads), reads.weights)
    assert reads.count == 2
