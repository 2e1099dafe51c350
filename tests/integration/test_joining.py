"""From an invitation to a model, over TLS: enrolment, signed updates, renewal and replaced authorities, revocation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedprune.config import RunConfig
from fedprune.errors import IdentityError, RoleError
from fedprune.pki.certificates import chain_pem, fingerprint
from fedprune.pki.credentials import Credentials
from fedprune.pki.invitation import Invitation
from fedprune.pki.subject import Role
from fedprune.v1 import enrolment_pb2 as pb
from fedprune_client.enrolling import enrolled
from fedprune_client.renewing import renewed
from fedprune_client.transport import Link
from fedprune_server import audit
from fedprune_server.authority.folder import ROOT
from fedprune_server.authority.office import Office
from fedprune_server.store import verify

from .federation import Federation, MakeLink, Site, refused, run_file, task_file, until

DAY = timedelta(days=1)
NAMES = ("a", "b", "c")


def now() -> datetime:
    return datetime.now(UTC)


def secured(folder: Path, config: RunConfig) -> tuple[Federation, Office]:
    """A federation with TLS whose coordinator issues certificates."""
    office = Office.found(folder / "certs", federation="wards", hosts=["127.0.0.1"], now=now())
    federation = Federation(folder, task_file(folder), [config], certs=office.folder)
    return federation, office


def config(*overrides: str) -> RunConfig:
    return run_file("network.enrol_port=0", *overrides)


def invitation(office: Office, federation: Federation, name: str = "a", role: Role = Role.TRAINER) -> Invitation:
    token = office.invite(name, role, now(), life=DAY)
    ca = fingerprint(office.trust[0])
    return Invitation(server=federation.address, enrol_port=federation.server.enrol_port, ca=ca, token=token)


def presenting(credentials: dict[str, Credentials]) -> MakeLink:
    def make(server: str, identity: str, say: Callable[[str], None]) -> Link:
        return Link(server, identity, say=say, credentials=credentials[identity])

    return make


async def all_enrolled(federation: Federation, office: Office) -> dict[str, Credentials]:
    """Credentials of every client, by invitations."""
    await until(lambda: federation.server.enrol_port > 0)
    return {
        name: await asyncio.to_thread(
            enrolled,
            federation.folder / "joined" / name,
            invitation(office, federation, name),
            say=federation.said.append,
        )
        for name in NAMES
    }


async def started(
    federation: Federation, credentials: dict[str, Credentials], serving: asyncio.Task[bool], names: str = "abc"
) -> list[Site]:
    sites = []
    for name in names:
        sites.append(federation.start(name, link=presenting(credentials)))
        await until(lambda: any(s.startswith("joined") for s in sites[-1].said), serving)
    return sites


async def test_invited_clients_train_and_every_update_is_signed(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config())
    async with federation.serving() as serving:
        credentials = await all_enrolled(federation, office)
        await started(federation, credentials, serving)
        assert await federation.end(serving)
    run = tmp_path / "runs" / "run"
    assert verify(run).ok
    found = audit.read(run)
    assert found.problems == []
    joined = {e["identity"]: e["name"] for e in found.events if e["what"] == "joined"}
    assert joined == {c.identity: name for name, c in credentials.items()}
    updates = [(json.loads(e["manifest"]), e) for e in found.events if e["what"] == "update"]
    trained = [(e["round"], manifest["version"], e["name"]) for manifest, e in updates if manifest["size"]]
    assert sorted(trained) == sorted((v + 1, [0, v, 0], name) for v in range(3) for name in NAMES)
    assert {e["work"] for manifest, e in updates if manifest["size"]} == {"train"}
    assert ", round 3, " in audit.line(next(e for _, e in updates if e["round"] == 3))
    assert {e["what"] for e in office.register.events()} >= {"invited", "redeemed", "enrolled"}


async def test_a_signature_that_does_not_fit_is_found_in_the_audit(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config("run.rounds=1"))
    async with federation.serving() as serving:
        await started(federation, await all_enrolled(federation, office), serving)
        assert await federation.end(serving)
    bodies = [json.dumps(event) for event in audit.read(tmp_path / "runs" / "run").events]
    wrong = [body.replace('\\"examples\\":4', '\\"examples\\":5') for body in bodies]
    assert wrong != bodies
    assert any("the signature is not its sender's" in problem for problem in audit.examined(iter(wrong)).problems)
    strangers = [body for body in bodies if json.loads(body)["what"] != "joined"]
    assert all("its sender never joined" in problem for problem in audit.examined(iter(strangers)).problems)


async def test_an_update_signed_by_nobody_or_another_key_is_refused(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config("run.rounds=1", "clients.quorum=0.5", "clients.grace_s=0.1"))
    async with federation.serving() as serving:
        credentials = await all_enrolled(federation, office)
        sites = await started(federation, credentials, serving, "ab")
        channels = sites[0].runner.link._channels
        channels.sign = lambda begin: None  # type: ignore[method-assign]
        theirs = sites[1].runner.link._channels
        theirs._key = credentials["c"].key
        await started(federation, credentials, serving, "c")
        assert await federation.end(serving)
    (row,) = federation.report.rounds
    assert row.clients_counted == 1


async def test_an_invitation_is_used_once_and_a_lost_answer_does_no_harm(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config())
    said: list[str] = []
    async with federation.serving():
        await until(lambda: federation.server.enrol_port > 0)
        line = invitation(office, federation)
        first = await asyncio.to_thread(enrolled, tmp_path / "one", line, say=said.append)
        same = await asyncio.to_thread(enrolled, tmp_path / "one", line, say=said.append)
        assert (same.identity, same.chain) == (first.identity, first.chain)
        (tmp_path / "one" / "tls.crt").unlink()
        again = await asyncio.to_thread(enrolled, tmp_path / "one", line, say=said.append)
        assert again.identity == first.identity
        with pytest.raises(RoleError, match="the invitation is unknown, used up or expired"):
            await asyncio.to_thread(enrolled, tmp_path / "two", line, say=said.append)
        assert not (tmp_path / "two" / "tls.crt").exists()


async def test_a_coordinator_of_another_federation_never_sees_the_token(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config())
    async with federation.serving():
        await until(lambda: federation.server.enrol_port > 0)
        line = invitation(office, federation)
        elsewhere = Invitation(server=line.server, enrol_port=line.enrol_port, ca="0" * 64, token=line.token)
        with pytest.raises(IdentityError, match="not the coordinator that the invitation is for"):
            await asyncio.to_thread(enrolled, tmp_path / "one", elsewhere, say=print)
        assert [invited.identity for invited in office.register.invited()] == [""]


async def test_nothing_but_enrolment_answers_without_a_certificate(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config())
    async with federation.serving():
        await until(lambda: federation.server.enrol_port > 0)
        root = grpc.ssl_channel_credentials(chain_pem(office.trust[0]))
        async with grpc.aio.secure_channel(f"127.0.0.1:{federation.server.enrol_port}", root) as channel:
            for method in ("Coordinator/Status", "Coordinator/Join", "Coordinator/Stop", "Renewal/Renew"):
                ask: Any = channel.unary_unary(f"/fedprune.v1.{method}")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(b"", timeout=100)
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_guesses_are_slowed_down(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config())
    async with federation.serving():
        await until(lambda: federation.server.enrol_port > 0)
        root = grpc.ssl_channel_credentials(chain_pem(office.trust[0]))
        statuses = []
        async with grpc.aio.secure_channel(f"127.0.0.1:{federation.server.enrol_port}", root) as channel:
            for guess in range(30):
                ask: Any = channel.unary_unary("/fedprune.v1.Enrolment/Enrol")
                request = pb.EnrolRequest(token=f"guess-{guess}", request_pem=b"none")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(request.SerializeToString(), timeout=100)
                statuses.append(caught.value.code().name)
    assert statuses[:20] == ["PERMISSION_DENIED"] * 20
    assert statuses[-1] == "UNAVAILABLE"


async def test_certificates_and_authorities_change_under_a_run(tmp_path: Path) -> None:
    """P14: leaves twenty times, the issuing authority once, the root once, in fifty rounds."""
    federation, office = secured(tmp_path, config("run.rounds=50"))
    async with federation.serving() as serving:
        credentials = await all_enrolled(federation, office)
        sites = await started(federation, credentials, serving)
        for change in range(1, 21):
            await until(lambda: len(federation.rounds) >= 2 * change, serving)  # noqa: B023  # awaited here
            if change in (7, 14):
                office.rotate(now(), root_folder=office.folder / ROOT, new_root_too=change == 14)
            for site in sites:
                credentials[site.name] = await renewed(site.runner.link, credentials[site.name])
                site.runner.link.present(credentials[site.name])
        assert await federation.end(serving)
    assert [row.clients_counted for row in federation.report.rounds] == [3] * 50
    assert len(credentials["a"].trust) == 2
    assert audit.read(tmp_path / "runs" / "run").problems == []


async def test_nobody_renews_another_s_key(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config())
    async with federation.serving():
        mine = await all_enrolled(federation, office)
        link = Link(federation.address, "a", say=print, credentials=mine["a"])
        other = Credentials(key=mine["b"].key, chain=mine["b"].chain, trust=mine["b"].trust)
        with pytest.raises(Exception, match="another key than its own"):
            await renewed(link, other)
        await link.close()


async def test_who_is_revoked_is_cut_off_and_goes_home_with_the_reason(tmp_path: Path) -> None:
    federation, office = secured(tmp_path, config("run.rounds=1000", "clients.grace_s=0.1", "clients.min_clients=2"))
    async with federation.serving() as serving:
        credentials = await all_enrolled(federation, office)
        sites = await started(federation, credentials, serving)
        await until(lambda: len(federation.rounds) >= 2, serving)
        office.register.revoke(credentials["a"].identity, "laptop lost", now())
        error = await refused(sites[0])
        assert "the key was revoked" in str(error)
        federation.sites.remove(sites[0])
        done = len(federation.rounds)
        await until(lambda: len(federation.rounds) > done + 1, serving)
    found = audit.read(tmp_path / "runs" / "run")
    revoked = next(n for n, e in enumerate(found.events) if e["what"] == "revoked")
    later = [e for e in found.events[revoked:] if e["what"] == "update" and e["name"] == "a"]
    assert later == []
    assert federation.rounds[-1].clients_counted == 2
