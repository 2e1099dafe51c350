"""A result that is accepted counts for its round, whether or not its client is still there to hear so."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import Any

import pytest

from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.intake import Receiving
from fedprune_server.members import Member
from fedprune_server.store import MemoryStore, Submission

from .store.conftest import RUN, UPDATE, Scene


class SlowStore(MemoryStore):
    """Commits receipts only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.committing, self.let = threading.Event(), threading.Event()

    def accept_many(self, run_id: str, submissions: Any) -> Any:
        self.committing.set()
        assert self.let.wait(100)
        return super().accept_many(run_id, submissions)


def receiving(store: SlowStore, heard: list[Submission]) -> Receiving:
    return Receiving(
        store=store,
        run_id=RUN,
        max_bytes=1 << 20,
        check=lambda assignment, begin, data: None,
        on_accepted=lambda member, receipt, data: heard.append(receipt),  # type: ignore[arg-type]
        on_refused=lambda member, assignment, reason: None,
        on_broken=lambda: None,
        at=lambda point: None,
    )


async def committing(store: SlowStore, heard: list[Submission]) -> tuple[Receiving, asyncio.Task[None]]:
    """A result whose receipt is being committed, until the store is let."""
    (work, *_) = Scene(store).begin().open()
    intake = receiving(store, heard)
    member = Member(index=0, identity="site-0", task_digest="", frozen_digest="")
    begin = pb.Begin(assignment_id=work.assignment_id, run_id=RUN, size=len(UPDATE), examples=1)
    begin.sha256 = hashlib.sha256(UPDATE).hexdigest()
    arriving = await intake.begin(member, begin)
    await intake.append(arriving, 0, UPDATE)
    finishing = asyncio.create_task(intake.finish(arriving))
    await asyncio.to_thread(store.committing.wait, 10)
    return intake, finishing


async def test_a_client_that_is_gone_when_its_receipt_is_committed_counts_all_the_same() -> None:
    store, heard = SlowStore(), []  # type: ignore[var-annotated]
    _, finishing = await committing(store, heard)
    finishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finishing
    store.let.set()
    async with asyncio.timeout(100):
        while not heard:
            await asyncio.sleep(0)
    assert [receipt.client for receipt in heard] == [0]


async def test_whoever_waits_for_it_hears_of_a_receipt_that_is_being_committed() -> None:
    """A deadline that did not wait would close the round without an update that was promised to count."""
    store, heard = SlowStore(), []  # type: ignore[var-annotated]
    intake, finishing = await committing(store, heard)
    waiting = asyncio.create_task(intake.idle())
    await asyncio.sleep(0)
    store.let.set()
    await waiting
    assert [receipt.client for receipt in heard] == [0]
    await finishing
    await intake.idle()


async def test_what_becomes_due_while_another_is_checked_shares_its_commit() -> None:
    store, heard = SlowStore(), []  # type: ignore[var-annotated]
    store.let.set()
    given = Scene(store).begin().open()
    commits: list[int] = []
    accept_many = store.accept_many

    def counted(run_id: str, submissions: Any) -> Any:
        commits.append(len(submissions))
        return accept_many(run_id, submissions)

    store.accept_many = counted  # type: ignore[method-assign]
    checking, go_on = threading.Event(), threading.Event()

    def check(*_: object) -> None:
        checking.set()
        assert go_on.wait(100)

    intake = receiving(store, heard)
    intake.check = check

    async def take(number: int) -> pb.Receipt:
        begin = pb.Begin(assignment_id=given[number].assignment_id, run_id=RUN, size=len(UPDATE), examples=1)
        begin.sha256 = hashlib.sha256(UPDATE).hexdigest()
        member = Member(index=number, identity=f"site-{number}", task_digest="", frozen_digest="")
        return await intake.take(member, begin, UPDATE)

    first = asyncio.create_task(take(0))
    await asyncio.to_thread(checking.wait, 10)
    others = [asyncio.create_task(take(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    go_on.set()
    receipts = await asyncio.gather(first, *others)
    assert [receipt.verdict for receipt in receipts] == [pb.VERDICT_ACCEPTED] * 3
    assert sorted(receipt.client for receipt in heard) == [0, 1, 2]
    assert commits == [3]
