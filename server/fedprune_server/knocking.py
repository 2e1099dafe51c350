"""Who knocks and does not get in: handshakes are limited by address, before a key is used for them.

gRPC tells nobody of a handshake that failed. It does ask for the certificate to show at the beginning of each one, and
at that moment the connection is among this process's open files: so it is counted against its address there, and the
count is given back when a call of that connection is let in. An address with too many that were not is hung up on.

Linux only (/proc). Elsewhere, and for connections from very many addresses, the limit on all connections remains.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from fedprune_server.limits import TokenBucket

# Handshakes without a call that was let in, which one address may have begun: so many at once (a hospital's clients may all
# come from one address after a restart), and so many a second in the long run.
KNOCKS_AT_ONCE, KNOCKS_PER_S = 100.0, 1.0
# Addresses that are remembered; whoever comes from more of them than that is a matter for a firewall.
MOST_ADDRESSES = 4096
# So long a connection that is to be ended is waited with, for others.
TOGETHER_S = 0.05
OPEN_FILES = Path("/proc/self/fd")

Peer = tuple[str, int]

log = logging.getLogger("fedprune.service")


@dataclass(slots=True)
class Knocks:
    """The connections of one port. gRPC's threads and the event loop use it: a lock keeps them apart."""

    clock: Callable[[], float] = time.monotonic
    port: int = 0
    hung_up: int = 0
    # Each connection, and whether it is still held against its address.
    _open: dict[Peer, bool] = field(default_factory=dict)
    _buckets: OrderedDict[str, TokenBucket] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begun(self) -> None:
        """A handshake begins on this port, or several do."""
        if not self.port or not OPEN_FILES.exists():
            return
        with self._lock, contextlib.ExitStack() as stack:
            found = {peer: stack.enter_context(connection) for peer, connection in _connections(self.port)}
            for peer in found.keys() - self._open.keys():
                if self._counted(peer[0]) > 0:
                    self.hung_up += 1
                    with contextlib.suppress(OSError):
                        found[peer].shutdown(socket.SHUT_RDWR)
            # Whose call was let in stays known as such for as long as it is connected.
            self._open = {peer: self._open.get(peer, True) for peer in found}

    def let_in(self, peer: str) -> None:
        """A call of this connection, as gRPC names it, was let in: its handshake is not held against its address."""
        known = read_peer(peer)
        with self._lock:
            if known is not None and self._open.get(known):
                self._open[known] = False
                if (bucket := self._buckets.get(known[0])) is not None:
                    bucket.take(-1.0, self.clock())

    def _counted(self, address: str) -> float:
        """Count a handshake; seconds that this address is too early."""
        bucket = self._buckets.setdefault(address, TokenBucket(KNOCKS_PER_S, KNOCKS_AT_ONCE))
        self._buckets.move_to_end(address)
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        too_early_s = bucket.take(0.0, self.clock())
        if too_early_s <= 0:
            bucket.take(1.0, self.clock())
        return too_early_s


class Hanging:
    """Ends connections of one port, by gRPC's names for them, and every call on them. Those of one moment are ended
    together, in a thread: to find one of them among the open files takes as long as to find them all."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._peers: set[str] = set()
        self._ending: asyncio.Task[None] | None = None

    def up(self, peer: str) -> None:
        """End this connection, soon. In the event loop."""
        if peer not in self._peers:
            log.info("hung up on who is refused and comes again at once", extra={"peer": peer})
        self._peers.add(peer)
        if self._ending is None or self._ending.done():
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        while self._peers:
            await asyncio.sleep(TOGETHER_S)
            peers, self._peers = self._peers, set()
            await asyncio.to_thread(_shut_down, {read_peer(peer) for peer in peers}, self._port)


def _shut_down(peers: set[Peer | None], port: int) -> None:
    for peer, connection in _connections(port) if OPEN_FILES.exists() else ():
        with connection, contextlib.suppress(OSError):
            if peer in peers:
                connection.shutdown(socket.SHUT_RDWR)


def read_peer(text: str) -> Peer | None:
    """Address and port of gRPC's name for a connection: "ipv4:10.0.0.1:5000", "ipv6:%5B::1%5D:5000"."""
    address, _, port = unquote(text).partition(":")[2].rpartition(":")
    return (_plain(address.strip("[]")), int(port)) if port.isdecimal() else None


@lru_cache(MOST_ADDRESSES)
def _plain(address: str) -> str:
    """One writing for each address: IPv4 inside IPv6 is IPv4, zones are left out."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(getattr(found, "ipv4_mapped", None) or found)


def _connections(port: int) -> Iterator[tuple[Peer, socket.socket]]:
    """The connections that came in at this port, each as a handle of our own: gRPC may close its own meanwhile."""
    ours: set[int] = set()
    for name in os.listdir(OPEN_FILES):
        if int(name) in ours:  # the number that the listing itself had
            continue
        try:
            if not os.readlink(OPEN_FILES / name).startswith("socket:"):
                continue
            connection = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # closed since we looked
            continue
        ours.add(connection.fileno())
        try:
            mine, peer = connection.getsockname(), connection.getpeername()
        except OSError:  # it listens, or is over
            connection.close()
            continue
        if isinstance(mine, tuple) and mine[1] == port:
            yield (_plain(peer[0]), peer[1]), connection
        else:
            connection.close()
