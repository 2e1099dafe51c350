"""The meter against sockets whose bytes the test itself counted."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fedprune import inet_diag
from fedprune.errors import LocalError
from fedprune.sockets import FEW, LONGEST_PARTIAL, Counters, SocketMeter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters are read on Linux")

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A server on a free port; "::" listens for both families, as gRPC does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as server:
        yield server


@contextmanager
def connected(server: socket.socket, host: str = "127.0.0.1") -> Iterator[Pair]:
    with socket.create_connection((host, server.getsockname()[1])) as client:
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


@contextmanager
def metering(server: socket.socket) -> Iterator[tuple[SocketMeter, SocketMeter]]:
    """One meter for each end: the listening, the dialled."""
    port = server.getsockname()[1]
    meters = SocketMeter(listening_port=port), SocketMeter(dialled_port=port)
    try:
        yield meters
    finally:
        for meter in meters:
            meter.close()


def pump(sender: socket.socket, receiver: socket.socket, count: int) -> None:
    """Move `count` bytes and read them, piece by piece, so that nothing waits in a full buffer."""
    for start in range(0, count, 8192):
        piece = min(8192, count - start)
        sender.sendall(b"x" * piece)
        while piece:
            piece -= len(receiver.recv(piece))


def confirm(pair: Pair) -> None:
    """Make the accepted end's kernel confirm all it has: its data carries the acknowledgement."""
    pump(pair[0], pair[1], 1)
    pump(pair[1], pair[0], 1)


def total(meter: SocketMeter) -> Counters:
    sample = meter.sample()
    assert sample is not None, meter.unavailable
    return sum(sample.values(), Counters())


def last_words(meter: SocketMeter) -> Counters:
    """What the next sample that holds anything says: the kernel posts a close a moment after it."""
    while True:
        found = total(meter)
        if found != Counters():
            return found


def test_both_ends_count_each_byte_once() -> None:
    with listening() as server, metering(server) as (at_server, at_client), connected(server) as pair:
        pump(pair[0], pair[1], 100_000)
        pump(pair[1], pair[0], 777)
        confirm(pair)
        assert total(at_server).received == 100_001
        assert total(at_client) == Counters(sent=100_001, received=778)
        pump(pair[0], pair[1], 5)
        assert total(at_server).received == 5
        assert total(at_server).received == 0


def test_the_listening_end_counts_what_it_sent_too() -> None:
    with listening() as server, metering(server) as (at_server, _), connected(server) as pair:
        pump(pair[1], pair[0], 20_000)
        pump(pair[0], pair[1], 1)
        assert total(at_server) == Counters(sent=20_000, received=1)


@pytest.mark.parametrize(
    ("listen", "dial", "peer"),
    [
        ("127.0.0.1", "127.0.0.1", "ipv4:127.0.0.1:{}"),
        ("::1", "::1", "ipv6:%5B::1%5D:{}"),
        ("::", "127.0.0.1", "ipv4:127.0.0.1:{}"),
        ("::", "::1", "ipv6:%5B::1%5D:{}"),
    ],
)
def test_peers_are_named_as_grpc_names_them(listen: str, dial: str, peer: str) -> None:
    with listening(listen) as server, metering(server) as (at_server, _), connected(server, dial) as pair:
        pump(pair[0], pair[1], 9)
        assert at_server.sample() == {peer.format(pair[0].getsockname()[1]): Counters(received=9)}


def test_connections_are_kept_apart_and_a_quiet_one_is_still_there() -> None:
    with listening() as server, metering(server) as (at_server, _), connected(server) as one, connected(server):
        pump(one[0], one[1], 10)
        sample = at_server.sample()
        assert sample is not None
        assert sorted(c.received for c in sample.values()) == [0, 10]


def test_a_connection_that_came_and_went_between_samples_is_counted() -> None:
    with listening() as server, metering(server) as (at_server, _):
        with connected(server) as pair:
            pump(pair[0], pair[1], 12_345)
        # The FIN counts as a byte.
        assert last_words(at_server).received == 12_346


def test_the_bytes_after_the_last_sample_are_not_lost_when_it_closes() -> None:
    with listening() as server, metering(server) as (_, at_client):
        with connected(server) as pair:
            pump(pair[0], pair[1], 1000)
            assert total(at_client).received == 0
            pump(pair[1], pair[0], 2000)
        assert last_words(at_client).received in (2000, 2001)


def test_a_flood_of_strangers_does_not_drown_our_last_words() -> None:
    with listening() as server, listening() as other, metering(server) as (at_server, _):
        with connected(server) as pair:
            pump(pair[0], pair[1], 50)
        for _ in range(600):
            with connected(other):
                pass
        assert last_words(at_server).received == 51


def test_a_drowned_post_forgets_the_dead_but_counts_the_living_once() -> None:
    class Drowned:
        """An event socket whose queue overflowed once."""

        def __init__(self) -> None:
            self.answers = [OSError(errno.ENOBUFS, "no buffer space"), BlockingIOError()]

        def recv(self, _: int) -> bytes:
            raise self.answers.pop(0)

        def close(self) -> None:
            pass

    with listening() as server, metering(server) as (at_server, _), connected(server) as alive:
        with connected(server):
            pump(alive[0], alive[1], 10)
            assert total(at_server).received == 10
        kept, at_server._events = at_server._events, Drowned()  # type: ignore[assignment]
        assert total(at_server).received <= 1
        pump(alive[0], alive[1], 3)
        assert kept is not None
        kept.close()
        at_server._events = Drowned()  # type: ignore[assignment]
        assert total(at_server).received == 3
        assert len(at_server._last) == 1


