"""The authority: who gets a certificate, for how long, and what the register says of it."""

from __future__ import annotations

import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from fedprune.errors import ConfigError, IdentityError, StoreError
from fedprune.pki import keys
from fedprune.pki.certificates import CLIENT_LIFE, hosts_of, subject_of
from fedprune.pki.credentials import Credentials
from fedprune.pki.subject import Role, Subject
from fedprune_server.authority.folder import AUTHORITY, ISSUING, OPERATOR, REGISTER, ROOT, SERVER
from fedprune_server.authority.office import Office

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office.found(tmp_path / "certs", federation="wards", hosts=["fl.example.org"], now=NOW)


def leads_to(chain: list[x509.Certificate], roots: list[x509.Certificate], now: datetime) -> bool:
    """Whether a server certificate is good for who trusts these roots, by another library's reading of the rules."""
    verifier = PolicyBuilder().store(Store(roots)).time(now).build_server_verifier(x509.DNSName("fl.example.org"))
    try:
        verifier.verify(chain[0], chain[1:])
    except x509.verification.VerificationError:
        return False
    return True


def test_a_founded_folder_has_a_place_for_everyone(office: Office) -> None:
    server, operator = (Credentials.load(office.folder / name) for name in (SERVER, OPERATOR))
    assert (server.subject.role, operator.subject.role) == (Role.OBSERVER, Role.OPERATOR)
    assert hosts_of(server.leaf) == ["fl.example.org", "localhost", "127.0.0.1", "::1"]
    assert leads_to(list(server.chain), list(server.trust), NOW)
    secret = [office.folder / ROOT / AUTHORITY, office.folder / ISSUING / AUTHORITY, office.folder / REGISTER]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    with pytest.raises(ConfigError, match="keys are not overwritten"):
        Office.found(office.folder, federation="wards", hosts=["x"], now=NOW)


def test_an_invitation_is_good_once_for_one_key(office: Office) -> None:
    token = office.invite("ward-7", Role.TRAINER, NOW, life=DAY)
    key, other = keys.new_key().public_key(), keys.new_key().public_key()
    leaf = office.enrol(token, key, NOW)[0]
    assert subject_of(leaf, party="") == Subject(federation="wards", role=Role.TRAINER, name="ward-7")
    assert leaf.not_valid_after_utc == NOW + CLIENT_LIFE
    assert keys.identity_of(keys.checked_public(leaf.public_key(), party="")) == keys.identity_of(key)
    with pytest.raises(IdentityError, match="unknown, used up or expired"):
        office.enrol(token, other, NOW)
    # Whose answer was lost asks again.
    assert office.enrol(token, key, NOW + DAY)[0].serial_number != leaf.serial_number
    with pytest.raises(IdentityError, match="unknown, used up or expired"):
        office.enrol(token, key, NOW + DAY + timedelta(seconds=1))


@pytest.mark.parametrize("token", ["", "x" * 22])
def test_a_guess_learns_nothing(office: Office, token: str) -> None:
    office.invite("ward-7", Role.TRAINER, NOW, life=DAY)
    with pytest.raises(IdentityError, match=r"^the invitation is unknown, used up or expired"):
        office.enrol(token, keys.new_key().public_key(), NOW)


def test_the_token_itself_is_not_kept(office: Office) -> None:
    token = office.invite("ward-7", Role.TRAINER, NOW, life=DAY)
    assert token.encode() not in (office.folder / REGISTER).read_bytes()


def test_the_coordinator_gets_a_new_certificate_when_its_own_is_due(office: Office) -> None:
    held = Credentials.load(office.folder / SERVER)
    assert not office.renew_server(held.renewal - DAY)
    assert office.renew_server(held.renewal)
    renewed = Credentials.load(office.folder / SERVER)
    assert (renewed.identity, renewed.subject) == (held.identity, held.subject)
    assert hosts_of(renewed.leaf) == hosts_of(held.leaf)
    assert renewed.leaf.not_valid_after_utc > held.leaf.not_valid_after_utc
    assert not office.renew_server(held.renewal)


@pytest.mark.parametrize("new_root", [False, True])
def test_replacing_authorities_leaves_everybody_s_certificate_good(office: Office, new_root: bool) -> None:
    old_roots, old_chain = office.trust, list(Credentials.load(office.folder / SERVER).chain)
    for times in range(1, 4):
        office.rotate(NOW + times * DAY, root_folder=office.folder / ROOT, new_root_too=new_root)
        now = NOW + times * DAY
        served = Credentials.load(office.folder / SERVER)
        assert served.chain[1] != old_chain[1]
        assert len(office.trust) == len(old_roots) + (times if new_root else 0)
        # An old certificate before new trust, a new certificate before the trust of the round before.
        assert leads_to(old_chain, office.trust, now)
        before = office.trust[1:] if new_root else old_roots
        assert leads_to(list(served.chain), list(before), now)
        assert leads_to(list(served.chain), list(office.trust[:1]), now)
        assert not leads_to(list(served.chain), elsewhere(office).trust, now)


def elsewhere(office: Office) -> Office:
    folder = office.folder.with_name("elsewhere")
    return Office(folder) if folder.exists() else Office.found(folder, federation="wards", hosts=["x"], now=NOW)


def test_who_signs_is_not_needed_to_list_and_revoke(office: Office) -> None:
    for name in (ROOT, ISSUING):
        (office.folder / name / AUTHORITY).unlink()
    assert not Office(office.folder).can_issue
    identity = Credentials.load(office.folder / OPERATOR).identity
    office.register.revoke(identity, "left", NOW)
    office.register.revoke(identity, "again", NOW)
    assert office.register.revoked() == {identity: "left"}
    with pytest.raises(ConfigError, match="certs init"):
        office.enrol(office.invite("ward-7", Role.TRAINER, NOW, life=DAY), keys.new_key().public_key(), NOW)


def test_the_register_tells_what_happened_in_order(office: Office) -> None:
    key = keys.new_key().public_key()
    office.enrol(office.invite("ward-7", Role.TRAINER, NOW, life=DAY), key, NOW)
    office.renew(key, Subject(federation="wards", role=Role.TRAINER, name="ward-7"), NOW)
    office.register.revoke(keys.identity_of(key), "lost", NOW)
    events = office.register.events()
    assert [e["what"] for e in events] == [
        "provided", "provided", "invited", "redeemed", "enrolled", "renewed", "revoked",
    ]  # fmt: skip
    assert events[-1]["identity"] == keys.identity_of(key)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET body = replace(body, 'wa', 'ma') WHERE sequence = 3",
        "DELETE FROM events WHERE sequence = 2",
        "UPDATE events SET sequence = sequence + 10 WHERE sequence = 3",
    ],
)
def test_a_change_of_what_happened_shows(office: Office, sql: str) -> None:
    office.invite("ward-7", Role.TRAINER, NOW, life=DAY)
    database = sqlite3.connect(office.folder / REGISTER)
    with database:
        assert database.execute(sql).rowcount
    database.close()
    with pytest.raises(StoreError, match="the chain of events is broken"):
        office.register.events()
