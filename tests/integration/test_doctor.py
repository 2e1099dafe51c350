"""`doctor` from both sides of a coordinator that is served with TLS, and of ones that are in trouble."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from fedprune.checkup import machine, reach
from fedprune.checkup.findings import Finding, State
from fedprune.pki.certificates import fingerprint
from fedprune.pki.credentials import Credentials
from fedprune.pki.invitation import Invitation
from fedprune.pki.subject import Role
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client import doctor as client
from fedprune_client.enrolling import enrolled
from fedprune_client.probing import same_clock, same_version
from fedprune_client.tls_check import tls
from fedprune_server import doctor as server
from fedprune_server.authority.folder import ROOT
from fedprune_server.authority.office import Office

from .federation import Federation, run_file, task_file, until

LONG_S = 100.0


@pytest.fixture(autouse=True)
def _a_clock_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_is_adrift", lambda: False)


@asynccontextmanager
async def served(folder: Path, *, tls: bool = True) -> AsyncIterator[tuple[Federation, Office | None]]:
    hosts = ["127.0.0.1"]
    office = Office.found(folder / "certs", federation="wards", hosts=hosts, now=datetime.now(UTC)) if tls else None
    certs = office.folder if office is not None else None
    federation = Federation(folder, task_file(folder), [run_file("network.enrol_port=0")], certs=certs)
    async with federation.serving():
        await until(lambda: any("waiting for clients" in said for said in federation.said))
        yield federation, office


async def seen_by_client(
    address: str, folder: Path, *, credentials: Path | None = None, join: Invitation | None = None
) -> dict[str, Finding]:
    way = client.Way.to(address, credentials=credentials, timeout_s=LONG_S, join=join)
    findings = await asyncio.to_thread(lambda: list(client.check(way, state=folder / "state")))
    return {finding.check: finding for finding in findings}


async def seen_by_server(place: server.Place) -> dict[str, Finding]:
    return {finding.check: finding for finding in await asyncio.to_thread(lambda: list(server.check(place)))}


def invited(office: Office, federation: Federation) -> Invitation:
    token = office.invite("ward-7", Role.TRAINER, datetime.now(UTC), life=timedelta(days=1))
    ca = fingerprint(office.trust[0])
    return Invitation(server=federation.address, enrol_port=federation.server.enrol_port, ca=ca, token=token)


async def test_the_whole_way_of_a_client_that_has_joined(tmp_path: Path) -> None:
    async with served(tmp_path) as (federation, office):
        assert office is not None
        line = invited(office, federation)
        before = await seen_by_client(federation.address, tmp_path, join=line)
        assert {f.state for f in before.values()} <= {State.GOOD, State.SKIPPED}
        assert "root is the one it names" in before["invitation"].seen
        assert [one.identity for one in office.register.invited()] == [""]
        await asyncio.to_thread(enrolled, tmp_path / "joined", line, say=print)
        found = await seen_by_client(federation.address, tmp_path, credentials=tmp_path / "joined")
    assert list(found) == [
        *("versions", "disk", "clock", "certificate", "name", "proxy", "port", "TLS", "gRPC", "coordinator"),
        *("same version", "same clock", "bandwidth"),
    ]
    assert all(f.state is State.GOOD for name, f in found.items() if name != "disk")
    assert "127.0.0.1" in found["TLS"].seen
    assert "Mbit/s" in found["bandwidth"].seen


async def test_in_plaintext_there_is_no_certificate_to_look_at(tmp_path: Path) -> None:
    async with served(tmp_path, tls=False) as (federation, _):
        found = await seen_by_client(federation.address, tmp_path)
        assert found["TLS"].state is State.SKIPPED
        assert found["bandwidth"].state is State.GOOD
        credentials = Office.found(tmp_path / "c", federation="w", hosts=["h"], now=datetime.now(UTC)).folder
        wrong = await seen_by_client(federation.address, tmp_path, credentials=credentials / "operator")
    assert wrong["TLS"].seen == "the coordinator speaks plaintext"
    assert "bandwidth" not in wrong


async def test_what_tls_is_missing_is_told_apart(tmp_path: Path) -> None:
    async with served(tmp_path) as (federation, office):
        assert office is not None
        nobody = await seen_by_client(federation.address, tmp_path)
        assert "Join with an invitation" in nobody["TLS"].next_step

        other = Office.found(tmp_path / "other", federation="wards", hosts=["h"], now=datetime.now(UTC))
        foreign = await seen_by_client(federation.address, tmp_path, credentials=other.folder / "operator")
        assert "another federation's" in foreign["TLS"].next_step

        theirs = Credentials.load(other.folder / "operator")
        Credentials(key=theirs.key, chain=theirs.chain, trust=tuple(office.trust)).save(tmp_path / "half")
        half = await seen_by_client(federation.address, tmp_path, credentials=tmp_path / "half")
        assert "does not take our certificate" in half["TLS"].seen

        by_name = f"localhost.localdomain:{federation.server.port}"
        elsewhere = client.Way.to(by_name, credentials=office.folder / "operator", timeout_s=LONG_S)
        named = await asyncio.to_thread(tls, "127.0.0.1", elsewhere)
        assert "Dial it by a name of its certificate" in named.next_step

        line = invited(office, federation)
        false = Invitation(server=line.server, enrol_port=line.enrol_port, ca="0" * 64, token=line.token)
        misled = await seen_by_client(federation.address, tmp_path, join=false)
        assert misled["invitation"].state is State.BAD


async def test_a_name_at_which_only_grpc_s_own_resolver_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver knows the name, gRPC's does not get an answer: the way by the address tells them apart."""
    known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(reach.name, "__kwdefaults__", {"resolve": lambda host, port: known})
    async with served(tmp_path, tls=False) as (federation, _):
        way = client.Way.to(f"fl.invalid:{federation.server.port}", credentials=None, timeout_s=6.0)
        findings = await asyncio.to_thread(lambda: list(client.check(way, state=tmp_path / "state")))
    assert findings[-1].check == "gRPC"
    assert "does not get through to fl.invalid, but to 127.0.0.1" in findings[-1].seen
    assert "GRPC_DNS_RESOLVER=native" in findings[-1].next_step


