"""What the coordinator says on a work stream: a message, and with an assignment the steps to its version.

The steps are the same for all clients of a round, and nearly all that is said. So they are put into bytes once, and
follow each client's own assignment: where bytes of one message follow those of another, protobuf reads both as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedprune import wire
from fedprune.parts import Part
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.store import Blobs


@dataclass(frozen=True, slots=True)
class Steps:
    """Parts that go out with the work, their contents, and all of them as a message `encoded` to follow an assignment."""

    parts: tuple[Part, ...] = ()
    contents: tuple[bytes, ...] = ()
    encoded: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the contents."""
        return sum(part.size for part in self.parts)


NO_STEPS = Steps()


def small_steps(parts: Sequence[Part], blobs: Blobs, *, most_bytes: int) -> Steps:
    """The parts, if all of them together are of at most `most_bytes`; else none: they are to be pulled."""
    if sum(part.size for part in parts) > most_bytes:
        return NO_STEPS
    contents = tuple(bytes(blobs.open(part.digest)) for part in parts)
    headers = [wire.part_header(part, number=number, count=len(parts)) for number, part in enumerate(parts)]
    steps = [pb.Step(header=header, data=data) for header, data in zip(headers, contents, strict=True)]
    encoded = pb.CoordinatorMessage(assignment=pb.Assignment(steps=steps)).SerializeToString()
    return Steps(tuple(parts), contents, encoded)


@dataclass(frozen=True, slots=True)
class Said:
    """One message; `steps` only with an assignment."""

    message: pb.CoordinatorMessage
    steps: Steps = NO_STEPS

    def encoded(self) -> bytes:
        """Its bytes on the wire."""
        return self.message.SerializeToString() + self.steps.encoded
