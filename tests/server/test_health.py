"""The health probe against a real gRPC server, and against nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedprune.errors import UnavailableError
from fedprune_server.health import ask


@pytest.fixture
def served() -> Iterator[tuple[str, health.HealthServicer]]:
    servicer = health.HealthServicer()
    with ThreadPoolExecutor(max_workers=2) as pool:
        server = grpc.server(pool)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", servicer
        server.stop(None).wait()


def test_a_serving_coordinator(served: tuple[str, health.HealthServicer]) -> None:
    assert ask(served[0], timeout_s=30) == "serving"


def test_one_that_does_not_serve_yet(served: tuple[str, health.HealthServicer]) -> None:
    address, servicer = served
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    with pytest.raises(UnavailableError, match=rf"{address} does not serve \(got not serving, expected serving\)"):
        ask(address, timeout_s=30)


def test_nobody_there() -> None:
    with pytest.raises(UnavailableError, match=r"no healthy coordinator at 127\.0\.0\.1:1 \(got unavailable\)"):
        ask("127.0.0.1:1", timeout_s=30)
