"""How far a pull has come: whole parts are applied at once, the open one is kept over a break."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fedprune import wire
from fedprune.errors import RemoteError, UnavailableError
from fedprune.framing import Assembler, Seal
from fedprune.parts import Part
from fedprune.tensor import Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.replica import Replica

Apply = Callable[[Part, memoryview], Awaitable[None]]


class Download:
    """One pull of `want`, over as many connections as it takes."""

    def __init__(self, run_id: str, replica: Replica, want: Version, apply: Apply) -> None:
        self._run_id = run_id
        self._replica = replica
        self._want = want
        self._apply = apply
        self._part: Part | None = None
        self._blob: Assembler | None = None

    def request(self) -> pb.PullRequest:
        """Ask for what is missing now."""
        request = pb.PullRequest(run_id=self._run_id, want=wire.version_message(self._want))
        if self._replica.version is not None:
            request.held.CopyFrom(wire.version_message(self._replica.version))
        if self._part is not None and self._blob is not None:
            request.offset, request.part_sha256 = self._blob.offset, self._part.digest
        return request

    async def take(self, reply: pb.PullReply, party: str) -> None:
        """The next message of the stream."""
        if reply.WhichOneof("content") == "header":
            self._announce(wire.part(reply.header, party=party), party)
        elif self._blob is None:
            raise RemoteError("bytes before their announcement", party=party)
        else:
            self._blob.feed(reply.chunk)
        await self._apply_whole()

    async def _apply_whole(self) -> None:
        """Apply the open part, if all of it is here."""
        if self._blob is not None and self._part is not None and self._blob.complete:
            part, data = self._part, self._blob.finish()
            self._part = self._blob = None
            await self._apply(part, data)

    async def take_step(self, step: pb.Step, party: str) -> None:
        """A part that came with the work. One that does not follow what we hold is let go: it can be pulled."""
        part = wire.part(step.header, party=party)
        if part.base is not None and part.base == self._replica.version:
            self._announce(part, party).feed(step.data)
            await self._apply_whole()

    def _announce(self, part: Part, party: str) -> Assembler:
        """What collects the part: what has come of it before stays."""
        if self._blob is None or self._part is None or self._part.digest != part.digest:
            announced = Seal(size=part.size, sha256=part.digest)
            self._part, self._blob = part, Assembler(announced, max_bytes=self._replica.max_bytes(part), party=party)
        return self._blob

    def check_complete(self, party: str) -> None:
        """Raise `UnavailableError` when the stream ended before the version was there."""
        if self._replica.version != self._want:
            raise UnavailableError(
                "the transfer ended early", party=party, seen=self._replica.version, expected=self._want
            )
