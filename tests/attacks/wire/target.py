"""Any bytes, read as what a stranger could send: a message, the parts of a download, the calls of an upload.

The layers below gRPC, in this process: what parses, checks and stages. Whatever comes out is a value or a `RemoteError`;
bytes that are applied, or have a receipt, are those that were announced; and one assignment has one receipt at most.
`fuzz.py` beside this file drives it by coverage, the test beside it by chance.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from fedprune import wire
from fedprune.errors import RemoteError
from fedprune.framing import seal
from fedprune.parts import Part
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.download import Download
from fedprune_client.replica import Replica
from fedprune_server.intake import Intake, Receiving
from fedprune_server.members import Member
from fedprune_server.store import AssignmentRecord, MemoryStore, RoundRecord, RunRecord, RunState, VersionRecord, Work

RUN, PARTY = "fuzzed", "stranger"
SCHEMA = Schema(
    tensors=(
        TensorSpec(name="w", shape=(4, 3), role=Role.PRUNABLE),
        TensorSpec(name="b", shape=(4,), role=Role.FREE),
    )
)
UPDATE, OTHER = b"an update" * 9, b"another one"
MAX_BYTES = 1 << 12
# A store grows with its rounds; a new one is cheap.
ROUNDS = 200


@dataclass(slots=True)
class Draw:
    """The bytes of an input, taken from the front; zeros when they are over."""

    data: bytes
    at: int = 0

    @property
    def over(self) -> bool:
        return self.at >= len(self.data)

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def byte(self) -> int:
        return (self.take(1) or b"\0")[0]

    def piece(self) -> bytes:
        """So many bytes as the first two of them say."""
        return self.take(int.from_bytes(self.take(2), "little") % 1024)


def _read_begin(begin: pb.Begin) -> None:
    for check in (
        lambda: wire.seal(begin, party=PARTY),
        lambda: wire.metrics(begin, party=PARTY),
        lambda: wire.version(begin.version),
        lambda: wire.manifest(begin),
    ):
        with suppress(RemoteError):
            check()


def _read_client(message: Any) -> None:
    said = message.WhichOneof("event" if isinstance(message, pb.ClientMessage) else "content")
    if said == "result":
        _read_begin(message.result.begin)
    elif said == "begin":
        _read_begin(message.begin)


def _read_coordinator(message: pb.CoordinatorMessage) -> None:
    match message.WhichOneof("event"):
        case "assignment":
            for step in message.assignment.steps:
                with suppress(RemoteError):
                    wire.part(step.header, party=PARTY)
            wire.assignment(message.assignment, party=PARTY)
        case "start":
            wire.roles(message.start.roles, party=PARTY)


def _read_pull(message: pb.PullRequest) -> None:
    wire.held_version(message)
    wire.version(message.want)


MESSAGES: tuple[tuple[Any, Callable[[Any], object]], ...] = (
    (pb.JoinRequest, lambda message: wire.schema(message.tensors, party=PARTY)),
    (pb.PullRequest, _read_pull),
    (pb.SubmitRequest, _read_client),
    (pb.ClientMessage, _read_client),
    (pb.CoordinatorMessage, _read_coordinator),
)


def read_message(draw: Draw) -> None:
    """Bytes as a message, and the message as values."""
    kind, read = MESSAGES[draw.byte() % len(MESSAGES)]
    with suppress(DecodeError, RemoteError):
        read(kind.FromString(draw.take(len(draw.data))))


async def download(draw: Draw) -> list[str]:
    """Replies of a pull, in any order, with breaks in between; gives each part that was applied and not announced so."""
    replica = Replica(schema=SCHEMA)
    findings: list[str] = []

    async def apply(part: Part, data: memoryview) -> None:
        came = len(data), hashlib.sha256(data).hexdigest()
        if came != (part.size, part.digest):
            findings.append(f"{came} was applied, {part} announced")
        replica.apply(part, data)

    going = Download(RUN, replica, Version(model=1), apply)
    while not draw.over:
        choice = draw.byte()
        with suppress(DecodeError, RemoteError):
            if choice % 4 == 0:
                await going.take(pb.PullReply.FromString(draw.piece()), PARTY)
            elif choice % 4 == 1:
                await going.take(pb.PullReply(header=_header(draw, draw.piece())), PARTY)
            elif choice % 4 == 2:
                await going.take(pb.PullReply(chunk=draw.piece()), PARTY)
            else:
                data = draw.piece()
                await going.take_step(pb.Step(header=_header(draw, data), data=data), PARTY)
        going.request()
    return findings


def _header(draw: Draw, data: bytes) -> pb.PartHeader:
    """The right announcement of these bytes, as a part that may be anything."""
    announced = seal(data)
    kind: Any = draw.byte() % 5
    header = pb.PartHeader(kind=kind, size=announced.size, sha256=announced.sha256)
    header.version.mask = draw.byte() % 3
    if draw.byte() % 2:
        header.base.CopyFrom(pb.Version(mask=draw.byte() % 3))
    return header


@dataclass(slots=True)
class Uploads:
    """An intake over a store in memory, and the assignment that is open."""

    store: MemoryStore = field(default_factory=MemoryStore)
    round: int = 0
    findings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        record = RunRecord(run_id=RUN, name=RUN, config_toml="", schema_digest="", state=RunState.RUNNING)
        self.store.create_run(record)
        self.store.freeze_shards(RUN, {self.store.client_index(PARTY): 0})
        model, mask = self.store.blobs.put(b"model"), self.store.blobs.put(b"mask")
        first = VersionRecord(run_id=RUN, round=0, version=Version(), model_digest=model, mask_digest=mask, parent=None)
        self.store.commit_version(first)

    def open(self) -> AssignmentRecord:
        """The next round, with work for the one client."""
        self.round += 1
        work = AssignmentRecord(
            run_id=RUN,
            assignment_id=self.store.next_assignment_id(),
            round=self.round,
            client=0,
            version=Version(),
            kind=Work.TRAIN,
            work=b"",
        )
        record = RoundRecord(run_id=RUN, round=self.round, version=Version(), deadline_s=1.0)
        self.store.open_round(record, [work])
        return work

    def receiving(self) -> Receiving:
        """The intake of the run."""
        return Receiving(
            store=self.store,
            run_id=RUN,
            max_bytes=MAX_BYTES,
            check=_check,
            on_accepted=lambda member, receipt, data: None,
            on_refused=lambda member, work, reason: None,
            on_broken=lambda: self.findings.append("a stranger has broken the store"),
            at=lambda point: None,
        )


def _check(work: AssignmentRecord, begin: pb.Begin, data: memoryview) -> None:
    if bytes(data[:1]) == b"\0":
        raise RemoteError("not an update")


@dataclass(slots=True)
class Connection:
    """One of a client's, with its upload as far as it has come."""

    intake: Intake | None = None
    position: int = 0


