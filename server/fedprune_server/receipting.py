"""Receipts, in groups: those that become due at the same time share one transaction, which is a sync of the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fedprune.errors import FedpruneError, RemoteError, StoreError
from fedprune_server.members import Member
from fedprune_server.store import ReceiptRecord, Store, Submission, Verdict

# Receipts that share a commit: the first of them waits until the last of them is checked.
MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    member: Member
    data: memoryview
    # Checks and keeps what was not checked yet; raises `RemoteError`.
    bring: Callable[[], None]
    submission: Submission
    answer: asyncio.Future[ReceiptRecord]


@dataclass(slots=True, kw_only=True)
class Receipting:
    """The receipts of one run."""

    store: Store
    run_id: str
    on_accepted: Callable[[Member, ReceiptRecord, memoryview], None]
    on_broken: Callable[[], None]
    _due: deque[_Due] = field(default_factory=deque)
    _committing: asyncio.Task[None] | None = None

    async def commit(
        self, member: Member, data: memoryview, bring: Callable[[], None], submission: Submission
    ) -> ReceiptRecord:
        """The receipt of a result, once it is synced. `bring` checks and keeps what was not checked yet; it runs in a
        thread and raises `RemoteError`, as does this."""
        answer: asyncio.Future[ReceiptRecord] = asyncio.get_running_loop().create_future()
        self._due.append(_Due(member=member, data=data, bring=bring, submission=submission, answer=answer))
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
        """Wait for the receipts that are being committed."""
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
