"""A result's content is taken out of its message, and what is left is measured to the byte."""

from __future__ import annotations

import pytest

from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.hearing import size_without, taken_content


@pytest.mark.parametrize("count", [0, 1, 100, 127, 128, 16_000, 16_384, 200_000, 1 << 21])
def test_a_result_is_measured_without_its_content(count: int) -> None:
    begin = pb.Begin(assignment_id=7, run_id="r-1", size=count, sha256="ab" * 32)
    message = pb.ClientMessage(result=pb.Result(begin=begin, data=b"x" * count))
    whole = message.ByteSize()
    content = taken_content(message)
    assert content == b"x" * count
    assert size_without(message, content) == whole - count
    assert message == pb.ClientMessage(result=pb.Result(begin=begin))


def test_other_messages_have_no_content() -> None:
    message = pb.ClientMessage(heartbeat=pb.Heartbeat())
    assert taken_content(message) == b""
    assert message.WhichOneof("event") == "heartbeat"
    assert size_without(message, b"") == message.ByteSize()
