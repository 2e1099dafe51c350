"""`doctor`'s look at TLS: what the coordinator shows, under which names, until when, and whether we trust each other.

Python's own TLS is used, not gRPC's, which says little more than that it did not work.
"""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from fedprune.checkup.findings import Finding, bad, good, skipped
from fedprune.pki.certificates import hosts_of
from fedprune.pki.credentials import CERTIFICATE, KEY, TRUST
from fedprune_client.probing import Target

HTTP2 = "h2"
NOT_TAKEN = "the coordinator does not take our certificate"
WRONG_NAME = "Dial it by a name of its certificate, or make one with this name: fedprune certs init HOST..."


def tls(address: str, way: Target) -> Finding:
    """One finding about the encryption of the port at this address."""
    shown = _shown(address, way)
    if shown is None and way.credentials is None:
        return skipped("TLS", "the coordinator speaks plaintext, and no credentials were given")
    if shown is None:
        return bad("TLS", "the coordinator speaks plaintext", "Start it with --certs, or leave --credentials out")
    if way.credentials is None:
        step = "Join with an invitation, or give --credentials DIR"
        return bad("TLS", f"the coordinator wants it, for {_names(shown)}", step)
    trouble = _refusal(address, way, way.credentials)
    if trouble is not None:
        return bad("TLS", f"{trouble}; the certificate is for {_names(shown)}, {_until(shown)}", _step(trouble))
    return good("TLS", f"certificate for {_names(shown)}, {_until(shown)}")


def _shown(address: str, way: Target) -> x509.Certificate | None:
    """The coordinator's certificate, believed or not; None where the port does not speak TLS."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    try:
        with _connected(anyone, address, way) as connection:
            held = connection.getpeercert(binary_form=True)
    except (ssl.SSLError, OSError):
        return None
    return x509.load_der_x509_certificate(held) if held else None


def _refusal(address: str, way: Target, credentials: Path) -> str | None:
    """Why the two do not trust each other; None when they do."""
    try:
        strict = ssl.create_default_context(cafile=str(credentials / TRUST))
        strict.load_cert_chain(credentials / CERTIFICATE, credentials / KEY)
        with _connected(strict, address, way) as connection:
            # In TLS 1.3 our side is through before the other one has looked at our certificate; then it speaks first.
            heard = connection.recv(1)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except TimeoutError:
        return "no answer to our certificate"
    except (ssl.SSLError, OSError) as error:
        return f"{NOT_TAKEN} ({getattr(error, 'reason', None) or error.strerror or error})"
    return None if heard else NOT_TAKEN


def _connected(context: ssl.SSLContext, address: str, way: Target) -> ssl.SSLSocket:
    context.set_alpn_protocols([HTTP2])
    plain = socket.create_connection((address, way.port), timeout=way.timeout_s)
    try:
        return context.wrap_socket(plain, server_hostname=way.host)
    except BaseException:
        plain.close()
        raise


def _names(certificate: x509.Certificate) -> str:
    return ", ".join(hosts_of(certificate)) or "no name at all"


def _until(certificate: x509.Certificate) -> str:
    ends = certificate.not_valid_after_utc
    return f"{'until' if ends > datetime.now(UTC) else 'expired on'} {ends:%Y-%m-%d %H:%M} UTC"


def _step(trouble: str) -> str:
    text = trouble.lower()
    if trouble.startswith(NOT_TAKEN):
        return "Ask its operator for an invitation: ours is of another federation, or too old by the clock over there"
    if "match" in text:
        return WRONG_NAME
    if "expired" in text or "not yet valid" in text:
        return "Compare the clocks of both machines; else the coordinator has to renew its certificate"
    return "It is another federation's, or its root was replaced while we were away: ask for an invitation"
