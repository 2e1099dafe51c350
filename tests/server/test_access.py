"""Default deny, held by a matrix that is made from the table: every call, every role, every wrong way to come."""

from __future__ import annotations

import importlib
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from google.protobuf import descriptor_pb2, descriptor_pool

from fedprune.errors import BusyError, LocalError, RoleError
from fedprune.pki import keys
from fedprune.pki.credentials import Credentials
from fedprune.pki.subject import Role
from fedprune.v1 import coordinator_pb2
from fedprune_server import access
from fedprune_server.access import ROLES, WITHOUT_IDENTITY
from fedprune_server.admission import REFUSALS_AT_ONCE, REFUSALS_PER_S, Refusals
from fedprune_server.authority.office import Office
from fedprune_server.interceptors import Caller

from .secure import CALLS, Site, certified, channel, secured, status

DAY = timedelta(days=1)
# The one real service behind this border: it answers that nothing is no request.
ANSWERS = {"/fedprune.v1.Renewal/Renew": "INVALID_ARGUMENT"}
# What TLS itself does not let through looks like a coordinator that is not there.
NOT_THERE = "UNAVAILABLE"


def nameless(office: Office) -> Credentials:
    """A certificate of ours that names nobody of a federation."""
    held = certified(office, Role.OPERATOR)
    issuing = Credentials.load(office.folder / "server").chain[1]
    authority = keys.read_key((office.folder / "issuing" / "authority.pem").read_bytes(), party="")
    leaf = (
        x509.CertificateBuilder()
        .subject_name(held.leaf.subject)
        .issuer_name(issuing.subject)
        .public_key(held.key.public_key())
        .serial_number(1)
        .not_valid_before(held.leaf.not_valid_before_utc)
        .not_valid_after(held.leaf.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("operator")]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    return Credentials(key=held.key, chain=(leaf, *held.chain[1:]), trust=held.trust)


async def comers(site: Site, folder: Path) -> dict[str, tuple[Credentials | None, Any]]:
    """Everybody who might come -> what they show, and what they get: by role where that decides, else one status."""
    foreign = Office.found(folder / "foreign", federation="wards", hosts=["127.0.0.1"], now=datetime.now(UTC))
    revoked = site.member(Role.OPERATOR)
    site.office.register.revoke(revoked.identity, "lost", datetime.now(UTC))
    await site.security.look(site.border.leashes)
    good: dict[str, tuple[Credentials | None, Any]] = {role.value: (site.member(role), role) for role in Role}
    return good | {
        "no certificate": (None, NOT_THERE),
        "foreign authority": (certified(foreign, Role.OPERATOR), NOT_THERE),
        "expired": (site.member(Role.OPERATOR, began=8 * DAY), NOT_THERE),
        "not yet valid": (site.member(Role.OPERATOR, began=-DAY), NOT_THERE),
        "names nobody": (nameless(site.office), "UNAUTHENTICATED"),
        "revoked": (revoked, "PERMISSION_DENIED"),
    }


async def test_the_whole_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedprune_server.admission.REFUSALS_AT_ONCE", 1e6)
    seen, expected = {}, {}
    async with secured(tmp_path) as site:
        for who, (credentials, gets) in (await comers(site, tmp_path)).items():
            async with channel(site.address, credentials, site.office.trust[0]) as there:
                for method in CALLS:
                    seen[who, method] = await status(there, method)
                    welcome = isinstance(gets, Role) and gets in ROLES.get(method, ())
                    refusal = "PERMISSION_DENIED" if isinstance(gets, Role) else gets
                    # A role that may not and a key that may no more are told so; whoever TLS stops is told nothing.
                    expected[who, method] = ANSWERS.get(method, "OK") if welcome else refusal
    assert seen == expected
    assert len(seen) == len(CALLS) * 10
    assert set(site.silent.reached) == ROLES.keys() - ANSWERS.keys()


def test_every_call_of_the_wire_has_a_row_and_operators_alone_stop() -> None:
    assert access.calls_on_the_wire() <= ROLES.keys() | WITHOUT_IDENTITY
    assert ROLES["/fedprune.v1.Coordinator/Stop"] == {Role.OPERATOR}
    assert {method for method in WITHOUT_IDENTITY if "/fedprune.v1.Enrolment/" not in method} == set()
    assert not ROLES.keys() & WITHOUT_IDENTITY


def test_a_call_without_a_row_keeps_the_program_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    file = descriptor_pb2.FileDescriptorProto()
    coordinator_pb2.DESCRIPTOR.CopyToProto(file)
    file.service[0].method.add(
        name="Erase", input_type=".fedprune.v1.StopRequest", output_type=".fedprune.v1.StopReply"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    monkeypatch.setattr(coordinator_pb2, "DESCRIPTOR", pool.FindFileByName(file.name))
    with pytest.raises(LocalError, match=r"without a row .*/fedprune\.v1\.Coordinator/Erase"):
        importlib.reload(access)
    monkeypatch.undo()
    importlib.reload(access)


def test_a_call_that_is_not_in_the_table_is_nobody_s() -> None:
    for role in Role:
        with pytest.raises(RoleError, match=r"x: may not call Erase \(got role .*, expected nobody"):
            access.check("/fedprune.v1.Coordinator/Erase", role, party="x")


async def test_a_coordinator_under_another_name_is_not_believed(tmp_path: Path) -> None:
    async with secured(tmp_path, host="127.0.0.2") as site:
        assert await site.call("/fedprune.v1.Coordinator/Status", site.member(Role.OBSERVER)) == NOT_THERE
        assert site.silent.reached == []


async def test_nor_one_of_another_authority(tmp_path: Path) -> None:
    async with secured(tmp_path) as site:
        foreign = Office.found(tmp_path / "foreign", federation="wards", hosts=["127.0.0.1"], now=datetime.now(UTC))
        member = site.member(Role.OBSERVER)
        wrong = await site.call("/fedprune.v1.Coordinator/Status", member, trust=foreign.trust[0])
        assert (wrong, site.silent.reached) == (NOT_THERE, [])


@pytest.mark.parametrize(("spki", "encrypted"), [(b"key", True), (b"", False)])
def test_who_has_shown_a_key_came_by_tls(spki: bytes, encrypted: bool) -> None:
    assert Caller(identity="a", peer="ipv4:1:1", spki=spki).encrypted is encrypted


async def test_identity_is_the_key_s_hash_and_no_field(tmp_path: Path) -> None:
    async with secured(tmp_path) as site:
        member = site.member(Role.OBSERVER)
        async with channel(site.address, member, site.office.trust[0]) as there:
            claim = (("fedprune-identity", "somebody else"),)
            ask: Any = there.unary_unary("/fedprune.v1.Coordinator/Status")
            answer = await ask(b"", metadata=claim)
    assert answer.decode() == member.identity


async def test_a_stream_ends_with_its_certificate(tmp_path: Path) -> None:
    async with secured(tmp_path) as site:
        member = site.member(Role.TRAINER, began=7 * DAY - timedelta(seconds=2))
        async with channel(site.address, member, site.office.trust[0]) as there:
            call: Any = there.stream_stream("/fedprune.v1.Coordinator/Work")()
            assert (await call.read()).decode() == member.identity
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "the certificate has expired" in await call.details()
            # The connection is older than the end of the certificate; a new call on it is refused all the same.
            assert await status(there, "/fedprune.v1.Coordinator/Status") == "UNAUTHENTICATED"


async def test_revocation_cuts_open_streams_and_lets_no_new_one_begin(tmp_path: Path) -> None:
    async with secured(tmp_path) as site:
        lost, kept = site.member(Role.TRAINER), site.member(Role.TRAINER)
        async with (
            channel(site.address, lost, site.office.trust[0]) as theirs,
            channel(site.address, kept, site.office.trust[0]) as ours,
        ):
            calls: list[Any] = [theirs.stream_stream("/fedprune.v1.Coordinator/Work")() for _ in range(3)]
            stays: Any = ours.stream_stream("/fedprune.v1.Coordinator/Work")()
            for call in [*calls, stays]:
                await call.read()
            site.office.register.revoke(lost.identity, "lost", datetime.now(UTC))
            await site.security.look(site.border.leashes)
            assert {await call.code() for call in calls} == {grpc.StatusCode.PERMISSION_DENIED}
            assert await status(theirs, "/fedprune.v1.Coordinator/Join") == "PERMISSION_DENIED"
            assert not stays.done()
            assert await status(ours, "/fedprune.v1.Coordinator/Join") == "OK"
    revoked = ("revoked", {"identity": lost.identity, "reason": "lost", "calls": 3})
    assert [note for note in site.notes if note[0] in ("settled", "revoked")] == [("settled", {}), revoked]


async def test_a_hundred_keys_are_revoked_in_the_middle_of_their_uploads(tmp_path: Path) -> None:
    """P13, but for the seconds: all are cut, none gets through afterwards, and nobody else is touched."""
    async with secured(tmp_path) as site, AsyncExitStack() as stack:
        members = [site.member(Role.TRAINER) for _ in range(101)]
        theirs = [await stack.enter_async_context(channel(site.address, m, site.office.trust[0])) for m in members]
        uploads: list[Any] = [one.stream_stream("/fedprune.v1.Coordinator/Submit")() for one in theirs]
        for upload in uploads:
            await upload.read()
        for member in members[1:]:
            site.office.register.revoke(member.identity, "lost", datetime.now(UTC))
        await site.security.look(site.border.leashes)
        assert {(await upload.code()).name for upload in uploads[1:]} == {"PERMISSION_DENIED"}
        site.security.admission._refusals = Refusals()  # type: ignore[attr-defined]  # they all come from one address
        again = [await status(one, "/fedprune.v1.Coordinator/Submit") for one in theirs[1:]]
        assert "OK" not in again
        assert not uploads[0].done()


async def test_an_address_that_is_refused_too_often_waits(tmp_path: Path) -> None:
    async with secured(tmp_path) as site:
        observer = site.member(Role.OBSERVER)
        async with channel(site.address, observer, site.office.trust[0]) as there:
            answers = [await status(there, "/fedprune.v1.Coordinator/Stop") for _ in range(int(REFUSALS_AT_ONCE) + 5)]
            assert answers[:20] == ["PERMISSION_DENIED"] * 20
            assert answers[-1] == "UNAVAILABLE"
    refused = [facts for what, facts in site.notes if what == "refused"]
    assert 20 <= len(refused) < 25
    assert "may not call Stop" in refused[0]["reason"]


def test_waiting_is_by_address_and_ends() -> None:
    now_s = 0.0
    refusals = Refusals(clock=lambda: now_s)
    for _ in range(int(REFUSALS_AT_ONCE) + 1):
        refusals.check("ipv4:10.0.0.1:5000")
        refusals.count("ipv4:10.0.0.1:5000")
    with pytest.raises(BusyError, match=r"ipv4:10.0.0.1: refused too often"):
        refusals.check("ipv4:10.0.0.1:5001")
    refusals.check("ipv4:10.0.0.2:5000")
    now_s = 1 / REFUSALS_PER_S
    refusals.check("ipv4:10.0.0.1:5002")
