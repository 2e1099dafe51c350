"""Asking a coordinator to stop, over a real connection to a service that only answers that."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from fedprune.errors import UnavailableError
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_server.interceptors import IDENTITY_KEY
from fedprune_server.operating import stop


class Stoppable(rpc.CoordinatorServicer):
    def __init__(self) -> None:
        self.asked: list[tuple[bool, str, str]] = []

    def Stop(self, request: pb.StopRequest, context: Any) -> pb.StopReply:
        identity = dict(context.invocation_metadata())[IDENTITY_KEY]
        self.asked.append((request.shutdown, request.reason, identity))
        return pb.StopReply(kept="run a-1 at version s0b7v2")


@pytest.fixture
def served() -> Iterator[tuple[str, Stoppable]]:
    servicer = Stoppable()  # type: ignore[abstract]  # the other five calls are not made
    with ThreadPoolExecutor(max_workers=2) as pool:
        server = grpc.server(pool)
        rpc.add_CoordinatorServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", servicer
        server.stop(None).wait()


@pytest.mark.parametrize("shutdown", [False, True])
def test_says_what_was_kept(served: tuple[str, Stoppable], shutdown: bool) -> None:
    address, servicer = served
    assert stop(address, shutdown=shutdown, timeout_s=30) == "run a-1 at version s0b7v2"
    ((asked_shutdown, reason, identity),) = servicer.asked
    assert asked_shutdown is shutdown
    assert identity.startswith("operator ")
    assert identity in reason


def test_nobody_there() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 cannot be asked to stop \(got unavailable\)"):
        stop("127.0.0.1:1", shutdown=False, timeout_s=30)
