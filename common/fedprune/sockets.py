"""What the kernel says crossed our own TCP connections: the figure that payload bytes are held against.

Everything above the socket counts (HTTP/2 frames, headers, heartbeats, TLS), nothing below it (IP and TCP headers,
retransmits). Read by sock_diag, on Linux, without privilege, in under a millisecond. Elsewhere, and where a sandbox
forbids it, a sample is None and `unavailable` says why: nothing is ever estimated.

What is promised: every byte of a connection is counted exactly once, exact to one byte per FIN. Bytes that the
peer's kernel has not confirmed yet count in a later sample. When a connection closes between two samples the kernel
posts its last counters, and the next sample has them; if a flood of closing connections drowns that post, what
crossed since the sample before the close is missing. A client learns of its own connections by sampling while they
live, so it should sample once before it hangs up.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from fedprune import inet_diag
from fedprune.errors import LocalError

NETLINK_SOCK_DIAG = 4
SO_ATTACH_FILTER = 26
# Multicast groups 1 and 3: a TCP socket over IPv4, over IPv6, was destroyed.
DESTROYED_GROUPS = 1 << 0 | 1 << 2
# Where the two ports stand in a sock_diag message, netlink header included.
LOCAL_PORT_OFFSET, REMOTE_PORT_OFFSET = 20, 22
RECV_BYTES = 1 << 17
# One socket is far below that.
RECORD_BYTES = 1 << 12
# So many connections are asked about one by one: for all of them the kernel looks through its table of all sockets, which
# is as large as the machine's memory asks for.
FEW = 16
# A connection that takes the port of an earlier one is not missed for longer than so many samples.
LONGEST_PARTIAL = 16
ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Bytes through a connection, seen from this end; `sent` counts what the peer's kernel has confirmed."""

    sent: int = 0
    received: int = 0

    def __post_init__(self) -> None:
        if min(self.sent, self.received) < 0:
            raise LocalError("byte counters never go down", seen=self)

    def __add__(self, other: Counters) -> Counters:
        return Counters(sent=self.sent + other.sent, received=self.received + other.received)

    def since(self, earlier: Counters) -> Counters:
        """What was added after `earlier`."""
        return Counters(sent=max(0, self.sent - earlier.sent), received=max(0, self.received - earlier.received))


