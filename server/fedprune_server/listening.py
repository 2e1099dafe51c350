"""The port that clients come to: gRPC's settings, the service behind the border, and the health service."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedprune.errors import ConfigError
from fedprune.framing import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_server.coordinator import Coordinator
from fedprune_server.interceptors import Border
from fedprune_server.knocking import Hanging
from fedprune_server.security import Plain, Secured
from fedprune_server.service import CoordinatorService

SERVER_OPTIONS = (
    # Who has not shown a certificate by then is dropped.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
    # A stream that is not read buffers 128 KiB, and what its next message needs; measured lines would buffer megabytes. With
    # less, an upload over 10 Mbit/s and 40 ms each way stands still between two chunks.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 17),
    ("grpc.max_concurrent_streams", 32),
)
SPARE_CALLS = 64


async def listen(
    coordinator: Coordinator, security: Plain | Secured, border: Border, address: str
) -> tuple[grpc.aio.Server, health.aio.HealthServicer, int]:
    """Open the port: (server, health, port number). Raises `ConfigError` where it cannot be had."""
    limits = border.limits
    server = grpc.aio.server(
        interceptors=[border],
        # Twice as many connections as clients: a certificate is renewed with a second one beside the first.
        options=(
            *SERVER_OPTIONS,
            ("grpc.max_allowed_incoming_connections", 2 * limits.network.max_clients + SPARE_CALLS),
        ),
        # A hard stop above our own, which says when to come again; health checks must still get through.
        maximum_concurrent_rpcs=limits.network.max_calls + SPARE_CALLS,
    )
    rpc.add_CoordinatorServicer_to_server(CoordinatorService(coordinator, limits), server)
    state = health.aio.HealthServicer()
    await state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    try:
        port = security.add_port(server, address)
    except RuntimeError as error:
        raise ConfigError(
            "cannot listen: the port is in use, or the address is not this machine's",
            seen=address,
            next_step="Give another --address, or stop the other coordinator",
        ) from error
    hanging = Hanging(port)

    def hang_up(peer: str, identity: str) -> None:
        coordinator.shun(identity)
        hanging.up(peer)

    border.hang_up = hang_up
    await server.start()
    return server, state, port
