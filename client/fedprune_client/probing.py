"""`doctor`'s look at a coordinator through gRPC: whether it answers, its version and clock, and how fast bytes go.

gRPC has a resolver of its own, which can stall where the system's does not (a name server that is silent about
IPv6): a coordinator that answers by its address and not by its name is told apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedprune import __version__
from fedprune.checkup.findings import Finding, State, bad, good, skipped, warning
from fedprune.pki.credentials import Credentials
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_client.channels import CHANNEL_OPTIONS
from fedprune_client.transport import IDENTITY_KEY

# The first one also waits for what gRPC does once.
EMPTY_PROBES = 3
# Probes grow until one takes long enough to say how fast the way is.
PROBES_BYTES = (1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 20, 1 << 20)
LONG_ENOUGH_S = 0.5
# For one probe, on a line of 0.2 Mbit/s.
PROBE_TIMEOUT_S = 60.0
GOOD_APART_S, BAD_APART_S = 5.0, 300.0


class Target(Protocol):
    """The part of a way that a channel needs."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def credentials(self) -> Path | None: ...
    @property
    def timeout_s(self) -> float: ...


def answers(way: Target, address: str) -> Iterator[Finding]:
    """What the coordinator at this open address of the way says; ends behind the first step that fails."""
    with _channel(way, way.host) as channel:
        found = _connected(channel, way, address)
        yield found
        if found.state is State.BAD:
            return
        yield _health(channel, way)
        yield from _probed(channel, way)


def _channel(way: Target, host: str) -> grpc.Channel:
    """A channel to this name or address, held to the coordinator's own name."""
    target = f"[{host}]:{way.port}" if ":" in host else f"{host}:{way.port}"
    if way.credentials is None:
        return grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
    mine = Credentials.load(way.credentials)
    shown = grpc.ssl_channel_credentials(mine.trust_pem, mine.key_pem, mine.chain_pem)
    named = (("grpc.ssl_target_name_override", way.host),) if host != way.host else ()
    return grpc.secure_channel(target, shown, options=(*CHANNEL_OPTIONS, *named))


def _connected(channel: grpc.Channel, way: Target, address: str) -> Finding:
    began_s = time.monotonic()
    if _is_ready(channel, way.timeout_s):
        return good("gRPC", f"connected after {1000 * (time.monotonic() - began_s):.0f} ms")
    with _channel(way, address) as direct:
        if address != way.host and _is_ready(direct, way.timeout_s):
            return bad(
                "gRPC",
                f"does not get through to {way.host}, but to {address}: its own resolver waits for a name server",
                f"Set GRPC_DNS_RESOLVER=native, or dial {address}:{way.port} where the certificate is for it too",
            )
    return bad("gRPC", f"no connection within {way.timeout_s:g} s", "Is it a coordinator that listens there?")


def _is_ready(channel: grpc.Channel, timeout_s: float) -> bool:
    try:
        grpc.channel_ready_future(channel).result(timeout=timeout_s)
    except grpc.FutureTimeoutError:
        return False
    return True


def _health(channel: grpc.Channel, way: Target) -> Finding:
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=way.timeout_s)  # type: ignore[attr-defined]  # the stubs leave it out
    except grpc.RpcError as error:
        return bad("coordinator", _said(error), "Is it a coordinator that listens there? Its log says whom it refused")
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status).lower().replace("_", " ")
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        return warning("coordinator", state, "It is starting, recovering or ending: a client waits by itself")
    return good("coordinator", state)


def _probed(channel: grpc.Channel, way: Target) -> Iterator[Finding]:
    probe = _Probe(rpc.CoordinatorStub(channel))
    try:
        reply, round_trip_s = min((probe.once(0, 0) for _ in range(EMPTY_PROBES)), key=itemgetter(1))
        yield same_version(reply.coordinator_version)
        reply, took_s = probe.once(0, 0)
        yield same_clock(reply.unix_s - (time.time() - took_s / 2))
        up, down = probe.rate(round_trip_s, up=True), probe.rate(round_trip_s, up=False)
    except grpc.RpcError as error:
        yield skipped("bandwidth", _said(error))
        return
    rates = f"up {up / 1e6:.1f} Mbit/s, down {down / 1e6:.1f} Mbit/s"
    yield good("bandwidth", f"{rates} of payload, round trip {1000 * round_trip_s:.1f} ms")


@dataclass(frozen=True, slots=True)
class _Probe:
    stub: rpc.CoordinatorStub

    def once(self, up_bytes: int, down_bytes: int) -> tuple[pb.ProbeReply, float]:
        """The reply, and the seconds it took."""
        request = pb.ProbeRequest(payload=os.urandom(up_bytes), answer_bytes=down_bytes)
        began_s = time.monotonic()
        reply: pb.ProbeReply = self.stub.Probe(request, metadata=((IDENTITY_KEY, "doctor"),), timeout=PROBE_TIMEOUT_S)
        return reply, time.monotonic() - began_s

    def rate(self, round_trip_s: float, *, up: bool) -> float:
        """Bits a second one way: the best of probes that grow, less the round trip that each of them waits."""
        best = 0.0
        for size in PROBES_BYTES:
            _, took_s = self.once(size if up else 0, 0 if up else size)
            # On a fast line the difference drowns in the noise of the round trip.
            best = max(best, 8 * size / max(took_s - round_trip_s, took_s / 2))
            if took_s > LONG_ENOUGH_S:
                break
        return best


def same_version(theirs: str) -> Finding:
    """Whether both sides are of one version."""
    if theirs == __version__:
        return good("same version", theirs)
    step = "Update the older side, the coordinator first"
    return warning("same version", f"the coordinator has {theirs}, this client {__version__}", step)


def same_clock(apart_s: float) -> Finding:
    """Whether both clocks agree; `apart_s` is the coordinator's less this one."""
    seen = f"the coordinator's is {abs(apart_s):.1f} s {'ahead' if apart_s > 0 else 'behind'}"
    if abs(apart_s) > BAD_APART_S:
        step = "Set the clock that is wrong, and let an NTP client keep it: certificates expire by it"
        return bad("same clock", seen, step)
    if abs(apart_s) > GOOD_APART_S:
        return warning("same clock", seen, "Let an NTP client keep both clocks")
    return good("same clock", seen)


def _said(error: grpc.RpcError) -> str:
    return f"{error.code().name.lower().replace('_', ' ')}: {error.details() or 'no details'}"
