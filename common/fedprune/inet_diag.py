"""The kernel's sock_diag messages: how to ask which TCP connections exist, and how to read the answer. Pure.

Every TCP socket counts what it sent and got acknowledged, and what it received; `INET_DIAG_INFO` carries both
(RFC 4898's tcpEStatsAppHCThruOctetsAcked and -Received). The layouts are those of Linux' inet_diag.h, sock_diag.h
and tcp.h, which are fixed for good. A netlink library would do as well, at 0.3 s of import time for these 100 lines.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, IPPROTO_TCP, inet_ntop

from fedprune.errors import LocalError

SOCK_DIAG_BY_FAMILY = 20
FAMILIES = (AF_INET, AF_INET6)
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
INET_DIAG_INFO = 2
# Connections that may still move bytes: established, fin-wait-1 and -2, close-wait, last-ack, closing.
STATES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKET_ID = struct.Struct("!HH16s16s4x8s")  # ports, addresses (network order), interface, cookie
_MESSAGE = struct.Struct("=BBBB48sIIIII")  # family, state, timer, retransmits, socket id, ..., inode
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERRNO = struct.Struct("=i")
_TCP_INFO_BYTES = struct.Struct("=120xQQ")  # tcpi_bytes_acked, tcpi_bytes_received
_NO_COOKIE = b"\xff" * 8
_MAPPED_PREFIX = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One TCP socket at one moment. `cookie` names it for as long as the machine runs, `request` asks for it alone, as long
    as it lives; `inode` is 0 once no process holds it. `acked` counts our bytes that the peer's kernel has confirmed, with
    1 for a SYN that we sent and 1 for our FIN; `received` counts the payload that came in, in order."""

    cookie: bytes
    request: bytes
    peer: str
    inode: int
    acked: int
    received: int


def dump_request(family: int, *, local_port: int = 0, remote_port: int = 0) -> bytes:
    """Ask for every live TCP socket of a family with these ports; 0 stands for any."""
    if family not in FAMILIES:
        raise LocalError("only IPv4 and IPv6 sockets have TCP counters", seen=family)
    return _request(family, NLM_F_DUMP, _SOCKET_ID.pack(local_port, remote_port, b"", b"", _NO_COOKIE))


def _request(family: int, how: int, socket_id: bytes) -> bytes:
    body = _REQUEST.pack(family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), STATES) + socket_id
    return _HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | how, 1, 0) + body


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each netlink message in what one `recv` gave."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, _, _, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > len(datagram):
            return
        yield kind, datagram[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def error_number(body: bytes) -> int:
    """The errno that an `NLMSG_ERROR` or `NLMSG_DONE` message carries; 0 for none."""
    return -int(_ERRNO.unpack_from(body)[0]) if len(body) >= _ERRNO.size else 0


def record(body: bytes) -> Record | None:
    """Read one socket; None where the kernel gave no counters (a closed one that only waits out its time)."""
    if len(body) < _MESSAGE.size:
        return None
    family, _, _, _, socket_id, _, _, _, _, inode = _MESSAGE.unpack_from(body)
    info = _attribute(body[_MESSAGE.size :], INET_DIAG_INFO)
    if info is None or len(info) < _TCP_INFO_BYTES.size or family not in FAMILIES:
        return None
    _, port, _, address, cookie = _SOCKET_ID.unpack(socket_id)
    acked, received = _TCP_INFO_BYTES.unpack_from(info)
    peer = peer_name(address[:4] if family == AF_INET else address, port)
    request = _request(family, 0, socket_id)
    return Record(cookie=cookie, request=request, peer=peer, inode=inode, acked=acked, received=received)


def peer_name(address: bytes, port: int) -> str:
    """The name that gRPC's `context.peer()` gives this end: "ipv4:127.0.0.1:41234" or "ipv6:%5B::1%5D:41234"; an
    IPv4 address inside an IPv6 socket goes by its IPv4 name. A link-local scope is not known here and left out."""
    if len(address) == 16 and not address.startswith(_MAPPED_PREFIX):
        return f"ipv6:%5B{inet_ntop(AF_INET6, address)}%5D:{port}"
    return f"ipv4:{inet_ntop(AF_INET, address[-4:])}:{port}"


def _attribute(data: bytes, wanted: int) -> bytes | None:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return None
        if kind == wanted:
            return data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return None


def _aligned(length: int) -> int:
    return (length + 3) & ~3
