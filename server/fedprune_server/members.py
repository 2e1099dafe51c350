"""Who is there: identities, their index, their open work stream and what they last said.

A member is a client that has joined this process; its index comes from the store and stays with its identity for
good. Its connection comes and goes. Messages for a member wait in its outbound queue, which is bounded by what the
rounds ever have to say to one client at a time: who lets it fill up is cut off, and harms nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fedprune.errors import IdentityError, SignatureError
from fedprune.tensor import Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.saying import NO_STEPS, Said, Steps

MAX_QUEUED = 64

log = logging.getLogger("fedprune.members")


@dataclass(slots=True, kw_only=True)
class Member:
    """One client. `queue` is None while its work stream is closed; `cut` breaks that stream off; `index` is its place
    in the ledger."""

    index: int
    identity: str
    task_digest: str
    frozen_digest: str
    name: str = ""
    peers: set[str] = field(default_factory=set)
    queue: asyncio.Queue[Said | None] | None = None
    cut: Callable[[], object] = lambda: None
    last_seen: float = 0.0
    # What it last worked on over the stream that is open: it holds this version, unless it has been started anew.
    holds: Version | None = None
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
        return f"client {self.index} ({self.name or self.identity})"

    @property
    def names(self) -> dict[str, object]:
        """How the log names it."""
        return {"client": self.index, "identity": self.identity}

    def send(self, message: pb.CoordinatorMessage, steps: Steps = NO_STEPS) -> None:
        """Queue a message for the work stream; without one it is dropped: the next greeting says it all again."""
        if self.queue is None:
            return
        if self.queue.qsize() >= MAX_QUEUED:
            log.warning("does not read its work stream: cut off", extra=self.names)
            self.cut()
            return
        self.queue.put_nowait(Said(message, steps))


@dataclass(slots=True)
class Members:
    """All members of this process, by identity and by index."""

    by_identity: dict[str, Member] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.by_identity.values())

    def __getitem__(self, index: int) -> Member:
        return next(m for m in self if m.index == index)

    def __len__(self) -> int:
        return len(self.by_identity)

    def knows(self, identity: str) -> bool:
        """Whether this client has joined this process."""
        return identity in self.by_identity

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
        known = self.by_identity.setdefault(newcomer.identity, newcomer)
        # The value stays the same one: an older stream that ends later must see that a newer took its place.
        known.index, known.task_digest, known.last_seen = newcomer.index, newcomer.task_digest, newcomer.last_seen
        return known

    def tell(self, index: int, message: pb.CoordinatorMessage, steps: Steps = NO_STEPS) -> None:
        """Queue a message for the client with this index, if it is here."""
        for member in self:
            if member.index == index:
                member.send(message, steps)

    @property
    def connected(self) -> list[Member]:
        """The members whose work stream is open."""
        return [m for m in self if m.connected]
