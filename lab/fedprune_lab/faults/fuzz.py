"""Messages and streams that are a little or very wrong, each drawn from a seed and a number, so that it can be had again.

Whatever is sent belongs to one open assignment of one client, whose update can never count: its weights are not
finite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION
from fedprune.tensor import Schema, Version
from fedprune.v1 import coordinator_pb2 as pb

SERVICE = "/fedprune.v1.Coordinator/"
# How a call may end.
DEFINED = frozenset(
    {
        "OK",
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "RESOURCE_EXHAUSTED",
        "DATA_LOSS",
        "ALREADY_EXISTS",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
    }
)


@dataclass(frozen=True, slots=True)
class Case:
    """One call: its method and the bytes of its messages."""

    method: str
    messages: tuple[bytes, ...]

    @property
    def declared_bytes(self) -> int:
        """What it weighs."""
        return sum(len(message) for message in self.messages)


def mutated(data: bytes, chance: Random) -> bytes:
    """The bytes, a little or very wrong."""
    wrong = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(wrong) + 1)
        match chance.randrange(6):
            case 0 if wrong:
                wrong[at - 1] ^= 1 << chance.randrange(8)
            case 1:
                del wrong[at:]
            case 2:
                wrong[at:at] = chance.randbytes(chance.randrange(1, 12))
            case 3:
                wrong[at : at + 10] = b"\xff" * 9 + b"\x01"
            case 4:
                wrong[at:at] = wrong[: chance.randrange(len(wrong) + 1)]
            case _:
                del wrong[at : at + chance.randrange(1, 9)]
    return bytes(wrong)


class Attacks:
    """Cases against one open assignment, with a whole `frame` to begin from."""

    def __init__(self, schema: Schema, work: Assignment, frame: bytes) -> None:
        self.schema, self.work, self.frame = schema, work, frame
        self._kinds: tuple[Callable[[Random], Case], ...] = (
            self._join,
            self._pull,
            self._status,
            self._stream,
            self._announcement,
            self._order,
            self._sealed_frame,
            self._wrong_bytes,
        )

    def case(self, seed: int, number: int) -> Case:
        """The case of this number."""
        chance = Random(f"{seed}/{number}")
        return chance.choice(self._kinds)(chance)

    def _begin(self, frame: bytes, **more: Any) -> bytes:
        begin = pb.Begin(
            assignment_id=self.work.assignment_id,
            run_id=self.work.run_id,
            version=wire.version_message(self.work.version),
            size=len(frame),
            sha256=hashlib.sha256(frame).hexdigest(),
            examples=10,
            **more,
        )
        return pb.SubmitRequest(begin=begin).SerializeToString()

    def _join(self, chance: Random) -> Case:
        request = pb.JoinRequest(codec_version=CODEC_VERSION, tensors=wire.schema_message(self.schema))
        return Case("Join", (mutated(request.SerializeToString(), chance),))

    def _pull(self, chance: Random) -> Case:
        request = pb.PullRequest(
            run_id=self.work.run_id,
            want=wire.version_message(self.work.version),
            held=wire.version_message(Version(model=chance.randrange(3))),
            offset=chance.choice((0, 1, 10**6, 2**63, 2**64 - 1)),
            part_sha256="0" * 64,
        )
        return Case("Pull", (mutated(request.SerializeToString(), chance),))

    def _status(self, chance: Random) -> Case:
        return Case("Status", (chance.randbytes(chance.randrange(30)),))

    def _stream(self, chance: Random) -> Case:
        begin = pb.SubmitRequest.FromString(self._begin(self.frame)).begin
        said = (
            pb.ClientMessage(heartbeat=pb.Heartbeat()),
            pb.ClientMessage(progress=pb.Progress(assignment_id=chance.randrange(4), step=1, steps=2)),
            pb.ClientMessage(failure=pb.Failure(assignment_id=2**64 - 1, reason="x" * chance.randrange(2000))),
            pb.ClientMessage(result=pb.Result(begin=begin, data=self.frame)),
        )
        return Case("Work", tuple(mutated(m.SerializeToString(), chance) for m in said))

    def _announcement(self, chance: Random) -> Case:
        begin = self._begin(self.frame, metrics={"loss": 0.5})
        return Case("Submit", (mutated(begin, chance), *_chunks(chance, self.frame)))

    def _order(self, chance: Random) -> Case:
        """The right messages, some of them missing, twice or elsewhere."""
        messages = [self._begin(self.frame, eager=chance.random() < 0.5), *_chunks(chance, self.frame)]
        return Case("Submit", tuple(chance.choices(messages, k=chance.randrange(len(messages) + 3))))

    def _sealed_frame(self, chance: Random) -> Case:
        """A wrong frame under its right digest: what the decoder itself has to refuse."""
        frame = mutated(self.frame, chance)
        return Case("Submit", (self._begin(frame), *_chunks(chance, frame)))

    def _wrong_bytes(self, chance: Random) -> Case:
        return Case("Submit", (self._begin(self.frame), *_chunks(chance, mutated(self.frame, chance))))


def _chunks(chance: Random, frame: bytes) -> list[bytes]:
    size = chance.choice((1 << 19, 1000, 333))
    pieces = [frame[at : at + size] for at in range(0, len(frame), size)]
    return [pb.SubmitRequest(chunk=piece).SerializeToString() for piece in pieces]


def status_of(channel: Any, case: Case, metadata: Any, *, timeout_s: float) -> tuple[str, str]:
    """How the call ends, and what is said to it. Blocking calls: in the asynchronous ones, a message that crosses a
    refusal hides it."""
    path = SERVICE + case.method
    match case.method:
        case "Join" | "Status":
            call = channel.unary_unary(path).future(case.messages[0], metadata=metadata, timeout=timeout_s)
            call.exception()
        case "Pull":
            call = channel.unary_stream(path)(case.messages[0], metadata=metadata, timeout=timeout_s)
            _drain(call)
        case _:
            call = channel.stream_stream(path)(iter(case.messages), metadata=metadata, timeout=timeout_s)
            _drain(call)
    return call.code().name, call.details()


def _drain(call: Any) -> None:
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        return
