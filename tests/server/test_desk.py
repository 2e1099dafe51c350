"""Small steps go out with the work, to whom they bring to its version; large ones are left to be pulled."""

from __future__ import annotations

import asyncio

import pytest

from fedprune import wire
from fedprune.config import RunConfig, RunSection
from fedprune.parts import Part, PartKind
from fedprune.tensor import Schema, TensorSpec, Version
from fedprune_server.desk import Desk, small_steps
from fedprune_server.members import Member, Members
from fedprune_server.store import MemoryStore, Work

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(4, 4)),))
BEFORE, NOW = Version(model=1), Version(model=2)
STEP = b"what the model moved by"


def members(holds: dict[int, Version | None]) -> Members:
    found = Members()
    for index, version in holds.items():
        member = Member(index=index, identity=f"client-{index}", task_digest="", frozen_digest="", holds=version)
        member.queue = asyncio.Queue()
        found.by_identity[member.identity] = member
    return found


def part(store: MemoryStore) -> Part:
    digest = store.blobs.put(STEP)
    return Part(kind=PartKind.DELTA, version=NOW, base=BEFORE, digest=digest, size=len(STEP))


def heard(member: Member) -> list[str | None]:
    assert member.queue is not None
    messages = [member.queue.get_nowait() for _ in range(member.queue.qsize())]
    return [message.WhichOneof("event") for message in messages if message is not None]


def test_a_step_goes_first_to_whom_it_brings_to_the_version_of_the_work() -> None:
    store, here = MemoryStore(), members({0: BEFORE, 1: Version(), 2: None})
    desk = Desk(
        config=RunConfig(run=RunSection(name="r", rounds=3)),
        run_id="r-1",
        schema=SCHEMA,
        members=here,
        choose=lambda _: None,
        first_sha256=b"",
        epoch=lambda: 0,
    )
    desk.prepare(2, Work.TRAIN, lambda _: NOW, {0: 0, 1: 1, 2: 2}, first_id=7)
    desk.send_new((0, 1, 2), [small_steps((part(store),), store.blobs, most_bytes=len(STEP))])
    assert [heard(here[index]) for index in range(3)] == [["step", "assignment"], ["assignment"], ["assignment"]]


@pytest.mark.parametrize(("most_bytes", "count"), [(len(STEP), 1), (len(STEP) - 1, 0)])
def test_steps_are_whole_or_none(most_bytes: int, count: int) -> None:
    store = MemoryStore()
    steps = small_steps((part(store),), store.blobs, most_bytes=most_bytes)
    assert [step.message.step.data for step in steps] == [STEP] * count
    assert [wire.part(step.message.step.header, party="here") for step in steps] == [part(store)] * count
