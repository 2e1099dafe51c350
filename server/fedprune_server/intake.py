"""Results on their way in: announced, staged, checked, and only then accepted.

An update counts when it is the announced bytes, made against the version that was assigned, decodable within limits,
finite and foldable. Everything else is refused for that client alone, before it can touch the round. Receipts that
become due at the same time share one transaction, because a transaction is a sync of the disk.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from fedprune import wire
from fedprune.errors import (
    DigestError,
    FedpruneError,
    LimitError,
    RemoteError,
    StoreError,
    UnavailableError,
    UpdateError,
    VersionError,
)
from fedprune.framing import seal
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.audit import Vouched
from fedprune_server.members import Member
from fedprune_server.store import AssignmentRecord, ReceiptRecord, Store, Submission, Upload, Verdict, Work

# What a store can count to.
MAX_ASSIGNMENT_ID = 1 << 63

# More examples than that cannot be folded exactly.
MAX_EXAMPLES = 1 << 24

# Up to here a write to the page cache is cheaper than a thread.
INLINE_BYTES = 1 << 16

# Receipts that share a commit: the first of them waits until the last of them is checked.
MOST_AT_ONCE = 64

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    member: Member
    data: memoryview
    # Checks and keeps what was not checked yet; raises `RemoteError`.
    bring: Callable[[], None]
    submission: Submission
    answer: asyncio.Future[ReceiptRecord]


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
    _due: deque[_Due] = field(default_factory=deque)
    _committing: asyncio.Task[None] | None = None

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
        answer: asyncio.Future[ReceiptRecord] = asyncio.get_running_loop().create_future()
        submission = self._submission(intake)
        self._due.append(_Due(member=intake.member, data=data, bring=bring, submission=submission, answer=answer))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_due())
        return await answer

    async def _commit_due(self) -> None:
        """Accept whatever is due, together, until nothing is."""
        try:
            while self._due:
                batch: list[_Due] = []
                await self._commit_batch(batch, asyncio.to_thread(self._accept, batch))
        finally:
            self._committing = None

    async def idle(self) -> None:
        """Wait for the receipts that are being committed: the round has to hear of them before its time is up."""
        while self._committing is not None and not self._committing.done():
            await asyncio.wait({self._committing})

    def _accept(self, batch: list[_Due]) -> list[ReceiptRecord | RemoteError]:
        """Move what is due into `batch`, with what becomes due meanwhile, and give all of it one commit. Small results
        are checked here, one after the other: threads of their own would only wait for each other."""
        refused: dict[int, RemoteError] = {}
        while self._due and len(batch) < MOST_AT_ONCE:
            due = self._due.popleft()
            # Who was cut off before the commit began (its key revoked, its connection lost) has sent nothing yet.
            if not due.answer.cancelled():
                batch.append(due)
                if (error := _refusal(due)) is not None:
                    refused[len(batch) - 1] = error
        good = [due.submission for number, due in enumerate(batch) if number not in refused]
        given = iter(self.store.accept_many(self.run_id, good) if good else ())
        return [refused[number] if number in refused else next(given) for number in range(len(batch))]

    async def _commit_batch(
        self, batch: list[_Due], accepting: Awaitable[Sequence[ReceiptRecord | FedpruneError]]
    ) -> None:
        answers: Sequence[ReceiptRecord | FedpruneError]
        try:
            answers = await accepting
        except StoreError as error:
            answers = [error] * len(batch)
            self.on_broken()
        for due, answer in zip(batch, answers, strict=True):
            _tell(due, answer)
            # Whether or not the client is still there to hear: what is accepted counts, and the round must know.
            if isinstance(answer, ReceiptRecord) and answer.verdict is Verdict.ACCEPTED:
                self.on_accepted(due.member, answer, due.data)


def _refusal(due: _Due) -> RemoteError | None:
    try:
        due.bring()
    except RemoteError as error:
        return error.of(due.member.party)
    return None


def _tell(due: _Due, answer: ReceiptRecord | FedpruneError) -> None:
    if due.answer.cancelled():
        return
    if isinstance(answer, FedpruneError):
        due.answer.set_exception(answer)
    else:
        due.answer.set_result(answer)


def receipt_message(record: ReceiptRecord) -> pb.Receipt:
    """A stored receipt as a message."""
    return pb.Receipt(
        assignment_id=record.assignment_id,
        verdict=VERDICTS[record.verdict],
        reason=record.reason,
    )
