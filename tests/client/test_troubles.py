"""What a call ended with."""

from __future__ import annotations

import grpc
import pytest

from fedprune.errors import UnavailableError
from fedprune_client.troubles import as_error


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_which_refusals_may_pass(code: grpc.StatusCode) -> None:
    passing = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN", "UNAUTHENTICATED"}
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="why")
    found = as_error(error, "here:1")
    assert isinstance(found, UnavailableError) == (code.name in passing)
    assert "here:1" in str(found)
    assert "why" in str(found)
