"""Who is there: identities, their index, their open work stream and what they last said.

A member is a client that has joined this process; its index comes from the store and stays with its identity for
good. Its connection comes and goes. Messages for a member wait in its outbound queue, which is bounded by what the
rounds ever have to say to one client at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from fedprune.errors import IdentityError, LimitError, SignatureError
from fedprune.v1 import coordinator_pb2 as pb

MAX_QUEUED = 64


@dataclass(slots=True, kw_only=True)
class Member:
    """One client. `queue` is None while its work stream is closed; `index` is its place in the ledger."""

    index: int
    identity: str
    task_digest: str
    frozen_digest: str
    peers: set[str] = field(default_factory=set)
    queue: asyncio.Queue[pb.CoordinatorMessage | None] | None = None
    last_seen: float = 0.0
    state: str = "joined"
    step: int = 0
    steps: int = 0

    @property
    def connected(self) -> bool:
        """Whether its work stream is open."""
        return self.queue is not None

    @property
    def party(self) -> str:
        """How messages name it."""
        return f"client {self.index} ({self.identity})"

    def send(self, message: pb.CoordinatorMessage) -> None:
        """Queue a message for the work stream; without one it is dropped: the next greeting says it all again."""
        if self.queue is None:
            return
        if self.queue.qsize() >= MAX_QUEUED:
            raise LimitError("does not read its work stream", party=self.party, seen=self.queue.qsize())
        self.queue.put_nowait(message)


@dataclass(slots=True)
class Members:
    """All members of this process, by identity and by index."""

    by_identity: dict[str, Member] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.by_identity.values())

    def __getitem__(self, index: int) -> Member:
        return next(m for m in self if m.index == index)

    def of(self, identity: str) -> Member:
        """The member with this identity. Raises `IdentityError` when it has not joined this process."""
        member = self.by_identity.get(identity)
        if member is None:
            raise IdentityError("has not joined", party=identity, next_step="Join first; the client does so by itself")
        return member

    def admit(self, newcomer: Member, *, own_digest: str) -> Member:
        """Take in a client, or one that comes back; its frozen parameters must equal the coordinator's."""
        if newcomer.frozen_digest != own_digest:
            raise SignatureError(
                "parameters that do not travel (requires_grad is off) differ from the coordinator's",
                party=newcomer.party,
                seen=newcomer.frozen_digest[:16] or "none",
                expected=own_digest[:16] or "none",
                next_step="Load them from the same file on both sides, or seed them, in model()",
            )
        known = self.by_identity.get(newcomer.identity)
        if known is not None:
            newcomer.queue, newcomer.peers = known.queue, known.peers
        self.by_identity[newcomer.identity] = newcomer
        return newcomer

    @property
    def connected(self) -> list[Member]:
        """The members whose work stream is open."""
        return [m for m in self if m.connected]
