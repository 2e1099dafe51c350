"""Calls that are open, and how somebody's are ended: at once when a key is revoked, or when its certificate ends.

A stream can be open for days; that its caller was welcome when it began is not enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fedprune.errors import IdentityError, RoleError


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

    def cut(self, identity: str) -> int:
        """End all open calls of this identity, and let it open no more; how many there were."""
        self._revoked.add(identity)
        now_s = asyncio.get_running_loop().time()
        cut = [leash for leash in self._open.get(identity, ()) if not leash.expired()]
        for leash in cut:
            leash.reschedule(now_s)
        return len(cut)


def revoked(party: str) -> RoleError:
    """What a caller is told whose key was revoked; trying again is of no use."""
    return RoleError("the key was revoked", party=party, next_step="Ask the coordinator's operator for an invitation")


def expired(party: str) -> IdentityError:
    """What a caller is told whose certificate is over."""
    return IdentityError("the certificate has expired", party=party, next_step="The client renews it by itself")
