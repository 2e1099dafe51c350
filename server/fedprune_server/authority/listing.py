"""What the commands of the authority do beyond one call to the office: find people by name, and describe them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fedprune.errors import ConfigError
from fedprune.pki.certificates import fingerprint, hosts_of
from fedprune.pki.credentials import Credentials
from fedprune.pki.invitation import Invitation
from fedprune.pki.subject import Role
from fedprune_server.authority.folder import LOCAL_HOSTS, REGISTER, SERVER
from fedprune_server.authority.office import Office
from fedprune_server.authority.register import Issued, Register

PORT = 7400


def role_named(text: str) -> Role:
    """A role by its name. Raises `ConfigError`."""
    if text not in {role.value for role in Role}:
        raise ConfigError("no such role", seen=text, expected=", ".join(Role))
    return Role(text)


def listed(certs: Path, now: datetime) -> dict[str, Any]:
    """Everybody with a certificate, by the newest one of each key; the invitations nobody has used; the roots."""
    office = Office(certs)
    revoked = office.register.revoked()
    newest = {issued.identity: issued for issued in office.register.issued()}
    return {
        "ca_sha256": [fingerprint(certificate) for certificate in office.trust],
        "certificates": [
            {
                "name": issued.name,
                "role": issued.role.value,
                "identity": issued.identity,
                "not_after": issued.not_after.isoformat(),
                "state": _state(issued, revoked, now),
            }
            for issued in newest.values()
        ],
        "invitations": [
            {"name": invited.name, "role": invited.role.value, "expires_at": invited.expires_at.isoformat()}
            for invited in office.register.invited()
            if not invited.identity and now <= invited.expires_at
        ],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same, for a terminal."""
    rows = [
        f"{c['name']:<20} {c['role']:<10} {c['state']:<8} until {c['not_after'][:16]}  {c['identity'][:16]}"
        for c in found["certificates"]
    ]
    rows += [f"{i['name']:<20} {i['role']:<10} invited  until {i['expires_at'][:16]}" for i in found["invitations"]]
    return [*rows, *(f"root {ca}" for ca in found["ca_sha256"])]


def revoke(certs: Path, who: str, reason: str, now: datetime) -> list[str]:
    """Revoke every key of this name, or the one key whose identity begins so. Raises `ConfigError` for nobody."""
    register = Register(certs / REGISTER)
    known = register.issued()
    named = {issued.identity for issued in known if issued.name == who}
    if not named and len(who) >= 16:
        named = {issued.identity for issued in known if issued.identity.startswith(who)}
    if not named:
        raise ConfigError(
            "nobody of this name or identity has a certificate", seen=who, next_step="fedprune certs list"
        )
    for identity in sorted(named):
        register.revoke(identity, reason, now)
    return sorted(named)


def invite(
    certs: Path, site: str, role: str, now: datetime, *, server: str | None, enrol_port: int, life: timedelta
) -> Invitation:
    """An invitation for one client; without `server`, to the first host in the coordinator's certificate."""
    office = Office(certs)
    token = office.invite(site, role_named(role), now, life=life)
    ca = fingerprint(office.trust[0])
    return Invitation(server=server or _reached(certs), enrol_port=enrol_port, ca=ca, token=token)


def _reached(certs: Path) -> str:
    hosts = [host for host in hosts_of(Credentials.load(certs / SERVER).leaf) if host not in LOCAL_HOSTS]
    host = hosts[0] if hosts else "127.0.0.1"
    return f"[{host}]:{PORT}" if ":" in host else f"{host}:{PORT}"


def _state(issued: Issued, revoked: dict[str, str], now: datetime) -> str:
    if issued.identity in revoked:
        return "revoked"
    return "good" if now <= issued.not_after else "expired"
