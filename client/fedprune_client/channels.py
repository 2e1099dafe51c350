"""The connections of one client: the one in use, and older ones for as long as something runs on them.

There is more than one only around the renewal of a certificate, which must not break off what is under way.
"""

from __future__ import annotations

import grpc

from fedprune import wire
from fedprune.framing import MAX_MESSAGE_BYTES
from fedprune.pki.credentials import Credentials
from fedprune.pki.keys import PrivateKey, sign
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune.v1 import enrolment_pb2_grpc as renewal

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A connection of its own for each client, also where several live in one process: bytes are counted by it.
    ("grpc.use_local_subchannel_pool", 1),
)


class Channels:
    """Connections to `server` (HOST:PORT), in plaintext when there are no credentials."""

    def __init__(self, server: str, credentials: Credentials | None) -> None:
        self._server = server
        self._open: list[grpc.aio.Channel] = []
        self._key: PrivateKey | None = None
        self.present(credentials)

    def present(self, credentials: Credentials | None) -> None:
        """Make calls with these credentials from now on; what is under way goes on as it began."""
        channel = _channel(self._server, credentials)
        self._open.append(channel)
        self._key = credentials.key if credentials is not None else None
        self.stub = rpc.CoordinatorStub(channel)
        self.renewal = renewal.RenewalStub(channel)

    def sign(self, begin: pb.Begin) -> None:
        """Vouch for an announcement with the client's key, where it has one."""
        if self._key is not None:
            begin.signature = sign(self._key, wire.manifest(begin).encode())

    async def retire(self) -> None:
        """Close all but the one in use."""
        older, self._open = self._open[:-1], self._open[-1:]
        for channel in older:
            await channel.close()

    async def close(self) -> None:
        """Close all of them."""
        await self.retire()
        await self._open[0].close()


def _channel(server: str, credentials: Credentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(server, options=CHANNEL_OPTIONS)
    mine = grpc.ssl_channel_credentials(credentials.trust_pem, credentials.key_pem, credentials.chain_pem)
    return grpc.aio.secure_channel(server, mine, options=CHANNEL_OPTIONS)
