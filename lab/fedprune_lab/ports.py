"""Ports for programs that are started here and told where to listen.

Seconds pass between the moment a port is found free and the moment a program that first imports torch listens on it.
Meanwhile the kernel may give it to anybody: to a test beside this one, to a connection that goes out. So a port is held:
bound, which keeps the kernel from giving it away, but not listened on, so that whoever knows its number can do that.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
# Whoever took one that long ago listens on it by now, or never will.
MOST_HELD = 64


class Ports:
    """`with Ports() as ports`: what `ports.take()` gives is held until the block ends."""

    def __init__(self) -> None:
        self._held: deque[socket.socket] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self) -> int:
        """A port of the loopback that nobody listens on, and that nobody gets who does not ask for it by its number."""
        holder = socket.socket()
        self._held.append(holder)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        port: int = holder.getsockname()[1]
        # Elsewhere a port that is bound cannot be listened on by others.
        if len(self._held) > MOST_HELD or sys.platform != "linux":
            self._held.popleft().close()
        return port

    def close(self) -> None:
        """Hold none any more."""
        while self._held:
            self._held.popleft().close()


def free_port() -> int:
    """A port of the loopback that nobody listens on right now."""
    with Ports() as ports:
        return ports.take()
