"""Results on their way in: announced, staged, checked, and only then accepted.

An update counts when it is the announced bytes, made against the version that was assigned, decodable within limits,
finite and foldable. Everything else is refused for that client alone, before it can touch the round. Receipts that
become due at the same time share one transaction, because a transaction is a sync of the disk.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from fedprune import wire
from fedprune.errors import (
    DigestError,
    LimitError,
    RemoteError,
    UnavailableError,
    UpdateError,
    VersionError,
)
from fedprune.framing import seal
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.audit import Vouched
from fedprune_server.members import Member
from fedprune_server.receipting import Receipting
from fedprune_server.store import AssignmentRecord, ReceiptRecord, Store, Submission, Upload, Verdict, Work

# What a store can count to.
MAX_ASSIGNMENT_ID = 1 << 63

# More examples than that cannot be folded exactly.
MAX_EXAMPLES = 1 << 24

# Up to here a write to the page cache is cheaper than a thread.
INLINE_BYTES = 1 << 16

VERDICTS = {Verdict.ACCEPTED: pb.VERDICT_ACCEPTED, Verdict.STALE: pb.VERDICT_STALE}


@dataclass(slots=True, kw_only=True)
class Intake:
    """One result being received. `upload` is None when there is nothing (more) to send."""

    member: Member
    begin: pb.Begin
    assignment: AssignmentRecord
    signed: Vouched | None = None
    upload: Upload | None = None
    receipt: pb.Receipt | None = None
    # Whether what came whole is good: if it is not accepted all the same, its client has another result that counts.
    sound: bool = False

    @property
    def offset(self) -> int:
        """Bytes that are already here."""
        return self.upload.offset if self.upload is not None else 0


Check = Callable[[AssignmentRecord, pb.Begin, memoryview], None]


@dataclass(slots=True)
class Receiving:
    """The intake of one run. `check` validates a complete update and runs in a thread; it raises `RemoteError`."""

    store: Store
    run_id: str
    max_bytes: int
    check: Check
    on_accepted: Callable[[Member, ReceiptRecord, memoryview], None]
    on_refused: Callable[[Member, AssignmentRecord, str], None]
    on_broken: Callable[[], None]
    at: Callable[[str], None]
    # What was given out just now, without asking the store.
    recent: Callable[[int], AssignmentRecord | None] = lambda assignment_id: None
    _receipting: Receipting = field(init=False)

    def __post_init__(self) -> None:
        self._receipting = Receipting(
            store=self.store, run_id=self.run_id, on_accepted=self.on_accepted, on_broken=self.on_broken
        )

    async def take(self, member: Member, begin: pb.Begin, data: bytes, signed: Vouched | None = None) -> pb.Receipt:
        """The receipt of a result that is here whole, in one message. Nothing of it is staged."""
        intake = self._announced(member, begin, signed)
        try:
            record = await self._commit(intake, memoryview(data), partial(self._bring, intake, data))
        except RemoteError as error:
            if not intake.sound:
                self.on_refused(member, intake.assignment, str(error))
            raise
        return receipt_message(record)

    def _bring(self, intake: Intake, data: bytes) -> None:
        found, announced = seal(data), wire.seal(intake.begin, party=intake.member.party)
        if found != announced:
            raise DigestError("the result is not what was announced", seen=found.sha256, expected=announced.sha256)
        self.at("upload-sealed")
        self.check(intake.assignment, intake.begin, memoryview(data))
        self.at("update-checked")
        intake.sound = True
        if data:
            self.store.bring(self.run_id, intake.begin.assignment_id, data, sha256=found.sha256)

    async def begin(self, member: Member, begin: pb.Begin, signed: Vouched | None = None) -> Intake:
        """Where the result stands: at an offset, or already answered. `signed` is what vouches for it."""
        intake = self._announced(member, begin, signed)
        found = await asyncio.to_thread(
            self.store.begin_upload,
            self.run_id,
            begin.assignment_id,
            client=member.index,
            sha256=begin.sha256,
            size=begin.size,
        )
        if isinstance(found, ReceiptRecord):
            intake.receipt = receipt_message(found)
        else:
            intake.upload = found
        self.at("upload-begun")
        return intake

    def _announced(self, member: Member, begin: pb.Begin, signed: Vouched | None) -> Intake:
        """The open intake of a result that may come. Raises `RemoteError` for one that may not."""
        can_be = 0 < begin.assignment_id < MAX_ASSIGNMENT_ID
        assignment = self._given(begin.assignment_id) if can_be else None
        if assignment is None or assignment.client != member.index:
            raise UpdateError(
                "result for an assignment that this client was never given",
                party=member.party,
                seen=begin.assignment_id,
                next_step="Drop it and wait for the next assignment",
            )
        intake = Intake(member=member, begin=begin, assignment=assignment, signed=signed)
        try:
            self._check_announcement(member, assignment, begin)
        except RemoteError as error:
            self.on_refused(member, assignment, str(error))
            raise
        return intake

    def _given(self, assignment_id: int) -> AssignmentRecord | None:
        return self.recent(assignment_id) or self.store.assignment(self.run_id, assignment_id)

    def _check_announcement(self, member: Member, assignment: AssignmentRecord, begin: pb.Begin) -> None:
        wire.seal(begin, party=member.party)
        wire.metrics(begin, party=member.party)
        if begin.size > self.max_bytes:
            raise LimitError(
                "announced more bytes than any update of this model can have",
                party=member.party,
                seen=begin.size,
                expected=f"at most {self.max_bytes}",
            )
        if assignment.kind is Work.EVALUATE and begin.size:
            raise UpdateError("an evaluation with a payload", party=member.party, seen=begin.size, expected=0)
        if wire.version(begin.version) != assignment.version:
            raise VersionError(
                "update made against another version",
                party=member.party,
                seen=wire.version(begin.version),
                expected=assignment.version,
                next_step="Pull the assigned version and work again",
            )
        if not 0 <= begin.examples < MAX_EXAMPLES or (assignment.kind is Work.TRAIN and begin.examples == 0):
            raise UpdateError(
                "number of examples out of range",
                party=member.party,
                seen=begin.examples,
                expected=f"1 to {MAX_EXAMPLES - 1}",
            )

    async def append(self, intake: Intake, position: int, data: bytes) -> None:
        """Stage bytes that start at `position`; what is already here is skipped."""
        assert intake.upload is not None
        if len(data) <= INLINE_BYTES:
            intake.upload.append(position, data)
        else:
            await asyncio.to_thread(intake.upload.append, position, data)
        self.at("chunk-staged")

    async def finish(self, intake: Intake) -> None:
        """Check the complete result and give it its receipt.

        Raises `UnavailableError` when bytes are missing: a broken connection looks just like a client that stops, and
        its result is still good.
        """
        assert intake.upload is not None
        if not intake.upload.complete:
            raise UnavailableError(
                "upload ended early",
                party=intake.member.party,
                seen=f"{intake.upload.offset} bytes",
                expected=f"{intake.upload.size} bytes",
                next_step="Send the rest",
            )
        try:
            data = await asyncio.to_thread(self._sealed, intake)
        except RemoteError as error:
            named = error.of(intake.member.party)
            self.on_refused(intake.member, intake.assignment, str(named))
            raise named from error
        intake.receipt = receipt_message(await self._commit(intake, data, lambda: None))

    def _sealed(self, intake: Intake) -> memoryview:
        """The checked bytes. A result that fails its check can never become good: its staged bytes go."""
        assert intake.upload is not None
        intake.upload.seal()
        self.at("upload-sealed")
        data = self.store.blobs.open(intake.begin.sha256) if intake.begin.size else memoryview(b"")
        self.check(intake.assignment, intake.begin, data)
        self.at("update-checked")
        return data

    def _submission(self, intake: Intake) -> Submission:
        begin, work, signed = intake.begin, intake.assignment, intake.signed
        return Submission(
            assignment_id=begin.assignment_id,
            client=intake.member.index,
            sha256=begin.sha256,
            size=begin.size,
            examples=begin.examples,
            metrics_json=json.dumps(dict(begin.metrics), sort_keys=True),
            work_s=begin.work_s,
            residual_norm=begin.residual_norm,
            signed=signed.entry(round_=work.round, work=work.kind.value) if signed is not None else "",
        )

    async def _commit(self, intake: Intake, data: memoryview, bring: Callable[[], None]) -> ReceiptRecord:
        return await self._receipting.commit(intake.member, data, bring, self._submission(intake))

    async def idle(self) -> None:
        """Wait for the receipts that are being committed: the round has to hear of them before its time is up."""
        await self._receipting.idle()


def receipt_message(record: ReceiptRecord) -> pb.Receipt:
    """A stored receipt as a message."""
    return pb.Receipt(
        assignment_id=record.assignment_id,
        verdict=VERDICTS[record.verdict],
        reason=record.reason,
    )
