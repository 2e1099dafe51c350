"""Who comes in over TLS: the holder of a certificate of ours, of a role that may make this call, not revoked.

TLS itself has checked that the certificate leads to a root of the federation and was valid when the connection began;
everything that can change afterwards is checked here, at each call.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc

from fedprune.errors import BusyError, FedpruneError
from fedprune_server import access
from fedprune_server.interceptors import Caller
from fedprune_server.leashes import expired
from fedprune_server.limits import TokenBucket
from fedprune_server.tls import shown

# Refusals that one address may collect: so many at once, and so many a second in the long run.
REFUSALS_AT_ONCE, REFUSALS_PER_S = 20.0, 0.2
# Addresses that are remembered; whoever comes from more of them than that is a matter for a firewall.
MOST_ADDRESSES = 4096


class Refusals:
    """Who was refused how often, by address: after too many, an address waits before it is listened to again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def check(self, peer: str) -> None:
        """Raise `BusyError` for an address that was refused too often."""
        bucket = self._buckets.get(address_of(peer))
        if bucket is not None and bucket.take(0.0, self._clock()) > 0:
            raise BusyError("refused too often", party=address_of(peer), next_step="Try again later")

    def count(self, peer: str) -> None:
        """This address was refused."""
        address = address_of(peer)
        bucket = self._buckets.setdefault(address, TokenBucket(REFUSALS_PER_S, REFUSALS_AT_ONCE))
        self._buckets.move_to_end(address)
        bucket.take(1.0, self._clock())
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)


class Certified:
    """The admission of a coordinator with TLS. `refused` is told of everybody who was not let in, `let_in` of who was."""

    health_is_open = False

    def __init__(
        self,
        *,
        refused: Callable[[str, str], None],
        now: Callable[[], datetime] | None = None,
        let_in: Callable[[str], None] = lambda peer: None,
    ) -> None:
        self._let_in = let_in
        self._refused = refused
        self._now = now or (lambda: datetime.now(UTC))
        self._refusals = Refusals()

    def admit(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """The caller, by its certificate. Raises `IdentityError` or `RoleError`; `BusyError` when that came too often
        from its address."""
        self._refusals.check(context.peer())
        try:
            admitted = self._admitted(method, context)
        except FedpruneError as error:
            self._refusals.count(context.peer())
            self._refused(context.peer(), str(error))
            raise
        self._let_in(context.peer())
        return admitted

    def _admitted(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        certificate = shown(context)
        subject, now = certificate.subject, self._now()
        if not certificate.not_before <= now <= certificate.not_after:
            raise expired(subject.name)
        access.check(method, subject.role, party=f"{subject.name} ({certificate.identity[:16]})")
        return Caller(
            identity=certificate.identity,
            peer=context.peer(),
            name=subject.name,
            role=subject.role,
            spki=certificate.spki,
            longest_s=(certificate.not_after - now).total_seconds(),
        )


def address_of(peer: str) -> str:
    """gRPC's name of a connection ("ipv4:10.0.0.1:5000") without its port."""
    return peer.rpartition(":")[0]
