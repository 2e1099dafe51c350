"""`doctor` on a client's machine: what it is, and every step of the way to a coordinator, each with what to do.

The way is tried from below: name, proxy, port, TLS, gRPC, the coordinator's answer, bytes in both directions. Where a
step fails, those above it cannot say anything and are left out, so that what is read is the cause. An invitation that
was not used yet is not used up: its ports and the root that it names are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedprune.checkup import machine, reach
from fedprune.checkup.findings import Finding, State, good, skipped, trouble
from fedprune.errors import ConfigError, FedpruneError
from fedprune.pki.invitation import Invitation
from fedprune_client.config import JOINED, joined_coordinator

ASK = "Ask the coordinator's operator for an invitation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What is to be tried: the coordinator at `host`:`port`, in plaintext or as the holder of `credentials`; `join` is
    an invitation that has not been used."""

    host: str
    port: int
    credentials: Path | None
    timeout_s: float
    join: Invitation | None = None

    @classmethod
    def to(cls, server: str, *, credentials: Path | None, timeout_s: float, join: Invitation | None = None) -> Way:
        """Read HOST:PORT. Raises `ConfigError`."""
        host, _, port = server.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ConfigError("the coordinator's address cannot be read", seen=server, expected="HOST:PORT")
        return cls(host=host.strip("[]"), port=int(port), credentials=credentials, timeout_s=timeout_s, join=join)


def way_from_flags(
    server: str | None, *, credentials: Path | None, join: str | None, state: Path, timeout_s: float
) -> Way | None:
    """What a client started with these flags would dial; None where nothing says so."""
    invitation = None if join is None else Invitation.parse(join)
    reached = joined_coordinator(state / JOINED)
    named = server or (invitation.server if invitation is not None else reached)
    if not named:
        return None
    if credentials is None and reached == named:
        credentials, invitation = state / JOINED, None
    return Way.to(named, credentials=credentials, timeout_s=timeout_s, join=invitation)


def check(way: Way | None, *, state: Path) -> Iterator[Finding]:
    """Everything in order, as it is found; without a way this machine only."""
    yield machine.versions()
    yield machine.disk(state, what="sealed results and residuals")
    yield machine.clock()
    if way is None:
        yield skipped("coordinator", "name one as HOST:PORT, or give --join LINE, to try the way to it")
        return
    if way.credentials is not None:
        # Cryptography is loaded where there is a certificate: what the machine says comes at once.
        from fedprune.checkup import papers

        held = papers.certificate(way.credentials, next_step=ASK)
        yield held
        if held.state is State.BAD:
            return
    yield from _the_way(way)


def _the_way(way: Way) -> Iterator[Finding]:
    found, addresses = reach.name(way.host, way.port, timeout_s=way.timeout_s)
    yield found
    if not addresses:
        return
    yield reach.proxy(way.host)
    found, open_ = reach.port(addresses, way.port, timeout_s=way.timeout_s)
    yield found
    if way.join is not None:
        yield from _invited(way.join, addresses, way.timeout_s)
        return
    if not open_:
        return
    # gRPC is loaded when the way leads to it: what this machine says comes at once.
    from fedprune_client.probing import answers
    from fedprune_client.tls_check import tls

    found = tls(open_[0], way)
    yield found
    if found.state is not State.BAD:
        yield from answers(way, open_[0])


def _invited(join: Invitation, addresses: list[str], timeout_s: float) -> Iterator[Finding]:
    """What can be told before the invitation is used: nobody but who has a certificate gets further."""
    found, open_ = reach.port(addresses, join.enrol_port, timeout_s=timeout_s, what="enrolment port")
    yield found
    if not open_:
        return
    from fedprune_client.enrolling import root_of

    try:
        root_of(join)
    except FedpruneError as error:
        yield trouble("invitation", error, "Ask who invited you for a new one")
        return
    yield good("invitation", f"the coordinator's root is the one it names, {join.ca[:16]}")
    yield skipped("coordinator", "join first, with the same line: fedprune client --join LINE --task task.py")
