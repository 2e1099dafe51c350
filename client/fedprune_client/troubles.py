"""What a call ended with: whether trying again may help, when, and in which words."""

from __future__ import annotations

from typing import Any

import grpc

from fedprune.errors import FedpruneError, RemoteError, UnavailableError

RETRY_KEY = "fedprune-retry-after-s"
LONGEST_DELAY_S = 30.0

# Statuses that may pass by themselves.
PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        # A coordinator that came back does not know us until we have joined again.
        grpc.StatusCode.UNAUTHENTICATED,
    }
)

PASSING_NAMES = frozenset(code.name for code in PASSING)


async def status(call: Any) -> Exception:
    """Why a stream ended without an answer."""
    code = await call.code()
    details = await call.details()
    trailing = await call.trailing_metadata()
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing or grpc.aio.Metadata(), details=details)


def as_error(error: Exception, server: str) -> FedpruneError:
    """What a failed call means: `UnavailableError` when trying again may help, `RemoteError` with the reason if not."""
    if isinstance(error, FedpruneError):
        return error
    if isinstance(error, grpc.aio.AioRpcError) and error.code() not in PASSING:
        return RemoteError(error.details() or error.code().name, party=server)
    return UnavailableError("no answer from the coordinator", party=server, seen=_reason(error))


def out_of_patience(trouble: UnavailableError, server: str, patience_s: float) -> UnavailableError:
    """The last trouble, when it has been tried for long enough."""
    return UnavailableError(
        f"looked for the coordinator for {patience_s:g} s and give up",
        party=server,
        seen=trouble.seen,
        next_step="If its runs are not over, start this client again: what it sealed is kept. --patience-s 0 looks for ever",
    )


def asked_for_s(error: Exception) -> float:
    """How long a coordinator that has no room for us now asked us to wait, at most `LONGEST_DELAY_S`."""
    metadata = error.trailing_metadata() if isinstance(error, grpc.aio.AioRpcError) else None
    for key, value in metadata or ():
        if key == RETRY_KEY and isinstance(value, str) and value.replace(".", "", 1).isdecimal():
            return min(float(value), LONGEST_DELAY_S)
    return 0.0


def _reason(error: Exception) -> str:
    """gRPC's account of a failed connection, without its repetitions."""
    details = error.details() if isinstance(error, grpc.aio.AioRpcError) else "no answer in time"
    return (details or "connection lost").rpartition(": ")[2].lower()
