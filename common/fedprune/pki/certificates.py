"""Certificates: an offline root, an issuing authority that it signs, and short-lived leaves for everyone.

Every leaf serves both ends of a connection: what somebody may do is decided by the role in it, not by its key usage.
Validity begins an hour early, for clocks that are a little behind.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedprune.errors import ConfigError, DecodeError, IdentityError
from fedprune.pki.keys import PrivateKey, PublicKey, checked_public, new_key
from fedprune.pki.subject import Subject

ROOT_LIFE = timedelta(days=20 * 365)
ISSUING_LIFE = timedelta(days=2 * 365)
SERVER_LIFE = timedelta(days=30)
CLIENT_LIFE = timedelta(days=7)
# Longer, because nothing runs that could renew it.
OPERATOR_LIFE = timedelta(days=90)
EARLY = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Someone who signs certificates: its own one, and the key."""

    certificate: x509.Certificate
    key: PrivateKey


def new_root(federation: str, now: datetime) -> Authority:
    """A root that may sign issuing authorities."""
    key = new_key()
    name = _name(f"{federation} root {now:%Y-%m-%d}")
    return Authority(certificate=_authority(name, key.public_key(), name, key, now, ROOT_LIFE, depth=2), key=key)


def new_issuing(root: Authority, federation: str, now: datetime) -> Authority:
    """An authority under `root` that may sign leaves only."""
    key = new_key()
    name = _name(f"{federation} issuing {now:%Y-%m-%d %H:%M:%S}")
    issuer = root.certificate.subject
    return Authority(
        certificate=_authority(name, key.public_key(), issuer, root.key, now, ISSUING_LIFE, depth=0), key=key
    )


def cross_sign(root: Authority, older: Authority, now: datetime) -> x509.Certificate:
    """`root`'s name and key signed by an older root, for those who know only that one."""
    subject = root.certificate.subject
    issuer = older.certificate.subject
    return _authority(subject, root.key.public_key(), issuer, older.key, now, ISSUING_LIFE, depth=1)


def issue(
    issuing: Authority,
    key: PublicKey,
    subject: Subject,
    *,
    now: datetime,
    life: timedelta,
    hosts: Sequence[str] = (),
) -> x509.Certificate:
    """A leaf for the holder of `key`, which may be reached under `hosts` (names and addresses)."""
    ends = min(now + life, issuing.certificate.not_valid_after_utc)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [x509.UniformResourceIdentifier(subject.uri), *(_host(host) for host in hosts)]
    builder = (
        _builder(_name(subject.name), key, issuing.certificate.subject, issuing.key, now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return builder.sign(issuing.key, hashes.SHA256())


def request_pem(key: PrivateKey) -> bytes:
    """A request for a certificate (PKCS #10). It proves that its sender holds the key, and claims nothing else."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def requested_key(pem: bytes, *, party: str) -> PublicKey:
    """The key a request is for. Raises `DecodeError` when it is none, `IdentityError` when it is not signed by that key."""
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
    except ValueError as error:
        raise DecodeError("not a request for a certificate", party=party, seen=f"{len(pem)} bytes") from error
    checked = checked_public(key, party=party)
    if not request.is_signature_valid:
        raise IdentityError("the request is not signed by its own key", party=party)
    return checked


def chain_pem(*certificates: x509.Certificate) -> bytes:
    """Certificates one after another, as TLS wants them: the leaf first."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def read_chain(pem: bytes, *, party: str) -> list[x509.Certificate]:
    """The certificates of a file, at least one. Raises `ConfigError`."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError("holds no certificate", party=party, expected="PEM") from error


def subject_of(certificate: x509.Certificate, *, party: str) -> Subject:
    """The holder of a leaf. Raises `IdentityError` when the certificate names none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise IdentityError("the certificate names nobody", party=party) from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    found = [subject for uri in uris if (subject := Subject.of_uri(uri)) is not None]
    if len(found) != 1:
        raise IdentityError("the certificate names nobody of a federation", party=party, seen=uris)
    return found[0]


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Names and addresses under which the holder may be reached."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, in hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _authority(
    name: x509.Name,
    key: PublicKey,
    issuer: x509.Name,
    signer: PrivateKey,
    now: datetime,
    life: timedelta,
    *,
    depth: int,
) -> x509.Certificate:
    builder = (
        _builder(name, key, issuer, signer, now, now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return builder.sign(signer, hashes.SHA256())


def _builder(
    name: x509.Name, key: PublicKey, issuer: x509.Name, signer: PrivateKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError("not a host name or address", seen=repr(host), next_step="Write it in ASCII") from error


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
