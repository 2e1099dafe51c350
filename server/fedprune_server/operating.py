"""What an operator asks of a coordinator that runs: end what you are doing.

The request goes over the same port as the clients'; the answer says what was kept.
"""

from __future__ import annotations

import getpass
from pathlib import Path

import grpc

from fedprune.errors import RoleError, UnavailableError
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_server.dialling import dialled
from fedprune_server.interceptors import IDENTITY_KEY


def stop(coordinator: str, *, shutdown: bool, timeout_s: float, credentials: Path | None = None) -> str:
    """Ask the coordinator at HOST:PORT to end its run after what is committed; with `shutdown`, its process too.

    Gives what it says it kept. Raises `UnavailableError` when it cannot be asked, `RoleError` when it refuses.
    """
    operator = f"operator {getpass.getuser()}"
    request = pb.StopRequest(shutdown=shutdown, reason=f"stopped by {operator}")
    with dialled(coordinator, credentials) as channel:
        try:
            reply = rpc.CoordinatorStub(channel).Stop(request, timeout=timeout_s, metadata=((IDENTITY_KEY, operator),))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise RoleError(error.details() or "refused", party=coordinator) from error
            raise UnavailableError(
                f"the coordinator at {coordinator} cannot be asked to stop",
                seen=error.code().name.lower().replace("_", " "),
                next_step="Check that it runs, and that this address reaches it",
            ) from error
    return reply.kept
