"""The messages against bytes laid out by hand from the kernel's headers, and against damage."""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, AF_UNIX

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune import inet_diag
from fedprune.errors import LocalError

LOOPBACK_V6 = bytes(15) + b"\x01"
MAPPED = bytes(10) + b"\xff\xff\x7f\x00\x00\x01"


def message(family: int, address: bytes, *, acked: int = 5, received: int = 7, info: bool = True) -> bytes:
    """A socket as the kernel describes it: inet_diag_msg, then a foreign attribute, then INET_DIAG_INFO."""
    ports = struct.pack("!HH", 7400, 41234)
    socket_id = ports + bytes(16) + address.ljust(16, b"\0") + bytes(4) + b"COOKIE78"
    body = struct.pack("=BBBB", family, 1, 0, 0) + socket_id + struct.pack("=IIIII", 0, 0, 0, 1000, 4711)
    body += struct.pack("=HHBxxx", 5, 8, 1)
    if info:
        body += struct.pack("=HH", 4 + 136, 2) + bytes(120) + struct.pack("=QQ", acked, received)
    return body


def framed(*bodies: bytes, kind: int = inet_diag.SOCK_DIAG_BY_FAMILY) -> bytes:
    """Netlink messages one after the other, padded to four bytes."""
    parts = [struct.pack("=IHHII", 16 + len(b), kind, 2, 1, 99) + b + bytes(-len(b) % 4) for b in bodies]
    return b"".join(parts)


def test_a_socket_is_read_with_its_counters_and_the_name_that_grpc_gives_its_peer() -> None:
    found = inet_diag.record(message(AF_INET, b"\x7f\x00\x00\x01"))
    assert found is not None
    assert (found.cookie, found.peer, found.inode) == (b"COOKIE78", "ipv4:127.0.0.1:41234", 4711)
    assert (found.acked, found.received) == (5, 7)


def test_a_record_asks_for_its_own_socket() -> None:
    body = message(AF_INET, b"\x7f\x00\x00\x01")
    found = inet_diag.record(body)
    assert found is not None
    length, kind, flags, _, _ = struct.unpack_from("=IHHII", found.request)
    assert (length, kind, flags) == (len(found.request), inet_diag.SOCK_DIAG_BY_FAMILY, inet_diag.NLM_F_REQUEST)
    assert found.request[16:18] == bytes((AF_INET, 6))
    assert found.request[24:] == body[4:52]


@pytest.mark.parametrize(
    ("family", "address", "peer"),
    [
        (AF_INET6, LOOPBACK_V6, "ipv6:%5B::1%5D:41234"),
        (AF_INET6, MAPPED, "ipv4:127.0.0.1:41234"),
        (AF_INET6, bytes.fromhex("20010db8000000000000000000000001"), "ipv6:%5B2001:db8::1%5D:41234"),
    ],
)
def test_ipv6_peers(family: int, address: bytes, peer: str) -> None:
    found = inet_diag.record(message(family, address))
    assert found is not None
    assert found.peer == peer


def test_a_socket_without_counters_is_none() -> None:
    assert inet_diag.record(message(AF_INET, b"\x7f\x00\x00\x01", info=False)) is None


def test_a_socket_of_another_family_is_none() -> None:
    assert inet_diag.record(message(AF_UNIX, b"")) is None


def test_a_datagram_holds_several_messages_of_odd_length() -> None:
    datagram = framed(b"abcde", b"xyz")
    assert list(inet_diag.messages(datagram)) == [(20, b"abcde"), (20, b"xyz")]


def test_a_truncated_message_ends_the_datagram() -> None:
    assert list(inet_diag.messages(framed(b"abcd", b"efgh")[:-1])) == [(20, b"abcd")]


def test_the_request_asks_for_tcp_with_both_ports_and_any_address() -> None:
    request = inet_diag.dump_request(AF_INET, local_port=7400, remote_port=9)
    assert len(request) == 72
    assert struct.unpack_from("=IHHII", request) == (72, 20, 0x301, 1, 0)
    assert struct.unpack_from("=BBB", request, 16) == (AF_INET, 6, 2)
    assert struct.unpack_from("!HH", request, 24) == (7400, 9)


def test_a_family_without_tcp_is_refused() -> None:
    with pytest.raises(LocalError, match="only IPv4 and IPv6"):
        inet_diag.dump_request(AF_UNIX)


def test_errors_are_positive_numbers_and_an_empty_end_is_none() -> None:
    assert inet_diag.error_number(struct.pack("=i", -2)) == 2
    assert inet_diag.error_number(b"") == 0


@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_fail(data: bytes) -> None:
    bodies = [body for _, body in inet_diag.messages(data)]
    assert sum(map(len, bodies)) <= len(data)
    assert all(is_record_or_none(body) for body in (*bodies, data))


def is_record_or_none(body: bytes) -> bool:
    found = inet_diag.record(body)
    return found is None or (len(found.cookie) == 8 and min(found.inode, found.acked, found.received) >= 0)


@given(st.integers(0, 400), st.binary(max_size=8))
def test_no_damage_to_a_good_message_makes_the_reader_fail(cut: int, junk: bytes) -> None:
    good = message(AF_INET6, MAPPED)
    assert is_record_or_none(good)
    assert is_record_or_none(good[:cut] + junk + good[cut + len(junk) :])
