"""Who is there, and what one member's behaviour may do to the others: nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from fedprune.errors import IdentityError, SignatureError
from fedprune.tensor import Schema, TensorSpec
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.coordinator import Coordinator
from fedprune_server.members import MAX_QUEUED, Member, Members

HELLO = pb.CoordinatorMessage(waiting=pb.Waiting(reason="for you"))


def member(index: int = 0, *, frozen_digest: str = "") -> Member:
    return Member(index=index, identity=f"site-{index}", task_digest="ab", frozen_digest=frozen_digest)


def test_members_are_found_by_name_and_by_index() -> None:
    members = Members()
    first, second = (members.admit(member(i), own_digest="") for i in (0, 1))
    assert members.of("site-1") is second
    assert members[0] is first
    assert list(members) == [first, second]
    with pytest.raises(IdentityError, match="nobody: has not joined"):
        members.of("nobody")


def test_frozen_weights_must_be_the_coordinators() -> None:
    members = Members()
    with pytest.raises(SignatureError, match=r"client 0 \(site-0\): .*requires_grad is off.*got none, expected abcd"):
        members.admit(member(), own_digest="abcd")
    assert list(members) == []


def test_who_joins_again_stays_the_same_member() -> None:
    """An older stream that ends later must find that a newer one took its place."""
    members = Members()
    first = members.admit(member(), own_digest="")
    first.queue = asyncio.Queue()
    again = members.admit(member(), own_digest="")
    assert again is first
    assert again.connected


def test_messages_wait_only_for_who_is_connected() -> None:
    one = member()
    one.send(HELLO)
    assert not one.connected
    one.queue = asyncio.Queue()
    one.send(HELLO)
    assert one.queue.qsize() == 1


def test_a_message_for_who_is_not_here_is_for_nobody() -> None:
    members = Members()
    one = members.admit(member(), own_digest="")
    one.queue = asyncio.Queue()
    members.tell(5, HELLO)
    members.tell(0, HELLO)
    assert one.queue.qsize() == 1


class TestStreams:
    def coordinator(self) -> tuple[Coordinator, Member]:
        schema = Schema(tensors=(TensorSpec(name="w", shape=(2, 2)),))
        coordinator = Coordinator(schema=schema, frozen_digest="", heartbeat_s=1.0)
        return coordinator, coordinator.members.admit(member(), own_digest="")

    def test_who_does_not_read_is_cut_off_and_no_queue_grows(self, caplog: pytest.LogCaptureFixture) -> None:
        coordinator, deaf = self.coordinator()
        queue = coordinator.attach(deaf, "ipv4:1")
        for _ in range(MAX_QUEUED + 50):
            deaf.send(HELLO)
        assert not deaf.connected
        assert queue.qsize() == MAX_QUEUED + 1
        assert caplog.text.count("does not read its work stream") == 1

    def test_its_stream_ends_when_it_reads_again(self) -> None:
        coordinator, deaf = self.coordinator()
        queue = coordinator.attach(deaf, "ipv4:1")
        for _ in range(MAX_QUEUED + 1):
            deaf.send(HELLO)
        read = [queue.get_nowait() for _ in range(queue.qsize())]
        assert read[-1] is None

    def test_a_newer_stream_takes_the_place_of_the_older(self) -> None:
        coordinator, one = self.coordinator()
        older = coordinator.attach(one, "ipv4:1")
        newer = coordinator.attach(one, "ipv4:2")
        assert older.get_nowait() is None
        coordinator.detach(one, older)
        assert one.queue is newer
        coordinator.detach(one, newer)
        assert not one.connected

    def test_who_is_silent_is_cut_off_and_who_speaks_is_not(self) -> None:
        coordinator, silent = self.coordinator()
        lively = coordinator.members.admit(member(1), own_digest="")
        for one in (silent, lively):
            coordinator.attach(one, "ipv4:1")
        silent.last_seen -= 10.0
        coordinator.drop_silent()
        assert (silent.connected, lively.connected) == (False, True)

    def test_while_the_coordinator_itself_is_halted_nobody_is_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        coordinator, one = self.coordinator()
        clock_s = [100.0]
        monkeypatch.setattr("fedprune_server.coordinator.time", SimpleNamespace(monotonic=lambda: clock_s[-1]))
        coordinator.attach(one, "ipv4:1")
        coordinator.drop_silent()
        # A minute in which nothing went on here; from then on it is looked once a heartbeat.
        for now_s in (160.0, 161.0, 162.0, 163.0):
            clock_s.append(now_s)
            coordinator.drop_silent()
            assert one.connected
        clock_s.append(164.0)
        coordinator.drop_silent()
        assert not one.connected