async def test_the_coordinator_s_own_machine(tmp_path: Path) -> None:
    async with served(tmp_path) as (federation, office):
        assert office is not None
        place = server.Place(
            address=federation.address,
            certs=office.folder,
            enrol_port=federation.server.enrol_port,
            out=tmp_path / "runs",
            timeout_s=LONG_S,
        )
        running = await seen_by_server(place)
        assert running["port"].seen.endswith("is taken: a coordinator is serving here")
        assert running["enrolment port"].state is State.GOOD
        assert "move" in running["authority"].next_step.lower()
        (office.folder / ROOT / "authority.pem").unlink()
        assert (await seen_by_server(place))["authority"].state is State.GOOD
    ended = await seen_by_server(place)
    assert "is free" in ended["port"].seen
    with socket.create_server(("127.0.0.1", place.port)):
        stranger = await seen_by_server(replace(place, timeout_s=0.5))
    assert stranger["port"].state is State.BAD
    assert "See who has it" in stranger["port"].next_step


async def test_a_coordinator_for_other_machines_needs_certificates(tmp_path: Path) -> None:
    place = server.Place(address="0.0.0.0:0", certs=None, enrol_port=7402, out=tmp_path, timeout_s=LONG_S)
    with pytest.raises(Exception, match="cannot be read"):
        await seen_by_server(place)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = await seen_by_server(
        server.Place(address=f"0.0.0.0:{port}", certs=None, enrol_port=7402, out=tmp_path, timeout_s=LONG_S)
    )
    assert found["certificate"].next_step.startswith("fedprune certs init")
    elsewhere = server.Place(address=f"192.0.2.1:{port}", certs=None, enrol_port=7402, out=tmp_path, timeout_s=LONG_S)
    assert "an address of this machine" in (await seen_by_server(elsewhere))["port"].next_step


async def test_a_probe_is_bounded(tmp_path: Path) -> None:
    async with served(tmp_path, tls=False) as (federation, _), grpc.aio.insecure_channel(federation.address) as channel:
        ask = channel.unary_unary(
            "/fedprune.v1.Coordinator/Probe", pb.ProbeRequest.SerializeToString, pb.ProbeReply.FromString
        )
        mine = (("fedprune-identity", "doctor"),)
        reply = await ask(pb.ProbeRequest(payload=bytes(5), answer_bytes=1 << 20), metadata=mine, timeout=LONG_S)
        assert len(reply.payload) == 1 << 20
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(pb.ProbeRequest(answer_bytes=(1 << 20) + 1), metadata=mine, timeout=LONG_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("apart_s", "state"), [(0.5, State.GOOD), (-5.0, State.GOOD), (60.0, State.WARNING), (-301.0, State.BAD)]
)
def test_clocks_that_are_apart(apart_s: float, state: State) -> None:
    found = same_clock(apart_s)
    assert found.state is state
    assert ("ahead" if apart_s > 0 else "behind") in found.seen


def test_versions_that_differ() -> None:
    assert same_version("9.9").state is State.WARNING
