"""Is a coordinator there, and does it serve? The probe of compose files, orchestrators and people.

It speaks the standard gRPC health protocol, so that any other probe may be used in its place.
"""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedprune.errors import UnavailableError
from fedprune_server.dialling import dialled

SERVING = "serving"


def ask(coordinator: str, *, timeout_s: float, credentials: Path | None = None) -> str:
    """ "serving", from a coordinator at HOST:PORT. Raises `UnavailableError` for any other answer, or none.

    One with TLS is shown the key and certificate in the folder `credentials`."""
    state = state_of(coordinator, timeout_s=timeout_s, credentials=credentials)
    if state != SERVING:
        raise UnavailableError(
            f"the coordinator at {coordinator} does not serve", seen=state, expected=SERVING, next_step="Wait for it"
        )
    return state


def state_of(coordinator: str, *, timeout_s: float, credentials: Path | None = None) -> str:
    """What the coordinator at HOST:PORT says of itself, in lower case. Raises `UnavailableError` where none answers."""
    with dialled(coordinator, credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)  # type: ignore[attr-defined]  # the stubs leave it out
        except grpc.RpcError as error:
            raise UnavailableError(
                f"no healthy coordinator at {coordinator}",
                seen=error.code().name.lower().replace("_", " "),
                next_step="Check that it runs, and that this address reaches it",
            ) from error
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status).lower().replace("_", " "))
