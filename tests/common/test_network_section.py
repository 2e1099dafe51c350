"""How large a message of a download may be: as the run file says, else as the transport likes it."""

from __future__ import annotations

import pytest

from fedprune.framing import MAX_CHUNK_BYTES, SMALL_BYTES
from fedprune.network_section import NetworkSection


@pytest.mark.parametrize(
    ("asked", "encrypted", "most"),
    [(0, False, MAX_CHUNK_BYTES), (0, True, MAX_CHUNK_BYTES // 2), (4096, False, 4096), (4096, True, 4096)],
)
def test_downloads_are_cut_as_the_transport_likes_it(asked: int, encrypted: bool, most: int) -> None:
    assert NetworkSection(chunk_bytes=asked).most_chunk_bytes(encrypted=encrypted) == most


@pytest.mark.parametrize(("asked", "small"), [(0, SMALL_BYTES), (4096, 4096), (MAX_CHUNK_BYTES, SMALL_BYTES)])
def test_what_travels_in_one_message_is_no_larger_than_a_chunk_may_be(asked: int, small: int) -> None:
    assert NetworkSection(chunk_bytes=asked).small_bytes == small
