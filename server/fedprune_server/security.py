"""What a coordinator with TLS does beside its runs: it renews its certificate and notices who was revoked.

It looks once a second, so that a revocation by a command in another process has its effect well within five seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc

from fedprune.errors import FedpruneError
from fedprune.v1 import enrolment_pb2_grpc as rpc
from fedprune_server.admission import Certified
from fedprune_server.authority.folder import REGISTER, SERVER
from fedprune_server.authority.office import Office
from fedprune_server.enrolment import RenewalService, listen
from fedprune_server.interceptors import Admission, Claimed
from fedprune_server.knocking import Knocks
from fedprune_server.leashes import Leashes
from fedprune_server.tls import Presented

LOOK_S = 1.0

log = logging.getLogger("fedprune.security")

Note = Callable[..., None]


class Plain:
    """A coordinator without TLS: nothing to renew, nobody to revoke."""

    admission: Admission = Claimed()

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Listen at `address`; gives the port."""
        return server.add_insecure_port(address)

    async def look(self, leashes: Leashes) -> None:
        """Nothing happens here."""

    async def open_enrolment(self, address: str) -> int:
        """Nobody enrols here."""
        return 0

    async def close(self) -> None:
        """Nothing is open."""


class Secured:
    """A coordinator that shows the certificate in `certs`/server and takes callers with certificates of the same roots.

    `note` is told what the audit keeps; `settled` waits for the results that are being accepted. Without a register
    beside it (certificates made elsewhere) nobody can be revoked here."""

    def __init__(self, certs: Path, *, note: Note, settled: Callable[[], Awaitable[None]]) -> None:
        self.office = Office(certs) if (certs / REGISTER).is_file() else None
        self._note = note
        self._settled = settled
        self._revoked: set[str] = set()
        self._enrolment: grpc.aio.Server | None = None
        if self.office is not None and self.office.can_issue:
            self.office.renew_server(datetime.now(UTC))
        self.presented = Presented(certs / SERVER if (certs / SERVER).is_dir() else certs)
        self.knocks = Knocks()
        self.admission: Admission = Certified(
            refused=lambda peer, why: note("refused", peer=peer, reason=why), let_in=self.knocks.let_in
        )

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Listen at `address`; gives the port."""
        rpc.add_RenewalServicer_to_server(RenewalService(self.office), server)
        shown = self.presented.port_credentials(require_certificate=True, begun=self.knocks.begun)
        self.knocks.port = server.add_secure_port(address, shown)
        return self.knocks.port

    async def open_enrolment(self, address: str) -> int:
        """Listen for newcomers at HOST:PORT, where certificates are issued; gives the port, 0 where they are not."""
        if self.office is None or not self.office.can_issue:
            return 0
        self._enrolment, port = await listen(self.office, self.presented, address, self._note)
        return port

    async def close(self) -> None:
        """Let nobody enrol any more."""
        if self._enrolment is not None:
            await self._enrolment.stop(grace=None)

    async def look(self, leashes: Leashes) -> None:
        """Cut off who was revoked since the last look, and renew our own certificate when it is due."""
        if self.office is None:
            return
        try:
            revoked = await asyncio.to_thread(self.office.register.revoked)
            if fresh := sorted(revoked.keys() - self._revoked):
                cut = await asyncio.gather(*(leashes.cut(identity) for identity in fresh))
                # What was being accepted when the calls ended is noted before: behind a revocation nothing follows.
                await self._settled()
                for identity, calls in zip(fresh, cut, strict=True):
                    self._note("revoked", identity=identity, reason=revoked[identity], calls=calls)
                self._revoked |= revoked.keys()
            if self.office.can_issue and await asyncio.to_thread(self.office.renew_server, datetime.now(UTC)):
                log.info("the coordinator's certificate was renewed")
        except FedpruneError as error:
            log.error(str(error))


async def watch(security: Plain | Secured, leashes: Leashes) -> None:
    """Look again and again, for as long as this runs."""
    while True:
        await asyncio.sleep(LOOK_S)
        await security.look(leashes)
