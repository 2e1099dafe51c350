"""Who is connected, at the edges of a coordinator's life."""

from __future__ import annotations

from fedprune.tensor import Schema, TensorSpec
from fedprune_server.coordinator import Coordinator
from fedprune_server.members import Member


def test_who_comes_after_the_good_bye_is_not_waited_for() -> None:
    """Its stream would keep the port from closing for half a minute."""
    schema = Schema(tensors=(TensorSpec(name="w", shape=(2, 2)),))
    coordinator = Coordinator(schema=schema, frozen_digest="", heartbeat_s=10.0)
    early, late = (Member(index=n, identity=f"site-{n}", task_digest="", frozen_digest="") for n in range(2))
    coordinator.members.by_identity |= {early.identity: early, late.identity: late}
    before = coordinator.attach(early, "ipv4:127.0.0.1:1")
    assert before.empty()
    coordinator.hang_up()
    after = coordinator.attach(late, "ipv4:127.0.0.1:2")
    assert (before.get_nowait(), after.get_nowait()) == (None, None)
