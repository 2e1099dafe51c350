"""The authority at work on its folder: who gets a certificate, and when the keys that sign are replaced.

root/      the key that signs issuing authorities: belongs offline, only `rotate` needs it
issuing/   the key that signs everybody's certificates
server/    what the coordinator shows; renewed by it while issuing/ is there
operator/  what `fedprune stop` shows
ca.crt     the roots that everyone trusts
register.sqlite
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from fedprune.errors import ConfigError
from fedprune.pki import files
from fedprune.pki.certificates import (
    CLIENT_LIFE,
    OPERATOR_LIFE,
    SERVER_LIFE,
    Authority,
    chain_pem,
    cross_sign,
    hosts_of,
    issue,
    new_issuing,
    new_root,
    read_chain,
)
from fedprune.pki.credentials import TRUST, Credentials
from fedprune.pki.keys import PublicKey, identity_of, key_pem, new_key, read_key
from fedprune.pki.subject import Role, Subject
from fedprune_server.authority.folder import AUTHORITY, ISSUING, LOCAL_HOSTS, OPERATOR, REGISTER, ROOT, SERVER
from fedprune_server.authority.register import Invited, Issued, Register

TOKEN_BYTES = 16
LIVES = {
    Role.TRAINER: CLIENT_LIFE,
    Role.EVALUATOR: CLIENT_LIFE,
    Role.OBSERVER: OPERATOR_LIFE,
    Role.OPERATOR: OPERATOR_LIFE,
}


class Office:
    """The authority of the folder `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.register = Register(folder / REGISTER)

    @classmethod
    def found(cls, folder: Path, *, federation: str, hosts: Sequence[str], now: datetime) -> Office:
        """Make a folder with everything in it. Raises `ConfigError` when there is something already."""
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(
                "this folder is not empty, and keys are not overwritten", seen=str(folder), next_step="Give another"
            )
        Subject(federation=federation, role=Role.OBSERVER, name=SERVER)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = new_root(federation, now)
        _save(folder / ROOT, root)
        files.write(folder / TRUST, chain_pem(root.certificate))
        _save(folder / ISSUING, new_issuing(root, federation, now))
        Register.create(folder / REGISTER)
        office = cls(folder)
        office.provide(
            folder / SERVER, Subject(federation=federation, role=Role.OBSERVER, name="coordinator"), now, hosts
        )
        office.provide(folder / OPERATOR, Subject(federation=federation, role=Role.OPERATOR, name=OPERATOR), now)
        return office

    @property
    def can_issue(self) -> bool:
        """Whether the key that signs is here."""
        return (self.folder / ISSUING / AUTHORITY).is_file()

    @property
    def federation(self) -> str:
        """The federation's name, as the coordinator's certificate says it."""
        return Credentials.load(self.folder / SERVER).subject.federation

    @property
    def trust(self) -> list[x509.Certificate]:
        """The roots, newest first."""
        path = self.folder / TRUST
        return read_chain(files.read(path, next_step=INIT), party=str(path))

    def provide(self, out: Path, subject: Subject, now: datetime, hosts: Sequence[str] = ()) -> Credentials:
        """A key and a certificate for somebody, made here and written to `out`."""
        key = new_key()
        life = SERVER_LIFE if hosts else LIVES[subject.role]
        every = tuple(dict.fromkeys((*hosts, *LOCAL_HOSTS))) if hosts else ()
        chain = self.certify(key.public_key(), subject, now, life=life, hosts=every, why="provided")
        credentials = Credentials(key=key, chain=tuple(chain), trust=tuple(self.trust))
        credentials.save(out)
        return credentials

    def certify(
        self,
        key: PublicKey,
        subject: Subject,
        now: datetime,
        *,
        life: timedelta,
        hosts: Sequence[str] = (),
        why: str,
    ) -> list[x509.Certificate]:
        """A certificate for the holder of `key`, with the chain that leads to a root."""
        issuing, above = _load(self.folder / ISSUING)
        leaf = issue(issuing, key, subject, now=now, life=life, hosts=hosts)
        issued = Issued(
            serial=f"{leaf.serial_number:x}",
            identity=identity_of(key),
            name=subject.name,
            role=subject.role,
            issued_at=now,
            not_after=leaf.not_valid_after_utc,
        )
        self.register.record(issued, why=why)
        return [leaf, issuing.certificate, *above]

    def invite(self, name: str, role: Role, now: datetime, *, life: timedelta) -> str:
        """A token with which one holder of one key may enrol under this name, once."""
        Subject(federation=self.federation, role=role, name=name)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self.register.invite(
            Invited(token_sha256=token_sha256(token), name=name, role=role, expires_at=now + life), now
        )
        return token

    def enrol(self, token: str, key: PublicKey, now: datetime) -> list[x509.Certificate]:
        """The certificate that an invitation promised. Raises `IdentityError` when it is not good for this key."""
        invited = self.register.redeem(token_sha256(token), identity_of(key), now)
        subject = Subject(federation=self.federation, role=invited.role, name=invited.name)
        return self.certify(key, subject, now, life=LIVES[subject.role], why="enrolled")

    def renew(self, key: PublicKey, subject: Subject, now: datetime) -> list[x509.Certificate]:
        """A certificate like the one its holder has, for longer."""
        return self.certify(key, subject, now, life=LIVES[subject.role], why="renewed")

    def renew_server(self, now: datetime) -> bool:
        """Give the coordinator a new certificate when its own is due, or signed by a replaced authority."""
        held = Credentials.load(self.folder / SERVER)
        issuing, _ = _load(self.folder / ISSUING)
        same = held.chain[1:2] == (issuing.certificate,) and held.trust == tuple(self.trust)
        if same and not held.due(now):
            return False
        chain = self.certify(
            held.key.public_key(), held.subject, now, life=SERVER_LIFE, hosts=hosts_of(held.leaf), why="renewed"
        )
        Credentials(key=held.key, chain=tuple(chain), trust=tuple(self.trust)).save(self.folder / SERVER)
        return True

    def rotate(self, now: datetime, *, root_folder: Path, new_root_too: bool) -> None:
        """Replace the issuing authority; with `new_root_too` the root as well. Everybody's certificate stays good: the
        older roots stay trusted, and a new one is signed by the one before it for those who have not heard of it."""
        federation = self.federation
        root, _ = _load(root_folder)
        above: list[x509.Certificate] = []
        if new_root_too:
            older, root = root, new_root(federation, now)
            above = [cross_sign(root, older, now)]
            files.write(self.folder / TRUST, chain_pem(root.certificate, *self.trust))
            _save(root_folder, root)
        _save(self.folder / ISSUING, new_issuing(root, federation, now), *above)
        self.register.note("rotated", now, root=new_root_too)
        self.renew_server(now)


INIT = "Make certificates first: fedprune certs init HOST"


def token_sha256(token: str) -> str:
    """What the register keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _save(folder: Path, authority: Authority, *above: x509.Certificate) -> None:
    # One file, so that a running coordinator never meets the key of one authority and the certificate of another.
    pem = key_pem(authority.key) + chain_pem(authority.certificate, *above)
    files.write(folder / AUTHORITY, pem, files.SECRET)


def _load(folder: Path) -> tuple[Authority, list[x509.Certificate]]:
    path = folder / AUTHORITY
    pem = files.read(path, next_step=INIT)
    certificate, *above = read_chain(pem, party=str(path))
    return Authority(certificate=certificate, key=read_key(pem, party=str(path))), above
