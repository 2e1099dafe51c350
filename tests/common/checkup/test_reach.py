"""Names, ports and proxies: what answers, what does not, and who is told what."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fedprune.checkup import reach
from fedprune.checkup.findings import State


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def entry(address: str) -> tuple[Any, ...]:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 7400))


def test_a_name_with_addresses_named_once_each() -> None:
    def resolve(host: str, port: int) -> Sequence[Any]:
        return [entry("10.0.0.5"), entry("10.0.0.5"), entry("10.0.0.6")]

    found, addresses = reach.name("fl.example.org", 7400, timeout_s=30, resolve=resolve)
    assert addresses == ["10.0.0.5", "10.0.0.6"]
    assert "10.0.0.5, 10.0.0.6" in found.seen


def test_a_name_without_address() -> None:
    def resolve(host: str, port: int) -> Sequence[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    found, addresses = reach.name("fl.example.org", 7400, timeout_s=30, resolve=resolve)
    assert (found.state, addresses) == (State.BAD, [])
    assert "Check the spelling" in found.next_step


def test_a_resolver_that_never_answers_is_given_up() -> None:
    release = threading.Event()

    def resolve(host: str, port: int) -> Sequence[Any]:
        release.wait()
        return []

    found, addresses = reach.name("fl.example.org", 7400, timeout_s=0.05, resolve=resolve)
    release.set()
    assert (found.state, addresses) == (State.BAD, [])
    assert "no answer within 0.05 s" in found.seen
    assert "/etc/resolv.conf" in found.next_step


def test_the_system_s_own_resolver() -> None:
    assert reach.name("127.0.0.1", 7400, timeout_s=30)[1] == ["127.0.0.1"]


def test_a_port_that_is_open_on_some_addresses(listener: int) -> None:
    found, open_ = reach.port(["127.0.0.1"], listener, timeout_s=30)
    assert (found.state, open_) == (State.GOOD, ["127.0.0.1"])
    found, open_ = reach.port(["127.0.0.2", "127.0.0.1"], listener, timeout_s=30)
    assert (found.state, open_) == (State.WARNING, ["127.0.0.1"])
    assert "127.0.0.2: connection refused" in found.seen


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens"),
        (TimeoutError("timed out"), "open this port in the firewalls"),
        (OSError(113, "No route to host"), "no way to this address"),
    ],
)
def test_a_port_that_is_shut_says_who_to_ask(error: OSError, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        raise error

    monkeypatch.setattr(socket, "create_connection", refuse)
    found, open_ = reach.port(["10.0.0.5"], 7400, timeout_s=1, what="enrolment port")
    assert (found.check, found.state, open_) == ("enrolment port", State.BAD, [])
    assert step in found.next_step


@pytest.mark.parametrize(
    ("environment", "state"),
    [
        ({}, State.GOOD),
        ({"https_proxy": "http://me:secret@proxy:3128"}, State.WARNING),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "localhost, .example.org"}, State.GOOD),
        ({"https_proxy": "http://proxy:3128", "no_grpc_proxy": "ample.org"}, State.WARNING),
        ({"HTTPS_PROXY": "http://proxy:3128"}, State.GOOD),
    ],
)
def test_proxies_as_grpc_heeds_them(environment: dict[str, str], state: State) -> None:
    found = reach.proxy("fl.example.org", environment)
    assert found.state is state
    assert "secret" not in found.seen
