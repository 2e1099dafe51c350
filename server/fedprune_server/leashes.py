"""Calls that are open, and how somebody's are ended: at once when a key is revoked, or when its certificate ends.

A stream can be open for days; that its caller was welcome when it began is not enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fedprune.errors import IdentityError, RoleError, UnavailableError

# How long a call that is cut may take to end.
ENDING_S = 2.0


class Leashes:
    """The open calls by identity."""

    def __init__(self) -> None:
        self._open: dict[str, set[asyncio.Timeout]] = {}
        self._revoked: set[str] = set()

    @asynccontextmanager
    async def hold(self, identity: str, party: str, *, longest_s: float | None) -> AsyncIterator[None]:
        """A call of this identity is open, for `longest_s` at most. Raises `RoleError` in it when the key is revoked,
        `IdentityError` when the time is over: then a renewed certificate helps."""
        if identity in self._revoked:
            raise revoked(party)
        leash = asyncio.timeout(longest_s)
        held = self._open.setdefault(identity, set())
        try:
            async with leash:
                held.add(leash)
                try:
                    yield
                finally:
                    held.discard(leash)
                    if not held:
                        self._open.pop(identity, None)
        except TimeoutError:
            if not leash.expired():
                raise
            raise revoked(party) if identity in self._revoked else expired(party) from None

    async def cut(self, identity: str) -> int:
        """End all open calls of this identity, and let it open no more; how many there were, once they have ended."""
        self._revoked.add(identity)
        now_s = asyncio.get_running_loop().time()
        cut = [leash for leash in self._open.get(identity, ()) if not leash.expired()]
        for leash in cut:
            leash.reschedule(now_s)
        while self._open.get(identity) and asyncio.get_running_loop().time() < now_s + ENDING_S:
            await asyncio.sleep(0.001)
        return len(cut)


class Newest:
    """One open call of a kind for each client: who opens another ends the one before."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], asyncio.Timeout] = {}

    @asynccontextmanager
    async def hold(self, identity: str, method: str, party: str) -> AsyncIterator[None]:
        """This call is the newest. Raises `UnavailableError` in the one that was."""
        older = self._open.get((identity, method))
        if older is not None:
            older.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(None) as mine:
                self._open[identity, method] = mine
                try:
                    yield
                finally:
                    if self._open.get((identity, method)) is mine:
                        del self._open[identity, method]
        except TimeoutError:
            if not mine.expired():
                raise
            raise UnavailableError("goes on over another call", party=party) from None


def revoked(party: str) -> RoleError:
    """What a caller is told whose key was revoked; trying again is of no use."""
    return RoleError("the key was revoked", party=party, next_step="Ask the coordinator's operator for an invitation")


def expired(party: str) -> IdentityError:
    """What a caller is told whose certificate is over."""
    return IdentityError("the certificate has expired", party=party, next_step="The client renews it by itself")
