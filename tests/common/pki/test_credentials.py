"""Keys, certificates and folders of them: what is made is what is read, and nobody can pass for another."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedprune.errors import ConfigError, DecodeError, IdentityError, RemoteError
from fedprune.pki import certificates, keys
from fedprune.pki.credentials import CERTIFICATE, KEY, TRUST, Credentials
from fedprune.pki.subject import Role, Subject

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SUBJECT = Subject(federation="wards", role=Role.TRAINER, name="ward-7")
LIFE = timedelta(days=3)


def made(subject: Subject = SUBJECT, hosts: tuple[str, ...] = ()) -> Credentials:
    root = certificates.new_root("wards", NOW)
    issuing = certificates.new_issuing(root, "wards", NOW)
    key = keys.new_key()
    leaf = certificates.issue(issuing, key.public_key(), subject, now=NOW, life=LIFE, hosts=hosts)
    return Credentials(key=key, chain=(leaf, issuing.certificate), trust=(root.certificate,))


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    credentials = made()
    credentials.save(tmp_path / "ward")
    read = Credentials.load(tmp_path / "ward")
    assert read.subject == SUBJECT
    assert (read.identity, read.chain, read.trust) == (credentials.identity, credentials.chain, credentials.trust)
    assert stat.S_IMODE((tmp_path / "ward" / KEY).stat().st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "ward").iterdir()) == sorted((KEY, CERTIFICATE, TRUST))


@pytest.mark.parametrize("name", [KEY, CERTIFICATE, TRUST])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    made().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=rf"{name}: cannot be read .*fedprune certs init"):
        Credentials.load(tmp_path)


@pytest.mark.parametrize(("name", "problem"), [(KEY, "not a private key"), (CERTIFICATE, "holds no certificate")])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, problem: str) -> None:
    made().save(tmp_path)
    (tmp_path / name).write_bytes(b"-----BEGIN NOTHING-----\n")
    with pytest.raises(ConfigError, match=rf"{name}: {problem}"):
        Credentials.load(tmp_path)


def test_a_key_of_someone_else_is_found_out(tmp_path: Path) -> None:
    made().save(tmp_path)
    (tmp_path / KEY).write_bytes(keys.key_pem(keys.new_key()))
    with pytest.raises(ConfigError, match="ward-7: key and certificate do not belong together"):
        Credentials.load(tmp_path)


def test_the_certificate_says_when_it_is_renewed_and_when_it_is_over() -> None:
    credentials = made()
    begins, ends = credentials.leaf.not_valid_before_utc, credentials.leaf.not_valid_after_utc
    assert (begins, ends) == (NOW - certificates.EARLY, NOW + LIFE)
    assert credentials.renewal == begins + (ends - begins) * 2 / 3
    assert not credentials.due(credentials.renewal - timedelta(seconds=1))
    assert credentials.due(credentials.renewal)
    credentials.check_current(ends, next_step="Ask")
    for wrong in (ends + timedelta(seconds=1), begins - timedelta(seconds=1)):
        with pytest.raises(ConfigError, match=r"expired, or this machine's clock is wrong .*Ask"):
            credentials.check_current(wrong, next_step="Ask")


def test_a_leaf_never_outlives_its_authority() -> None:
    root = certificates.new_root("wards", NOW)
    issuing = certificates.new_issuing(root, "wards", NOW)
    late = NOW + certificates.ISSUING_LIFE - timedelta(days=1)
    leaf = certificates.issue(issuing, keys.new_key().public_key(), SUBJECT, now=late, life=LIFE)
    assert leaf.not_valid_after_utc == issuing.certificate.not_valid_after_utc


def test_hosts_are_names_and_addresses() -> None:
    leaf = made(hosts=("fl.example.org", "10.0.0.5", "[::1]")).leaf
    assert certificates.hosts_of(leaf) == ["fl.example.org", "10.0.0.5", "::1"]
    with pytest.raises(ConfigError, match="not a host name or address"):
        made(hosts=("kühlschrank",))


def test_an_authority_is_no_member() -> None:
    root = certificates.new_root("wards", NOW)
    with pytest.raises(IdentityError, match="names nobody"):
        certificates.subject_of(root.certificate, party="somebody")


def test_a_request_proves_its_key_and_claims_nothing() -> None:
    key = keys.new_key()
    found = certificates.requested_key(certificates.request_pem(key), party="ward")
    assert keys.identity_of(found) == keys.identity_of(key.public_key())
    other = bytearray(certificates.request_pem(key))
    lines = bytes(other).splitlines(keepends=True)
    broken = b"".join([*lines[:-2], lines[-2][:-3] + b"AA\n", lines[-1]])
    with pytest.raises(RemoteError):
        certificates.requested_key(broken, party="ward")
    with pytest.raises(DecodeError, match="not a request for a certificate"):
        certificates.requested_key(b"hello", party="ward")


def test_only_keys_of_the_one_curve_are_taken() -> None:
    wrong = ec.generate_private_key(ec.SECP384R1())
    pem = wrong.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ConfigError, match="not a P-256 key"):
        keys.read_key(pem, party="file")
    with pytest.raises(IdentityError, match="not a P-256 key"):
        keys.checked_public(ed25519.Ed25519PrivateKey.generate().public_key(), party="ward")
    with pytest.raises(IdentityError, match="not a public key"):
        keys.public_key(b"\x00" * 91, party="ward")


def test_signatures_are_of_one_key_over_one_message() -> None:
    key, other = keys.new_key(), keys.new_key()
    signature = keys.sign(key, b"message")
    public = keys.public_key(keys.spki(key.public_key()), party="ward")
    assert keys.is_signed(public, signature, b"message")
    assert not keys.is_signed(public, signature, b"messagf")
    assert not keys.is_signed(other.public_key(), signature, b"message")
    assert not keys.is_signed(public, b"", b"message")


@pytest.mark.parametrize(
    "uri",
    [
        "https://wards/trainer/ward-7",
        "fedprune://wards/admin/ward-7",
        "fedprune://wards/trainer/",
        "fedprune://wards/trainer/a/b",
        "fedprune://wards/trainer/a?b",
        "fedprune:///trainer/a",
        "fedprune://wa rds/trainer/a",
    ],
)
def test_other_uris_name_nobody(uri: str) -> None:
    assert Subject.of_uri(SUBJECT.uri) == SUBJECT
    assert Subject.of_uri(uri) is None


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a" * 64, "ä", "a b"])
def test_names_that_cannot_stand_in_a_certificate(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used in a certificate"):
        Subject(federation="wards", role=Role.TRAINER, name=name)
