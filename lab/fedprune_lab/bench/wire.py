"""Cables between hosts of this machine: TAP devices whose frames pass through lines of a rate and a delay.

The kernel's own delay (netem) is not everywhere; this needs /dev/net/tun and root, and nothing else. One process is
the switch: a frame from a client goes up its line and out at the coordinator, one from the coordinator goes to the
client it names. It keeps a trace of every frame it delivered, with the time it came. Frames that would wait too long are dropped, as routers do.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from fedprune_lab.link import BACKLOG_S, Line, Link

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 2048
# Longest that a frame waits for its turn on a line.
QUEUE_S = 0.5
MAC_BYTES = 6
UP, DOWN = 0, 1

TRACE = np.dtype([("sent_s", "f8"), ("time_s", "f8"), ("client", "u1"), ("way", "u1"), ("bytes", "u2")])


def open_tap(name: str) -> int:
    """A TAP device of this name in the current network namespace; gives its descriptor, good wherever it moves."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def mac(number: int) -> bytes:
    """The address of a host, 0 the coordinator's; locally administered."""
    return bytes([2, 0, 0, 0, 0, number])


@dataclass(slots=True)
class Switch:
    """Joins the coordinator's TAP to those of the clients, each behind its line. `links[0]` is the coordinator's."""

    taps: Sequence[int]
    links: Sequence[Link]
    accepted: int = 0
    dropped: int = 0
    _under_way: list[tuple[float, int, int, int, int, float, bytes]] = field(default_factory=list)
    _trace: list[tuple[float, float, int, int, int]] = field(default_factory=list)
    _lines: list[tuple[Line, Line]] = field(default_factory=list)

    def run(self, control: Connection) -> None:
        """Carry frames until something is heard from `control`."""
        self._lines = [(Line(link), Line(link)) for link in self.links]
        poll = select.epoll()
        poll.register(control.fileno(), select.EPOLLIN)
        hosts = {tap: number for number, tap in enumerate(self.taps)}
        for tap in self.taps:
            poll.register(tap, select.EPOLLIN)
        while True:
            for ready, _ in poll.poll(self._pause_s()):
                if ready == control.fileno():
                    return
                self._take(hosts[ready])
            self._give()

    def keep(self, path: Path) -> None:
        """Write the trace of what was delivered."""
        np.save(path, np.array(self._trace, TRACE))

    def _pause_s(self) -> float:
        return max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else 1.0

    def _take(self, host: int) -> None:
        with suppress(BlockingIOError):
            while True:
                self._route(host, os.read(self.taps[host], FRAME_BYTES))

    def _route(self, host: int, frame: bytes) -> None:
        other = 0 if host else frame[MAC_BYTES - 1]
        client, way = (host, UP) if host else (other, DOWN)
        if other >= len(self.taps) or frame[: MAC_BYTES - 1] != mac(0)[: MAC_BYTES - 1]:
            return  # broadcasts: nobody here has a question
        now_s, size = time.monotonic(), len(frame)
        first, second = self._lines[host][UP], self._lines[other][DOWN]
        if first.wait_s(now_s) > QUEUE_S - BACKLOG_S or second.wait_s(now_s) > QUEUE_S - BACKLOG_S:
            self.dropped += 1
            return
        self.accepted += 1
        due_s = second.arrival_s(first.arrival_s(now_s, size), size)
        heapq.heappush(self._under_way, (due_s, self.accepted, other, client, way, now_s, frame))

    def _give(self) -> None:
        now_s = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now_s:
            _, _, other, client, way, sent_s, frame = heapq.heappop(self._under_way)
            os.write(self.taps[other], frame)
            self._trace.append((sent_s, now_s, client, way, len(frame)))
