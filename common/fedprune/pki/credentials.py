"""What one party shows to another: a folder with its key, its certificate chain and the roots it trusts.

The file names are those of Kubernetes' TLS secrets and of most tools, so that a folder can become a secret as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from fedprune.errors import ConfigError
from fedprune.pki import files
from fedprune.pki.certificates import chain_pem, read_chain, subject_of
from fedprune.pki.keys import PrivateKey, checked_public, identity_of, key_pem, read_key
from fedprune.pki.subject import Subject

KEY, CERTIFICATE, TRUST = "tls.key", "tls.crt", "ca.crt"
# A certificate is renewed when this share of its life is over.
RENEW_AFTER = 2 / 3
MISSING = "Make certificates with `fedprune certs init`, or join with an invitation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """`chain` is the leaf and what leads from it to a root; `trust` are the roots, one or more."""

    key: PrivateKey
    chain: tuple[x509.Certificate, ...]
    trust: tuple[x509.Certificate, ...]

    def __post_init__(self) -> None:
        if identity_of(self.key.public_key()) != self.identity:
            raise ConfigError(
                "key and certificate do not belong together", party=self.subject.name, next_step="Restore both files"
            )

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate of the holder."""
        return self.chain[0]

    @property
    def subject(self) -> Subject:
        """Who the holder is, by its certificate."""
        return subject_of(self.leaf, party="our own certificate")

    @property
    def identity(self) -> str:
        """Who the holder is, by its key."""
        return identity_of(checked_public(self.leaf.public_key(), party="our own certificate"))

    @property
    def key_pem(self) -> bytes:
        """The key, for TLS."""
        return key_pem(self.key)

    @property
    def chain_pem(self) -> bytes:
        """The certificates to show, for TLS."""
        return chain_pem(*self.chain)

    @property
    def trust_pem(self) -> bytes:
        """The roots, for TLS."""
        return chain_pem(*self.trust)

    def due(self, now: datetime) -> bool:
        """Whether it is time to renew the certificate."""
        return now >= self.renewal

    @property
    def renewal(self) -> datetime:
        """When it is time to renew the certificate."""
        begins, ends = self.leaf.not_valid_before_utc, self.leaf.not_valid_after_utc
        return begins + (ends - begins) * RENEW_AFTER

    def check_current(self, now: datetime, *, next_step: str) -> None:
        """Raise `ConfigError` when the certificate is not valid at this time."""
        begins, ends = self.leaf.not_valid_before_utc, self.leaf.not_valid_after_utc
        if not begins <= now <= ends:
            raise ConfigError(
                "the certificate is expired, or this machine's clock is wrong",
                party=self.subject.name,
                seen=f"{now:%Y-%m-%d %H:%M} UTC",
                expected=f"{begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC",
                next_step=next_step,
            )

    def save(self, folder: Path) -> None:
        """Write the three files; the certificate comes last, so that it never waits for its key."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write(folder / KEY, self.key_pem, files.SECRET)
        files.write(folder / TRUST, self.trust_pem)
        files.write(folder / CERTIFICATE, self.chain_pem)

    @classmethod
    def load(cls, folder: Path) -> Credentials:
        """Read a folder. Raises `ConfigError` saying which file is missing or wrong."""
        key, chain, trust = (files.read(folder / name, next_step=MISSING) for name in (KEY, CERTIFICATE, TRUST))
        return cls(
            key=read_key(key, party=str(folder / KEY)),
            chain=tuple(read_chain(chain, party=str(folder / CERTIFICATE))),
            trust=tuple(read_chain(trust, party=str(folder / TRUST))),
        )
