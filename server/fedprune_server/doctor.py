"""`doctor` on the coordinator's machine: versions, disk, clock, certificates, the names clients will dial, the ports.

A port that is taken is no trouble when the coordinator itself has it. How fast bytes go to a client only a client can
tell: `doctor` there.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedprune.addresses import is_loopback
from fedprune.checkup import machine, reach
from fedprune.checkup.findings import Finding, State, bad, good, skipped, warning
from fedprune.errors import ConfigError, FedpruneError
from fedprune_server.authority.folder import AUTHORITY, ISSUING, LOCAL_HOSTS, ROOT, SERVER

LOCAL, EVERYWHERE = "127.0.0.1", ("0.0.0.0", "::")
RENEW = "Start the coordinator where issuing/ is, which renews it; or make it again with `fedprune certs issue`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a coordinator listens, or is going to: `address` is HOST:PORT, `certs` its folder of certificates where it
    has one, `enrol_port` the port beside it, `out` the folder of the runs."""

    address: str
    certs: Path | None
    enrol_port: int
    out: Path
    timeout_s: float

    @property
    def host(self) -> str:
        """The host of `address`, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of `address`. Raises `ConfigError`."""
        port = self.address.rpartition(":")[2]
        if not self.host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ConfigError("the address cannot be read", seen=self.address, expected="HOST:PORT")
        return int(port)

    @property
    def shown(self) -> Path | None:
        """The folder of what the coordinator shows."""
        if self.certs is None:
            return None
        return self.certs / SERVER if (self.certs / SERVER).is_dir() else self.certs


def check(place: Place) -> Iterator[Finding]:
    """Everything in order, as it is found."""
    port = place.port
    yield machine.versions()
    yield machine.disk(place.out, what="runs")
    yield machine.clock()
    yield from _certificates(place)
    yield _port("port", place, port)
    if place.certs is not None and _can_issue(place.certs):
        yield _port("enrolment port", place, place.enrol_port)
    yield skipped("bandwidth", "can be told from a client's machine only: fedprune doctor client HOST:PORT")


def _certificates(place: Place) -> Iterator[Finding]:
    shown = place.shown
    if shown is None or place.certs is None:
        if is_loopback(place.address):
            yield good("certificate", "none is needed: only this machine reaches the address")
        else:
            yield bad(
                "certificate", f"none, for {place.address}", "fedprune certs init HOST, with the name clients dial"
            )
        return
    # Cryptography is loaded where there is a certificate: what the machine says comes at once.
    from fedprune.checkup import papers

    found = papers.certificate(shown, next_step=RENEW)
    yield found
    if found.state is State.BAD:
        return
    yield from _names(shown, place)
    yield _authority(place.certs)


def _names(shown: Path, place: Place) -> Iterator[Finding]:
    """Whether the names in the certificate are names of a machine at all, and there are others than this machine's own."""
    from fedprune.pki.certificates import hosts_of
    from fedprune.pki.credentials import Credentials

    hosts = [host for host in hosts_of(Credentials.load(shown).leaf) if host not in LOCAL_HOSTS]
    if not hosts and not is_loopback(place.address):
        yield bad(
            "names", "the certificate is for this machine only", "Make one for the name that clients dial: certs init"
        )
    for host in hosts:
        yield reach.name(host, place.port, timeout_s=place.timeout_s)[0]


def _authority(certs: Path) -> Finding:
    if (certs / ROOT / AUTHORITY).is_file():
        step = "Move the folder to a place without a network; only `certs rotate` needs it"
        return warning("authority", f"the root's key is in {certs / ROOT}", step)
    if not _can_issue(certs):
        return warning(
            "authority", "no key to issue with", "Nobody enrols or renews here: certificates come from elsewhere"
        )
    return good("authority", "issues and renews; the root's key is elsewhere")


def _can_issue(certs: Path) -> bool:
    return (certs / ISSUING / AUTHORITY).is_file()


def _port(what: str, place: Place, port: int) -> Finding:
    try:
        _bind(place.host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _taken(what, place, port)
        step = "Give an address of this machine, or 0.0.0.0 for all of them; ports below 1024 need a right of their own"
        return bad(what, f"{place.host}:{port}: {(error.strerror or str(error)).lower()}", step)
    return good(what, f"{place.host}:{port} is free; clients must reach it through every firewall")


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        # Connections of a coordinator that has just ended are none of ours.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)


def _taken(what: str, place: Place, port: int) -> Finding:
    """A port that somebody has: fine where a coordinator answers at the address to these certificates."""
    # gRPC is loaded where somebody is to be asked: what this machine says comes at once.
    from fedprune_server.health import SERVING, state_of

    host = LOCAL if place.host in EVERYWHERE else place.host
    address = f"[{host}]:{place.port}" if ":" in host else f"{host}:{place.port}"
    try:
        state = state_of(address, timeout_s=place.timeout_s, credentials=place.shown)
    except FedpruneError as error:
        return bad(
            what, f"{port} is taken, and {error.problem}", "See who has it (ss -ltnp), or listen on another port"
        )
    if state != SERVING:
        return warning(what, f"{port} is taken: a coordinator is {state} here", "It is starting, recovering or ending")
    return good(what, f"{port} is taken: a coordinator is serving here")
