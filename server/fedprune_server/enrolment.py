"""How clients come by certificates: by an invitation, on a port of its own, and by the certificate they have.

The enrolment port asks nobody for a certificate, and nothing but enrolment answers there. Asking for the roots gives
public bytes; asking for a certificate takes an invitation, and wrong ones are counted against the address they come
from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc
from cryptography import x509

from fedprune.errors import ConfigError, DecodeError, IdentityError, RoleError, UnavailableError
from fedprune.network_section import NetworkSection
from fedprune.pki.certificates import chain_pem, requested_key
from fedprune.pki.keys import PublicKey, identity_of
from fedprune.pki.subject import Subject
from fedprune.v1 import enrolment_pb2 as pb
from fedprune.v1 import enrolment_pb2_grpc as rpc
from fedprune_server.access import WITHOUT_IDENTITY
from fedprune_server.admission import Refusals, address_of
from fedprune_server.authority.office import Office
from fedprune_server.interceptors import Border, Caller, caller
from fedprune_server.knocking import Knocks
from fedprune_server.limits import Limits
from fedprune_server.tls import Presented

# What a request or an invitation can be long at most, with room to spare.
MAX_REQUEST_BYTES = 1 << 14
MAX_CALLS, MAX_ADDRESS_CALLS, MAX_CONNECTIONS = 64, 8, 256
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 4),
)


Note = Callable[..., None]


class Newcomers:
    """The admission of the enrolment port: anybody, by address, unless too much of it was wrong."""

    health_is_open = False

    def __init__(self) -> None:
        self.refusals = Refusals()
        self.knocks = Knocks()

    def admit(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """The caller, known by its address only."""
        peer = context.peer()
        self.refusals.check(peer)
        if method not in WITHOUT_IDENTITY:
            raise RoleError("nothing but enrolment answers here", party=address_of(peer))
        self.knocks.let_in(peer)
        return Caller(identity=f"newcomer at {address_of(peer)}", peer=peer)


class EnrolmentService(rpc.EnrolmentServicer):
    """`fedprune.v1.Enrolment`, over one office. `note` is told who came."""

    def __init__(self, office: Office, refusals: Refusals, note: Note) -> None:
        self._office = office
        self._refusals = refusals
        self._note = note

    async def Roots(self, request: pb.RootsRequest, context: Any) -> pb.RootsReply:
        """The roots: public, and believed by their fingerprint only."""
        return pb.RootsReply(trust_pem=chain_pem(*await asyncio.to_thread(lambda: self._office.trust)))

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.Certificates:
        """A certificate for who has an invitation."""
        try:
            key = requested_key(request.request_pem, party=caller().identity)
            chain = await asyncio.to_thread(self._office.enrol, request.token, key, datetime.now(UTC))
        except (IdentityError, DecodeError) as error:
            self._refusals.count(caller().peer)
            self._note("enrolment refused", peer=caller().peer, reason=str(error))
            # Other than a certificate that is over, a wrong invitation does not become right by waiting.
            raise RoleError(str(error)) from error
        self._note("enrolled", identity=identity_of(key), peer=caller().peer)
        return _certificates(self._office, chain)


class RenewalService(rpc.RenewalServicer):
    """`fedprune.v1.Renewal`: the same key and name as in the caller's certificate, for longer."""

    def __init__(self, office: Office | None) -> None:
        self._office = office

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.Certificates:
        """A new certificate for the caller's key."""
        who = caller()
        key = requested_key(request.request_pem, party=who.party)
        if identity_of(key) != who.identity or who.role is None:
            raise RoleError("asks for a certificate for another key than its own", party=who.party)
        if self._office is None or not self._office.can_issue:
            raise UnavailableError("no authority here that could renew", party="the coordinator")
        return _certificates(self._office, await asyncio.to_thread(self._renew, self._office, key, who))

    @staticmethod
    def _renew(office: Office, key: PublicKey, who: Caller) -> Sequence[x509.Certificate]:
        assert who.role is not None
        subject = Subject(federation=office.federation, role=who.role, name=who.name)
        return office.renew(key, subject, datetime.now(UTC))


def _certificates(office: Office, chain: Sequence[x509.Certificate]) -> pb.Certificates:
    return pb.Certificates(chain_pem=chain_pem(*chain), trust_pem=chain_pem(*office.trust))


async def listen(office: Office, presented: Presented, address: str, note: Note) -> tuple[grpc.aio.Server, int]:
    """Open the enrolment port at HOST:PORT; gives the server and the port. Raises `ConfigError` when it is taken."""
    newcomers = Newcomers()
    network = NetworkSection(max_calls=MAX_CALLS, max_client_calls=MAX_ADDRESS_CALLS)
    server = grpc.aio.server(
        interceptors=[Border(Limits(network), newcomers)], options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS
    )
    rpc.add_EnrolmentServicer_to_server(EnrolmentService(office, newcomers.refusals, note), server)
    try:
        shown = presented.port_credentials(require_certificate=False, begun=newcomers.knocks.begun)
        port = newcomers.knocks.port = server.add_secure_port(address, shown)
    except RuntimeError as error:
        raise ConfigError(
            "cannot listen for enrolments: the port is in use",
            seen=address,
            next_step="Give another [network] enrol_port, also to `fedprune invite --enrol-port`",
        ) from error
    await server.start()
    return server, port
