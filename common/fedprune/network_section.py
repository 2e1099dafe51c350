"""The `[network]` section of a run file."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from fedprune.framing import MAX_CHUNK_BYTES, SMALL_BYTES
from fedprune.section import Count, HostPort, PositiveOrZero, Seconds, Section

LEAST_CHUNK_BYTES = 1024
# gRPC's encryption copies a message, and one that does not fit into a core's cache costs it a tenth of its speed.
ENCRYPTED_CHUNK_BYTES = 1 << 19


def _chunk(size: int) -> int:
    if 0 < size < LEAST_CHUNK_BYTES:
        raise ValueError(f"{size} bytes are less than a message is worth; use 0 or at least {LEAST_CHUNK_BYTES}")
    return size


class NetworkSection(Section):
    address: HostPort = "127.0.0.1:7400"
    """HOST:PORT the coordinator listens on; `--address` overrides it."""
    enrol_port: Annotated[int, Field(ge=0, le=65535)] = 7402
    """Port for `client --join`, at the same address; open with certificates only, and only where they are issued."""
    insecure: bool = False
    """Serve plaintext on an address that other machines can reach; `--insecure` sets it."""
    chunk_bytes: Annotated[int, Field(ge=0, le=MAX_CHUNK_BYTES), AfterValidator(_chunk)] = 0
    """Most bytes of payload in one message of a download; 0 is what the transport carries best, 1 MiB, with TLS half of
    that. It begins with 64 KiB, or with half of that where it has broken off, and goes on with more where the link takes
    them at once, with less where it is slow."""
    heartbeat_s: Seconds = 10.0
    """Seconds between two signs of life; a client silent for three of them counts as gone."""
    stall_s: Seconds = 30.0
    """Seconds after which a transfer that makes no progress is broken off; it goes on where it was."""
    max_clients: Count = 1024
    """Clients that may join, all told."""
    max_calls: Count = 4096
    """Calls open at a time, a work stream for each client among them; whoever comes too much asks again later."""
    max_client_calls: Count = 8
    """Calls of one client open at a time."""
    max_uploads: Count = 64
    """Uploads coming in at a time."""
    max_staged_bytes: Count = 1 << 36
    """Bytes of uploads coming in at a time, as announced."""
    max_bytes_per_s: PositiveOrZero = 0.0
    """Bytes a second that all uploads together may bring; 0 sets no limit."""
    max_client_bytes_per_s: PositiveOrZero = 0.0
    """Bytes a second that the uploads of one client may bring; 0 sets no limit."""
    max_lost_bytes_per_s: PositiveOrZero = float(2 << 20)
    """Bytes a second that may come to nothing, of all clients together, before those they come from are slowed down;
    a result with its receipt is not lost. 0 sets no limit."""

    @property
    def small_bytes(self) -> int:
        """Up to here a result or a version travels in one message of the work stream."""
        return min(self.chunk_bytes or SMALL_BYTES, SMALL_BYTES)

    def most_chunk_bytes(self, *, encrypted: bool) -> int:
        """The most that one message of a download over this transport holds."""
        return self.chunk_bytes or (ENCRYPTED_CHUNK_BYTES if encrypted else MAX_CHUNK_BYTES)