async def upload(draw: Draw, uploads: Uploads) -> list[str]:
    """Calls of two connections of one client, in any order: begin, put, commit, and a round that closes. Gives what was
    promised twice, or is not kept as it was promised."""
    work, receiving = uploads.open(), uploads.receiving()
    member = Member(index=0, identity=PARTY, task_digest="", frozen_digest="")
    connections = (Connection(), Connection())
    receipts: set[tuple[int, str]] = set()
    while not draw.over:
        choice = draw.byte()
        on = connections[choice >> 7]
        try:
            await _call(draw, choice % 7, on, work, receiving, member, uploads.store)
        except (DecodeError, RemoteError):
            continue
        if on.intake is not None and on.intake.receipt is not None:
            receipts.add((on.intake.receipt.verdict, on.intake.begin.sha256))
    findings, uploads.findings = uploads.findings, []
    if len(receipts) > 1:
        findings.append(f"one assignment, and several receipts: {receipts}")
    for verdict, sha256 in receipts:
        if verdict == pb.VERDICT_ACCEPTED:
            kept = [one.sha256 for one in uploads.store.receipts(RUN, work.round, Work.TRAIN)]
            if kept != [sha256]:
                findings.append(f"a receipt for {sha256}, and the store has {kept}")
            elif hashlib.sha256(uploads.store.blobs.open(sha256)).hexdigest() != sha256:
                findings.append(f"a receipt for {sha256}, and other bytes are kept")
    return findings


