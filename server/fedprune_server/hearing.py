"""What a client says on its work stream: a message, and beside it the content of a result, which is nearly all of it.

The content is taken out of its message once: there each look at it would copy it, and measuring the message would
write all of it.
"""

from __future__ import annotations

from fedprune.v1 import coordinator_pb2 as pb


def taken_content(message: pb.ClientMessage) -> bytes:
    """The content of a result, which its message has no more; nothing, of any other message."""
    if message.WhichOneof("event") != "result":
        return b""
    content = message.result.data
    message.result.ClearField("data")
    return content


def size_without(message: pb.ClientMessage, content: bytes) -> int:
    """The bytes that a message had on the wire beside the `content` that was taken out of it."""
    if not content:
        return message.ByteSize()
    result = message.result.ByteSize() + _field_bytes(len(content))
    return _field_bytes(result) - len(content)


def _field_bytes(count: int) -> int:
    """What a field of `count` bytes takes, one of the first fifteen of its message: tag, length, and itself."""
    return 1 + -(-count.bit_length() // 7) + count
