"""The coordinator's side of TLS: its certificate, whose certificates it takes, and who a connection belongs to.

The files are looked at whenever somebody connects, so a renewed certificate or another root needs no restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from fedprune.errors import FedpruneError, IdentityError
from fedprune.pki.certificates import subject_of
from fedprune.pki.credentials import CERTIFICATE, KEY, TRUST, Credentials
from fedprune.pki.keys import checked_public, identity_of, spki
from fedprune.pki.subject import Subject

log = logging.getLogger("fedprune.tls")


class Presented:
    """What the coordinator shows to who connects: the credentials of a folder, as they are now."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = self._look()
        self._current = _configuration(Credentials.load(folder))

    def port_credentials(
        self, *, require_certificate: bool, begun: Callable[[], None] = lambda: None
    ) -> grpc.ServerCredentials:
        """For a port; with `require_certificate`, callers without a certificate of ours do not get through. `begun` is
        called at the beginning of each handshake, by a thread of gRPC's."""

        def asked() -> grpc.ServerCertificateConfiguration | None:
            begun()
            return self._changed()

        fetch: Any = asked  # the published type leaves out None, which says that nothing changed
        return grpc.dynamic_ssl_server_credentials(self._current, fetch, require_certificate)

    def _look(self) -> tuple[tuple[int, int], ...]:
        files = [(self._folder / name).stat() for name in (KEY, CERTIFICATE, TRUST)]
        return tuple((file.st_mtime_ns, file.st_ino) for file in files)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC for each connection: the new configuration, or None for the one it has."""
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return None
            self._current, self._stamp = _configuration(Credentials.load(self._folder)), stamp
        except (OSError, FedpruneError) as error:
            # In the middle of a change, or a mistake in it: the certificate in use is still good.
            log.warning("the new certificate cannot be used: %s", error)
            return None
        return self._current


def _configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    pair = (credentials.key_pem, credentials.chain_pem)
    return grpc.ssl_server_certificate_configuration([pair], credentials.trust_pem)


class Shown:
    """A caller's certificate, read once for each connection's many calls."""

    __slots__ = ("identity", "not_after", "not_before", "spki", "subject")

    def __init__(self, certificate: x509.Certificate, party: str) -> None:
        key = checked_public(certificate.public_key(), party=party)
        self.identity = identity_of(key)
        self.spki = spki(key)
        self.subject: Subject = subject_of(certificate, party=party)
        self.not_before: datetime = certificate.not_valid_before_utc
        self.not_after: datetime = certificate.not_valid_after_utc


def shown(context: grpc.aio.ServicerContext[Any, Any]) -> Shown:
    """The certificate that the caller's connection was made with; TLS has checked its signatures. Raises
    `IdentityError` when there is none, or it names nobody."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
    if not pem:
        raise IdentityError("call without a certificate", party=context.peer())
    return _shown(pem)


@lru_cache(maxsize=4096)
def _shown(pem: bytes) -> Shown:
    return Shown(x509.load_pem_x509_certificate(pem), "the caller's certificate")
