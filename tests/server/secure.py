"""A server that answers every call of the wire with nothing, behind the real border and real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from fedprune.network_section import NetworkSection
from fedprune.pki import keys
from fedprune.pki.certificates import chain_pem
from fedprune.pki.credentials import Credentials
from fedprune.pki.subject import Role, Subject
from fedprune_server.access import ROLES, WITHOUT_IDENTITY
from fedprune_server.authority.office import Office
from fedprune_server.interceptors import Border, caller
from fedprune_server.limits import Limits
from fedprune_server.security import Secured

WEEK = timedelta(days=7)
STREAMS = {"Work": "stream_stream", "Submit": "stream_stream", "Pull": "unary_stream"}


@dataclass
class Silent(grpc.GenericRpcHandler):
    """Says who called; streams go on until the caller ends them."""

    reached: list[str] = field(default_factory=list)

    def service(self, details: Any) -> Any:
        async def once(request: bytes, context: Any) -> bytes:
            self.reached.append(details.method)
            return caller().identity.encode()

        async def for_ever(request: Any, context: Any) -> AsyncIterator[bytes]:
            self.reached.append(details.method)
            yield caller().identity.encode()
            await asyncio.Event().wait()

        kind = STREAMS.get(details.method.rpartition("/")[2], "unary_unary")
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(once if kind == "unary_unary" else for_ever)


@dataclass
class Site:
    """A server at `address`, its authority, and what its audit was told."""

    office: Office
    security: Secured
    border: Border
    silent: Silent
    notes: list[tuple[str, dict[str, Any]]]
    address: str = ""

    def member(self, role: Role, *, began: timedelta = timedelta()) -> Credentials:
        """Somebody with a key and a certificate that was issued so long ago."""
        return certified(self.office, role, began=began)

    async def call(self, method: str, credentials: Credentials | None, *, trust: Any = None) -> str:
        """The status of one call: "OK" once something came back."""
        async with channel(self.address, credentials, trust or self.office.trust[0]) as open_channel:
            return await status(open_channel, method)


def certified(office: Office, role: Role, *, began: timedelta = timedelta(), name: str = "") -> Credentials:
    key = keys.new_key()
    subject = Subject(federation="wards", role=role, name=name or role.value)
    chain = office.certify(key.public_key(), subject, datetime.now(UTC) - began, life=WEEK, why="provided")
    return Credentials(key=key, chain=tuple(chain), trust=tuple(office.trust))


@asynccontextmanager
async def channel(address: str, credentials: Credentials | None, root: Any) -> AsyncIterator[grpc.aio.Channel]:
    mine = (None, None) if credentials is None else (credentials.key_pem, credentials.chain_pem)
    tls = grpc.ssl_channel_credentials(chain_pem(root), *mine)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    async with grpc.aio.secure_channel(address, tls, options=options) as open_channel:
        yield open_channel


async def status(open_channel: grpc.aio.Channel, method: str) -> str:
    kind = STREAMS.get(method.rpartition("/")[2], "unary_unary")
    make: Callable[..., Any] = getattr(open_channel, kind)
    try:
        if kind == "unary_unary":
            await make(method)(b"", timeout=100)
        else:
            call = make(method)(*(() if kind == "stream_stream" else (b"",)), timeout=100)
            if await call.read() is grpc.aio.EOF:
                return str((await call.code()).name)
            call.cancel()
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@asynccontextmanager
async def secured(
    folder: Path, *, host: str = "127.0.0.1", now: Callable[[], datetime] | None = None
) -> AsyncIterator[Site]:
    office = Office.found(folder / "certs", federation="wards", hosts=["127.0.0.1"], now=datetime.now(UTC))
    notes: list[tuple[str, dict[str, Any]]] = []

    async def settled() -> None:
        notes.append(("settled", {}))

    security = Secured(office.folder, note=lambda what, **facts: notes.append((what, facts)), settled=settled)
    border = Border(Limits(NetworkSection()), security.admission)
    silent = Silent()
    site = Site(office=office, security=security, border=border, silent=silent, notes=notes)
    server = grpc.aio.server(interceptors=[border])
    server.add_generic_rpc_handlers((silent,))
    site.address = f"{host}:{security.add_port(server, f'{host}:0')}"
    await security.look(border.leashes)
    await server.start()
    try:
        yield site
    finally:
        await server.stop(0)


CALLS = sorted(ROLES.keys() | WITHOUT_IDENTITY | {"/grpc.health.v1.Health/List", "/fedprune.v1.Coordinator/Nothing"})