class Dumps:
    """How often the kernel was asked for all sockets of a family."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._ask = inet_diag.dump_request
        monkeypatch.setattr(inet_diag, "dump_request", self)

    def __call__(self, family: int, *, local_port: int = 0, remote_port: int = 0) -> bytes:
        self.count += 1
        return self._ask(family, local_port=local_port, remote_port=remote_port)


def peer_of(pair: Pair) -> str:
    host, port = pair[0].getsockname()[:2]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


@pytest.mark.parametrize(("listen", "dial"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_a_connection_that_is_known_is_asked_about_by_itself(
    listen: str, dial: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(listen) as server, metering(server) as (at_server, _), connected(server, dial) as pair:
        peers = {peer_of(pair)}
        at_server.sample(peers)
        dumps = Dumps(monkeypatch)
        pump(pair[0], pair[1], 9)
        assert at_server.sample(peers) == {peer_of(pair): Counters(received=9)}
        assert dumps.count == 0


def test_who_came_since_is_looked_for() -> None:
    with listening() as server, metering(server) as (at_server, _), connected(server) as one:
        at_server.sample({peer_of(one)})
        with connected(server) as other:
            pump(other[0], other[1], 7)
            found = at_server.sample({peer_of(one), peer_of(other)})
            assert found == {peer_of(one): Counters(), peer_of(other): Counters(received=7)}


def test_a_known_connection_that_closes_is_counted_to_its_end() -> None:
    with listening() as server, metering(server) as (at_server, _), connected(server) as stays:
        with connected(server) as goes:
            peers = {peer_of(stays), peer_of(goes)}
            at_server.sample(peers)
            pump(goes[0], goes[1], 30)
        received = 0
        while received < 31:  # the FIN counts as a byte
            found = at_server.sample(peers)
            assert found is not None
            received += sum(counters.received for counters in found.values())
        assert received == 31
        assert at_server.sample(peers) == {peer_of(stays): Counters()}


def test_many_connections_are_asked_about_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as server, metering(server) as (at_server, _), ExitStack() as open_:
        pairs = [open_.enter_context(connected(server)) for _ in range(FEW + 1)]
        peers = {peer_of(pair) for pair in pairs}
        at_server.sample(peers)
        dumps = Dumps(monkeypatch)
        assert at_server.sample(peers) == dict.fromkeys(peers, Counters())
        assert dumps.count == len(inet_diag.FAMILIES)


def test_a_connection_that_nobody_named_is_found_after_a_while() -> None:
    with listening() as server, metering(server) as (at_server, _), connected(server) as known:
        at_server.sample({peer_of(known)})
        with connected(server) as unnamed:
            pump(unnamed[0], unnamed[1], 4)
            seen: dict[str, Counters] = {}
            for _ in range(LONGEST_PARTIAL + 1):
                seen |= at_server.sample({peer_of(known)}) or {}
            assert seen[peer_of(unnamed)] == Counters(received=4)


def test_the_dialled_side_sees_only_its_own_process() -> None:
    dial = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.send(b'x'); s.recv(1)"
    with listening() as server, metering(server) as (at_server, at_client):
        other = subprocess.Popen([sys.executable, "-c", dial, str(server.getsockname()[1])])
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"
            assert total(at_server).received == 1
            assert at_client.sample() == {}
        assert other.wait() == 0


def test_no_privilege_is_needed() -> None:
    with listening() as server:
        # What Python loads late is loaded here: nobody may not read its files everywhere.
        assert _both_see(server)
        pid = os.fork()
        if pid == 0:
            code = 1
            # Whatever happens: a child that came back would go on with the tests beside its parent.
            try:
                _become_nobody()
                code = 0 if _both_see(server) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _become_nobody() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def _both_see(server: socket.socket) -> bool:
    with metering(server) as (at_server, at_client), connected(server) as pair:
        pump(pair[0], pair[1], 10)
        seen = at_server.sample(), at_client.sample()
    return None not in seen and all(seen)


def test_another_system_gives_none_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    meter = SocketMeter(listening_port=7400)
    assert meter.sample() is None
    assert meter.unavailable == "only Linux tells the bytes of a connection"


def test_a_sandbox_without_netlink_gives_none_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    meter = SocketMeter(listening_port=7400)
    assert meter.sample() is None
    assert meter.unavailable == "the kernel refuses sock_diag: Operation not permitted"


def test_an_answer_with_an_error_ends_the_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as server, metering(server) as (at_server, _):
        monkeypatch.setattr(inet_diag, "error_number", lambda _: errno.EINVAL)
        assert at_server.sample() is None
        monkeypatch.undo()
        assert at_server.sample() is None
        assert at_server.unavailable == "sock_diag stopped answering: Invalid argument"


@pytest.mark.parametrize("ports", [{}, {"listening_port": 1, "dialled_port": 2}])
def test_a_meter_watches_exactly_one_port(ports: dict[str, int]) -> None:
    with pytest.raises(LocalError, match="watches one port"):
        SocketMeter(**ports)


def test_counters_never_go_below_zero() -> None:
    with pytest.raises(LocalError, match="never go down"):
        Counters(sent=-1)
