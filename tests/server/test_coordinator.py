"""Who is connected, at the edges of a coordinator's life."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedprune import wire
from fedprune.codec import CODEC_VERSION
from fedprune.errors import UnavailableError
from fedprune.tensor import Schema, TensorSpec
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.coordinator import Coordinator
from fedprune_server.interceptors import Caller
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


async def test_who_joins_while_one_run_gives_way_to_the_next_asks_again() -> None:
    """Its number is that of the run that is over, and the next one would take it for another client."""
    schema = Schema(tensors=(TensorSpec(name="w", shape=(2, 2)),))
    coordinator = Coordinator(schema=schema, frozen_digest="", heartbeat_s=10.0)

    def index(identity: str) -> int:
        coordinator.run = cast("Any", SimpleNamespace(run_id="next"))
        return 7

    coordinator.run = cast("Any", SimpleNamespace(run_id="first", store=SimpleNamespace(client_index=index)))
    caller = Caller(identity="a", peer="ipv4:127.0.0.1:1")
    request = pb.JoinRequest(codec_version=CODEC_VERSION, tensors=wire.schema_message(schema))
    with pytest.raises(UnavailableError, match="another run is on by now"):
        await coordinator.join(caller, request)
    assert not coordinator.members.knows("a")