async def _call(
    draw: Draw,
    choice: int,
    on: Connection,
    work: AssignmentRecord,
    receiving: Receiving,
    member: Member,
    store: MemoryStore,
) -> None:
    match choice:
        case 0 | 1:
            data = (UPDATE, OTHER)[choice]
            begin = _begin(work, data)
            on.intake = await receiving.begin(member, begin)
            on.position = on.intake.offset
        case 2:
            begin = _begin(work, UPDATE)
            begin.MergeFromString(draw.piece())
            on.intake = await receiving.begin(member, begin)
            on.position = on.intake.offset
        case 3 if on.intake is not None and on.intake.upload is not None:
            data = (UPDATE, OTHER)[on.intake.begin.size == len(OTHER)][on.position :][: 1 + draw.byte()]
            await receiving.append(on.intake, on.position, data)
            on.position += len(data)
        case 4 if on.intake is not None and on.intake.upload is not None:
            position = int.from_bytes(draw.take(8), "little", signed=True)
            await receiving.append(on.intake, position, draw.piece())
        case 5 if on.intake is not None and on.intake.upload is not None:
            await receiving.finish(on.intake)
        case 6:
            if draw.byte() % 4:
                data = draw.piece()
                begin = _begin(work, data)
                begin.MergeFromString(draw.piece())
                await receiving.take(member, begin, data)
            else:
                store.freeze(RUN, work.round)
                store.collect_garbage()


def _begin(work: AssignmentRecord, data: bytes) -> pb.Begin:
    announced = seal(data)
    return pb.Begin(
        assignment_id=work.assignment_id,
        run_id=RUN,
        version=pb.Version(),
        size=announced.size,
        sha256=announced.sha256,
        examples=1,
    )


def _piece(data: bytes) -> bytes:
    return len(data).to_bytes(2, "little") + data


WHOLE, WRONG = bytes((0, 3, 255, 5)), bytes((0, 4)) + bytes(8) + _piece(OTHER * 7 + b"1234") + bytes((5,))
SEEDS = (
    *(
        bytes((0, number)) + message.SerializeToString()
        for number, message in (
            (0, pb.JoinRequest(codec_version=1, tensors=wire.schema_message(SCHEMA), task_digest="ab")),
            (1, pb.PullRequest(run_id=RUN, held=pb.Version(), want=pb.Version(model=1), part_sha256="0" * 64)),
            (2, pb.SubmitRequest(begin=pb.Begin(run_id=RUN, size=9, sha256="0" * 64, metrics={"loss": 0.5}))),
            (3, pb.ClientMessage(result=pb.Result(begin=pb.Begin(run_id=RUN, examples=1), data=UPDATE))),
            (4, pb.CoordinatorMessage(start=pb.Start(run_id=RUN, roles=[pb.ROLE_PRUNABLE, pb.ROLE_FREE]))),
            (4, pb.CoordinatorMessage(assignment=pb.Assignment(run_id=RUN, train=pb.Train(epochs=1, batch_size=8)))),
        )
    ),
    b"\1\1" + _piece(UPDATE) + bytes((1, 0, 0)) + b"\2" + _piece(UPDATE),
    b"\2" + WHOLE,
    b"\2" + WRONG,
    # Two connections, other bytes, a round that closes, and the same bytes once more.
    b"\2" + bytes((0, 3, 40, 128, 131, 255, 5, 133)),
    b"\2" + bytes((0, 3, 255, 129, 131, 255, 133, 5)),
    b"\2" + bytes((0, 3, 255, 6, 0, 5, 0)),
    b"\2" + bytes((6, 1)) + _piece(UPDATE) + _piece(b"") + WHOLE,
)
"""Inputs to begin from."""


class Target:
    """One input after another, over stores that are renewed now and then."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.uploads = Uploads()

    def read(self, data: bytes) -> list[str]:
        """What was found, in words; nothing, where all is as it must be. The first byte says as what the rest is read."""
        draw = Draw(data)
        match draw.byte() % 3:
            case 0:
                read_message(draw)
                return []
            case 1:
                return self._runner.run(download(draw))
            case _:
                if self.uploads.round == ROUNDS:
                    self.uploads.store.close()
                    self.uploads = Uploads()
                return self._runner.run(upload(draw, self.uploads))

    def close(self) -> None:
        """Give everything back."""
        self.uploads.store.close()
        self._runner.close()