class SocketMeter:
    """Samples the connections that clients made to `listening_port`, or that this process made to `dialled_port`.

    Give one of the two. Make it before the first connection; not for use by two threads at once.
    """

    def __init__(self, *, listening_port: int = 0, dialled_port: int = 0) -> None:
        if bool(listening_port) == bool(dialled_port):
            raise LocalError("a socket meter watches one port", expected="listening_port or dialled_port")
        self._local, self._remote = listening_port, dialled_port
        self._last: dict[bytes, Counters] = {}
        self._drowned = False
        # How to ask for each live connection, by its cookie; whom was asked for when all were looked through, and how
        # often that may be left out from here.
        self._requests: dict[bytes, bytes] = {}
        self._asked: AbstractSet[str] = frozenset()
        self._partial_left = 0
        self._query: socket.socket | None = None
        self._events: socket.socket | None = None
        self.unavailable: str | None = None
        try:
            self._open()
        except OSError as error:
            self._give_up(f"the kernel refuses sock_diag: {error.strerror}")

    def sample(self, peers: AbstractSet[str] | None = None) -> Mapping[str, Counters] | None:
        """Bytes since the previous sample (the first: since each connection began), by peer, named as gRPC's
        `context.peer()` does; every live connection is there, and each that closed since, for the last time. What is
        not of `peers` may be left for a later sample. None where the kernel cannot tell."""
        if self._query is None or self._events is None:
            return None
        try:
            some = self._few(peers)
            live = list(self._live()) if some is None else some
            closed = list(self._closed())
        except OSError as error:
            self._give_up(f"sock_diag stopped answering: {error.strerror}")
            return None
        delta: dict[str, Counters] = {}
        for found in live + closed:
            self._account(found, delta)
        if some is None:
            self._seen(live, peers)
        elif closed or self._drowned:
            self._partial_left = 0
        self._forget({found.cookie for found in closed}, live if some is None else None)
        return delta

    def _few(self, peers: AbstractSet[str] | None) -> list[inet_diag.Record] | None:
        """The live connections, each asked about by itself; None where it takes a look at all of them: there are many, some
        may be new, or one does not answer."""
        if peers is None or not peers <= self._asked or not self._partial_left or len(self._requests) > FEW:
            return None
        self._partial_left -= 1
        found = [self._ask_for(request) for request in self._requests.values()]
        live = [one for one in found if one is not None]
        return live if len(live) == len(found) else None

    def _ask_for(self, request: bytes) -> inet_diag.Record | None:
        assert self._query is not None
        self._query.send(request)
        (kind, body), *_ = inet_diag.messages(self._query.recv(RECORD_BYTES))
        return None if kind == inet_diag.NLMSG_ERROR else inet_diag.record(body)

    def _seen(self, live: list[inet_diag.Record], peers: AbstractSet[str] | None) -> None:
        """These are all there are."""
        self._requests = {found.cookie: found.request for found in live}
        self._asked, self._partial_left = frozenset(peers or ()), LONGEST_PARTIAL

    def _forget(self, gone: set[bytes], live: list[inet_diag.Record] | None) -> None:
        """Connections that closed; where their news were drowned, all that are not in `live`."""
        if self._drowned and live is not None:
            gone |= self._last.keys() - {found.cookie for found in live}
            self._drowned = False
        for cookie in gone:
            self._last.pop(cookie, None)
            self._requests.pop(cookie, None)

    def close(self) -> None:
        """Let go of the kernel; later samples are None."""
        self._give_up("the meter was closed")

    def _account(self, found: inet_diag.Record, delta: dict[str, Counters]) -> None:
        # The kernel counts the SYN of the side that dialled as one byte.
        syn = 1 if self._remote else 0
        now = Counters(sent=max(0, found.acked - syn), received=found.received)
        fresh = now.since(self._last.get(found.cookie, Counters()))
        self._last[found.cookie] = now
        delta[found.peer] = delta.get(found.peer, Counters()) + fresh

    def _open(self) -> None:
        if sys.platform != "linux":
            self._give_up("only Linux tells the bytes of a connection")
            return
        self._query = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self._query.settimeout(ANSWER_TIMEOUT_S)
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self._events.setblocking(False)
        _only_port(self._events, self._local or self._remote, LOCAL_PORT_OFFSET if self._local else REMOTE_PORT_OFFSET)
        self._events.bind((0, DESTROYED_GROUPS))
        list(self._live())

    def _give_up(self, why: str) -> None:
        self.unavailable = self.unavailable or why
        for end in (self._query, self._events):
            if end is not None:
                end.close()
        self._query = self._events = None

    def _live(self) -> Iterator[inet_diag.Record]:
        own = _own_inodes() if self._remote else None
        for family in inet_diag.FAMILIES:
            for found in self._ask(family):
                if own is None or found.inode in own or found.cookie in self._last:
                    yield found

    def _ask(self, family: int) -> Iterator[inet_diag.Record]:
        assert self._query is not None
        self._query.send(inet_diag.dump_request(family, local_port=self._local, remote_port=self._remote))
        while True:
            for kind, body in inet_diag.messages(self._query.recv(RECV_BYTES)):
                if kind in (inet_diag.NLMSG_DONE, inet_diag.NLMSG_ERROR):
                    _check(inet_diag.error_number(body), family)
                    return
                found = inet_diag.record(body)
                if found is not None:
                    yield found

    def _closed(self) -> Iterator[inet_diag.Record]:
        """Last words of connections; those of other processes are told apart by never having been seen alive."""
        assert self._events is not None
        while True:
            try:
                datagram = self._events.recv(RECV_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._drowned = True
                continue
            for _, body in inet_diag.messages(datagram):
                found = inet_diag.record(body)
                if found is not None and (found.cookie in self._last or (self._local and found.received)):
                    yield found


def _check(number: int, family: int) -> None:
    """A kernel without IPv6 answers that it knows no such sockets; any other error is one."""
    if number and not (number == errno.ENOENT and family == socket.AF_INET6):
        raise OSError(number, os.strerror(number))


def _own_inodes() -> set[int]:
    """Inodes of the sockets this process has open."""
    inodes = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return inodes


def _only_port(events: socket.socket, port: int, offset: int) -> None:
    """Let the kernel drop what is not about our port (classic BPF), so that a busy host cannot drown our news."""
    program = struct.pack("=HBBI", 0x28, 0, 0, offset)  # load the half word at `offset`
    program += struct.pack("=HBBI", 0x15, 0, 1, port)  # equal to the port?
    program += struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF)  # yes: keep all of it
    program += struct.pack("=HBBI", 0x06, 0, 0, 0)  # no: drop
    held = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    events.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
