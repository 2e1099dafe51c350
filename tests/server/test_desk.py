"""Small steps go out in the message of the work, to whom they bring to its version; large ones are left to be pulled."""

from __future__ import annotations

import asyncio

import pytest

from fedprune import wire
from fedprune.config import RunConfig, RunSection
from fedprune.parts import Part, PartKind
from fedprune.tensor import Schema, TensorSpec, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.desk import INLINE_S, Desk
from fedprune_server.members import Member, Members
from fedprune_server.saying import Said, small_steps
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


def at_the_desk(here: Members) -> Desk:
    return Desk(
        config=RunConfig(run=RunSection(name="r", rounds=3)),
        run_id="r-1",
        schema=SCHEMA,
        members=here,
        choose=lambda _: None,
        first_sha256=b"",
        epoch=lambda: 0,
    )


def heard(member: Member) -> list[list[bytes]]:
    """The steps of each assignment that was sent."""
    assert member.queue is not None
    messages = [read(said) for _ in range(member.queue.qsize()) if (said := member.queue.get_nowait()) is not None]
    return [[step.data for step in message.assignment.steps] for message in messages]


def read(said: Said) -> pb.CoordinatorMessage:
    """What a client makes of it."""
    return pb.CoordinatorMessage.FromString(said.encoded())


def test_a_step_goes_to_whom_it_brings_to_the_version_of_the_work() -> None:
    store, here = MemoryStore(), members({0: BEFORE, 1: Version(), 2: None})
    desk = at_the_desk(here)
    desk.prepare(2, Work.TRAIN, lambda _: NOW, {0: 0, 1: 1, 2: 2}, first_id=7)
    desk.send_new((0, 1, 2), [small_steps((part(store),), store.blobs, most_bytes=len(STEP))])
    assert [heard(here[index]) for index in range(3)] == [[[STEP]], [[]], [[]]]


def test_a_step_that_would_hold_up_a_slow_line_is_left_to_be_pulled() -> None:
    store, here = MemoryStore(), members({0: BEFORE, 1: BEFORE, 2: BEFORE})
    desk = at_the_desk(here)
    desk.prepare(2, Work.TRAIN, lambda _: NOW, {0: 0, 1: 1, 2: 2}, first_id=7)
    just = len(STEP) / INLINE_S
    steps = [small_steps((part(store),), store.blobs, most_bytes=len(STEP))]
    desk.send_new((0, 1, 2), steps, links={0: 0.9 * just, 1: 1.1 * just})
    assert [heard(here[index]) for index in range(3)] == [[[]], [[STEP]], [[STEP]]]


def test_what_was_given_out_last_is_known_without_the_store() -> None:
    desk = at_the_desk(members({0: NOW}))
    (first,) = desk.prepare(2, Work.TRAIN, lambda _: NOW, {0: 0}, first_id=7)
    assert desk.record(7) == first
    desk.prepare(3, Work.TRAIN, lambda _: NOW, {0: 0}, first_id=8)
    assert desk.record(7) is None


@pytest.mark.parametrize(("most_bytes", "count"), [(len(STEP), 1), (len(STEP) - 1, 0)])
def test_steps_are_whole_or_none(most_bytes: int, count: int) -> None:
    store = MemoryStore()
    steps = small_steps((part(store),), store.blobs, most_bytes=most_bytes)
    assert steps.contents == (STEP,) * count
    assert steps.parts == (part(store),) * count
    assert steps.size == count * len(STEP)


def test_an_assignment_and_its_steps_are_read_as_one_message() -> None:
    store = MemoryStore()
    other = part(store)
    steps = small_steps((part(store), other), store.blobs, most_bytes=2 * len(STEP))
    message = pb.CoordinatorMessage(assignment=pb.Assignment(assignment_id=7, run_id="r-1", train=pb.Train(steps=5)))
    found = read(Said(message, steps)).assignment
    assert [wire.part(step.header, party="here") for step in found.steps] == [part(store), other]
    assert [step.data for step in found.steps] == [STEP, STEP]
    assert [(step.header.part, step.header.parts) for step in found.steps] == [(0, 2), (1, 2)]
    del found.steps[:]
    assert found == message.assignment
