"""Blobs cut and put together again: whole, resumed anywhere, and refused before memory when they cannot be right."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.errors import DigestError, LimitError, LocalError, RemoteError
from fedprune.framing import MAX_CHUNK_BYTES, QUICK_S, SLOW_S, SMALLEST_CHUNK_BYTES, Assembler, Chunks, Seal, seal

PARTY = "client 3"
blobs = st.binary(max_size=2000)


def chunks(data: bytes, *, offset: int = 0, chunk_bytes: int) -> list[bytes]:
    """The rest of a blob over a link that takes each chunk at once."""
    cut = Chunks(data, offset=offset, first=chunk_bytes, most=chunk_bytes)
    return list(iter(lambda: cut.take(0.0), b""))


def put_together(announced: Seal, pieces: list[bytes], max_bytes: int = 1 << 20) -> bytes:
    blob = Assembler(announced, max_bytes=max_bytes, party=PARTY)
    for piece in pieces:
        blob.feed(piece)
    return bytes(blob.finish())


@given(blobs, st.integers(1, 300))
def test_what_is_cut_is_put_together(data: bytes, chunk_bytes: int) -> None:
    pieces = chunks(data, chunk_bytes=chunk_bytes)
    assert all(0 < len(piece) <= chunk_bytes for piece in pieces)
    assert put_together(seal(data), pieces) == data


@given(blobs, st.integers(1, 300), st.data())
def test_a_break_anywhere_is_resumed_at_the_offset(data: bytes, chunk_bytes: int, draw: st.DataObject) -> None:
    blob = Assembler(seal(data), max_bytes=len(data), party=PARTY)
    arrived = draw.draw(st.integers(0, len(chunks(data, chunk_bytes=chunk_bytes))))
    for piece in chunks(data, chunk_bytes=chunk_bytes)[:arrived]:
        blob.feed(piece)
    for piece in chunks(data, offset=blob.offset, chunk_bytes=draw.draw(st.integers(1, 300))):
        blob.feed(piece)
    assert blob.complete
    assert bytes(blob.finish()) == data


@given(st.binary(min_size=1, max_size=500), st.data())
def test_a_single_wrong_bit_is_seen(data: bytes, draw: st.DataObject) -> None:
    at, bit = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.integers(0, 7))
    wrong = bytearray(data)
    wrong[at] ^= 1 << bit
    with pytest.raises(DigestError, match=r"client 3: digest does not match .*The transfer is given up"):
        put_together(seal(data), [bytes(wrong)])


@given(st.binary(min_size=1, max_size=500), st.data())
def test_a_stream_that_ends_early_is_named(data: bytes, draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(DigestError, match=f"client 3: stream ended early .got {cut} bytes, expected {len(data)}"):
        put_together(seal(data), [data[:cut]])


def test_more_than_was_announced_is_refused_when_it_comes() -> None:
    blob = Assembler(seal(b"12345"), max_bytes=100, party=PARTY)
    blob.feed(b"123")
    with pytest.raises(LimitError, match=r"client 3: sent more bytes than announced .got 6, expected 5"):
        blob.feed(b"456")
    assert blob.offset == 3


def test_a_chunk_above_the_limit_is_refused_even_where_it_fits() -> None:
    blob = Assembler(Seal(size=4 << 20, sha256="0" * 64), max_bytes=8 << 20, party=PARTY)
    with pytest.raises(LimitError):
        blob.feed(bytes(MAX_CHUNK_BYTES + 1))


def test_an_announcement_above_the_limit_takes_no_memory() -> None:
    announced = Seal(size=1 << 40, sha256="0" * 64)
    tracemalloc.start()
    with pytest.raises(LimitError, match=r"client 3: announced more bytes than allowed .*at most 1000"):
        Assembler(announced, max_bytes=1000, party=PARTY)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_what_is_put_together_cannot_be_changed() -> None:
    blob = Assembler(seal(b"abc"), max_bytes=3, party=PARTY)
    blob.feed(b"abc")
    assert blob.finish().readonly


def test_nothing_is_a_blob_too() -> None:
    assert chunks(b"", chunk_bytes=10) == []
    assert put_together(seal(b""), []) == b""
    assert seal(b"").sha256 == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("sha256", ["", "a" * 63, "a" * 65, "G" * 64, "A" * 64, "é" * 64])
def test_a_seal_is_64_hex_digits(sha256: str) -> None:
    with pytest.raises(RemoteError, match="SHA-256"):
        Seal(size=1, sha256=sha256)


def test_a_seal_has_a_size() -> None:
    with pytest.raises(RemoteError, match="negative"):
        Seal(size=-1, sha256="0" * 64)


@pytest.mark.parametrize("chunk_bytes", [0, -1, MAX_CHUNK_BYTES + 1])
def test_chunks_keep_to_the_limit(chunk_bytes: int) -> None:
    with pytest.raises(LocalError, match="chunk size"):
        chunks(b"abc", chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("offset", [-1, 4])
def test_an_offset_outside_is_the_other_sides_fault(offset: int) -> None:
    with pytest.raises(RemoteError, match="offset outside the blob"):
        chunks(b"abc", offset=offset, chunk_bytes=1)


def sizes(took_s: list[float], *, first: int, most: int, data: bytes = bytes(4 << 20)) -> list[int]:
    """How large the chunks are when each takes so long."""
    cut, now_s, seen = Chunks(data, first=first, most=most), 100.0, list[int]()
    for each_s in (*took_s, 0.0):
        seen.append(len(cut.take(now_s)))
        now_s += each_s
    return seen


def test_chunks_grow_where_the_link_takes_them_at_once() -> None:
    assert sizes([0.0] * 3, first=1000, most=3000) == [1000, 2000, 3000, 3000]
    assert sizes([0.0] * 2, first=5000, most=3000) == [3000] * 3


def test_chunks_shrink_on_a_slow_link_to_the_smallest() -> None:
    small = SMALLEST_CHUNK_BYTES
    assert sizes([SLOW_S + 1] * 3, first=4 * small, most=MAX_CHUNK_BYTES) == [4 * small, 2 * small, small, small]
    assert sizes([SLOW_S + 1] * 2, first=1000, most=1000) == [1000] * 3


def test_chunks_stay_as_they_are_in_between() -> None:
    assert sizes([1.1 * QUICK_S, 0.9 * SLOW_S], first=1000, most=3000) == [1000] * 3


@given(blobs, st.integers(1, 300), st.integers(1, 300), st.lists(st.floats(0, 10), max_size=40))
def test_whatever_the_pace_nothing_is_lost(data: bytes, first: int, most: int, took_s: list[float]) -> None:
    cut, now_s, pieces = Chunks(data, first=first, most=most), 0.0, list[bytes]()
    while piece := cut.take(now_s):
        assert len(piece) <= most
        pieces.append(piece)
        now_s += took_s[len(pieces) % len(took_s)] if took_s else 0.0
    assert b"".join(pieces) == data
