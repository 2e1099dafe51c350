"""Every byte in one round, one direction and one kind; what is sent again is told apart."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np

from fedprune.codec import account, encode_mask_set, encode_update
from fedprune.ledger import Direction, Entry, Kind
from fedprune.mask import Mask
from fedprune.parts import Part, PartKind
from fedprune.sockets import Counters
from fedprune.tensor import Schema, TensorSpec, Version
from fedprune.traffic import Traffic
from fedprune_server.accounting import Accounts, link_rates
from fedprune_server.members import Member, Members

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(30, 30)),))
FRAME = memoryview(encode_update({"w": np.eye(30, dtype=np.float32)}, schema=SCHEMA))
MASK = memoryview(encode_mask_set(Mask.full(SCHEMA)))


class Meter:
    """A kernel that tells what it is told to."""

    unavailable: str | None = None

    def __init__(self, *samples: dict[str, Counters] | None) -> None:
        self.samples = list(samples)
        self.asked: list[set[str]] = []

    def sample(self, peers: AbstractSet[str]) -> dict[str, Counters] | None:
        self.asked.append(set(peers))
        return self.samples.pop(0)


def accounts(meter: Meter | None = None) -> tuple[Accounts, Member]:
    members = Members()
    member = Member(index=2, identity="x", task_digest="", frozen_digest="", peers={"ipv4:1:1"})
    members.admit(member, own_digest="")
    return Accounts(members, meter), member  # type: ignore[arg-type]  # the two methods that are used


def part(kind: PartKind, data: memoryview) -> Part:
    return Part(kind=kind, version=Version(), base=None, digest="0" * 64, size=len(data))


def kinds(entries: list[Entry]) -> dict[tuple[Direction, Kind], int]:
    return {(e.direction, e.kind): e.bytes for e in entries}


def test_messages_are_control_and_signs_of_life_are_not() -> None:
    book, member = accounts()
    book.control(member, up=10, down=20)
    book.control(member, up=5)
    book.control(member, up=3, heartbeat=True)
    entries, socket = book.close_round()
    assert kinds(entries) == {
        (Direction.UP, Kind.CONTROL): 15,
        (Direction.DOWN, Kind.CONTROL): 20,
        (Direction.UP, Kind.HEARTBEAT): 3,
    }
    assert socket is None
    assert {e.client for e in entries} == {2}


def test_an_update_is_counted_by_what_its_bytes_are() -> None:
    book, member = accounts()
    book.received(member, FRAME)
    entries, _ = book.close_round()
    assert kinds(entries) == {(Direction.UP, Kind(k)): n for k, n in account(FRAME).items() if n}
    assert sum(e.bytes for e in entries) == len(FRAME)


def test_a_snapshot_is_one_kind_and_a_step_its_own() -> None:
    book, member = accounts()
    book.sent(member, part(PartKind.MODEL, FRAME), FRAME, start=0, end=len(FRAME))
    book.sent(member, part(PartKind.MASK, MASK), MASK, start=0, end=len(MASK))
    found = kinds(book.close_round()[0])
    assert found[Direction.DOWN, Kind.SNAPSHOT] == len(FRAME)
    assert sum(found.values()) == len(FRAME) + len(MASK)
    book.sent(member, part(PartKind.DELTA, FRAME), FRAME, start=0, end=len(FRAME))
    assert (Direction.DOWN, Kind.SNAPSHOT) not in kinds(book.close_round()[0])


def test_what_broke_and_what_resumed_is_the_price_of_the_link() -> None:
    book, member = accounts()
    book.sent(member, part(PartKind.DELTA, FRAME), FRAME, start=0, end=40)
    book.sent(member, part(PartKind.DELTA, FRAME), FRAME, start=40, end=len(FRAME))
    book.received_again(member, 7)
    assert kinds(book.close_round()[0]) == {
        (Direction.DOWN, Kind.RETRANSMIT): len(FRAME),
        (Direction.UP, Kind.RETRANSMIT): 7,
    }


def test_rounds_are_told_apart_and_begin_at_nothing() -> None:
    book, member = accounts()
    book.round, book.pulls = 1, 3
    book.control(member, up=1)
    assert book.transfers(updates=2) == Traffic(up=2, down=3)
    first, _ = book.close_round()
    book.round = 2
    book.control(member, up=2)
    second, _ = book.close_round()
    assert [(e.round, e.bytes) for e in (*first, *second)] == [(1, 1), (2, 2)]
    assert book.transfers(updates=0) == Traffic()


def test_the_kernels_bytes_go_to_the_client_of_the_connection() -> None:
    known, stranger = Counters(sent=10, received=20), Counters(sent=1, received=1)
    meter = Meter({"ipv4:1:1": known, "ipv4:9:9": stranger}, {"ipv4:1:1": known}, {})
    book, _ = accounts(meter)
    book.sample_sockets()
    book.sample_sockets()
    _, socket = book.close_round()
    assert socket == {2: known + known}
    assert meter.asked == [{"ipv4:1:1"}, {"ipv4:1:1"}]
    assert book.close_round()[1] == {}


def test_a_kernel_that_does_not_tell_gives_nothing() -> None:
    meter = Meter(None)
    meter.unavailable = "only Linux tells"
    book, _ = accounts(meter)
    assert book.close_round()[1] is None


def test_what_a_client_moved_is_kept_over_rounds_and_restarts() -> None:
    book, member = accounts()
    book.control(member, up=3, down=5)
    book.control(member, up=100, heartbeat=True)
    entries, _ = book.close_round()
    assert book.moved(member.index) == Traffic(up=3, down=5)
    assert book.moved(99) == Traffic()
    after, _ = accounts()
    after.restore(entries)
    after.control(member, up=1)
    assert after.moved(member.index) == Traffic(up=4, down=5)


def test_links_are_bytes_by_the_seconds_that_transfers_took() -> None:
    book, member = accounts()
    book.control(member, up=30, down=10)
    entries, _ = book.close_round()
    assert link_rates(entries, {member.index: 4.0, 77: 1.0}) == {member.index: 10.0}
    assert link_rates(entries, {member.index: 0.0}) == {}
