"""What `doctor` asks a coordinator for: as many bytes there and back as it says, the version, the clock. Nothing is kept."""

from __future__ import annotations

import os
import time

from fedprune import __version__
from fedprune.errors import LimitError
from fedprune.framing import MAX_CHUNK_BYTES
from fedprune.v1 import coordinator_pb2 as pb


def probed(request: pb.ProbeRequest, *, party: str) -> pb.ProbeReply:
    """The answer to a probe. Raises `LimitError` for more than a chunk either way."""
    most = max(len(request.payload), request.answer_bytes)
    if most > MAX_CHUNK_BYTES:
        raise LimitError("too large a probe", party=party, seen=f"{most} bytes", expected=f"at most {MAX_CHUNK_BYTES}")
    # Noise, which nothing on the way can compress.
    noise = os.urandom(request.answer_bytes)
    return pb.ProbeReply(coordinator_version=__version__, unix_s=time.time(), payload=noise)
