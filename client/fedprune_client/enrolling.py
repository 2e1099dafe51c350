"""Joining by an invitation: a key is made here, and comes back with a certificate.

Nothing is believed before its time. The coordinator's certificate is first taken as it comes, only to ask for the
federation's roots over it; the one whose fingerprint the invitation names is believed; and the token leaves this
machine over a connection that this root vouches for.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from fedprune.errors import IdentityError, RemoteError, RoleError, UnavailableError
from fedprune.pki import files
from fedprune.pki.certificates import chain_pem, fingerprint, read_chain, request_pem
from fedprune.pki.credentials import CERTIFICATE, KEY, Credentials
from fedprune.pki.invitation import Invitation
from fedprune.pki.keys import PrivateKey, key_pem, new_key, read_key
from fedprune.v1 import enrolment_pb2 as pb
from fedprune.v1 import enrolment_pb2_grpc as rpc
from fedprune_client.config import COORDINATOR

TIMEOUT_S = 10.0
LONGEST_DELAY_S = 5.0
# The invitation that a folder's key was made for.
LINE = "invitation"
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


def enrolled(
    folder: Path, invitation: Invitation, *, say: Callable[[str], None], patience_s: float = 0.0
) -> Credentials:
    """The credentials that the invitation gives, kept in `folder`; used before, it gives the ones that are there.
    Waits for a coordinator that is not there yet, `patience_s` or, with 0, for ever. Raises `UnavailableError` then, and `RoleError` when the invitation is not good any more."""
    line = folder / LINE
    if line.exists() and line.read_text() == str(invitation) and (folder / CERTIFICATE).exists():
        return Credentials.load(folder)
    if not line.exists() or line.read_text() != str(invitation):
        # The key before the line: whoever finds the line finds the key that it was used with.
        (folder / CERTIFICATE).unlink(missing_ok=True)
        files.write(folder / KEY, key_pem(new_key()), files.SECRET)
        files.write(line, str(invitation).encode(), files.SECRET)
    key = read_key(files.read(folder / KEY, next_step="Give another --state"), party=str(folder / KEY))
    delay_s, began_s = 0.5, time.monotonic()
    while True:
        try:
            reply = _enrol(invitation, pb.EnrolRequest(token=invitation.token, request_pem=request_pem(key)))
            break
        except UnavailableError as error:
            if 0 < patience_s < time.monotonic() - began_s:
                raise
            pause_s = random.uniform(delay_s / 2, delay_s)
            say(f"joining: {error}; again in {pause_s:.1f} s")
            time.sleep(pause_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)
    credentials = received(reply, key, party=invitation.server)
    files.write(folder / COORDINATOR, invitation.server.encode())
    credentials.save(folder)
    say(f"enrolled as {credentials.subject.name} ({credentials.subject.role}), key {credentials.identity[:16]}")
    return credentials


def root_of(invitation: Invitation) -> x509.Certificate:
    """The root that the invitation names, as the coordinator has it; the invitation is not used up. Raises
    `UnavailableError` where nobody answers and `IdentityError` where another federation does."""
    party = invitation.enrol_address
    try:
        leaf = ssl.get_server_certificate((invitation.host, invitation.enrol_port), timeout=TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise UnavailableError("no answer from the coordinator", party=party, seen=str(error)) from error
    with _channel(party, leaf.encode()) as channel:
        reply = _called(rpc.EnrolmentStub(channel).Roots, pb.RootsRequest(), party)
    return _believed(read_chain(reply.trust_pem, party=party), invitation)


def _enrol(invitation: Invitation, request: pb.EnrolRequest) -> pb.Certificates:
    party = invitation.enrol_address
    with _channel(party, chain_pem(root_of(invitation))) as channel:
        given: pb.Certificates = _called(rpc.EnrolmentStub(channel).Enrol, request, party)
    return given


def received(reply: pb.Certificates, key: PrivateKey, *, party: str) -> Credentials:
    """Certificates as the coordinator sends them, with the key they are for."""
    chain, trust = read_chain(reply.chain_pem, party=party), read_chain(reply.trust_pem, party=party)
    return Credentials(key=key, chain=tuple(chain), trust=tuple(trust))


def _believed(roots: list[x509.Certificate], invitation: Invitation) -> x509.Certificate:
    for root in roots:
        if fingerprint(root) == invitation.ca:
            return root
    raise IdentityError(
        "this is not the coordinator that the invitation is for",
        party=invitation.enrol_address,
        seen=", ".join(fingerprint(root)[:16] for root in roots),
        expected=f"a root with the fingerprint {invitation.ca[:16]}",
        next_step="Nothing was sent to it; ask who invited you",
    )


def _channel(address: str, root: bytes) -> grpc.Channel:
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(root), options=OPTIONS)


def _called(method: Any, request: Any, party: str) -> Any:
    try:
        return method(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            raise RoleError(error.details() or "refused", party=party) from error
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise UnavailableError("no answer from the coordinator", party=party, seen=error.details()) from error
        raise RemoteError(error.details() or error.code().name, party=party) from error
