"""The bad line as a program: it carries until it is told to end, and says what it carried."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading

import pytest

from fedprune_lab import line
from fedprune_lab.link import Link
from fedprune_lab.ports import Ports


def echo_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def test_carries_until_it_is_told_to_end() -> None:
    with Ports() as ports, socket.create_server(("127.0.0.1", 0)) as server:
        near = ports.take()
        far = server.getsockname()[1]
        threading.Thread(target=echo_once, args=(server,), daemon=True).start()
        shape = ["--rate", "100mbit", "--delay", "1ms"]
        command = ["--listen", f"127.0.0.1:{near}", "--to", f"127.0.0.1:{far}", *shape]
        with subprocess.Popen(
            [sys.executable, "-m", "fedprune_lab.line", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            assert b"carrying" in process.stderr.readline()
            with socket.create_connection(("127.0.0.1", near)) as connection:
                connection.sendall(b"x" * 5000)
                connection.shutdown(socket.SHUT_WR)
                back = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            assert back == b"x" * 5000
            process.terminate()
            said, _ = process.communicate()
    assert json.loads(said) == {"up": 5000, "down": 5000}
    assert process.returncode == 0


def test_says_what_it_cannot_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert line.main(["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--rate", "fast"]) == 2
    assert "a rate such as 10mbit" in capsys.readouterr().err


def test_is_as_bad_as_it_is_asked_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[tuple[str, str, Link]] = []

    async def carry(listen: str, to: str, link: Link) -> None:
        carried.append((listen, to, link))

    monkeypatch.setattr(line, "_carry", carry)
    shape = "--rate 1mbit --delay 40ms --jitter 10ms --reset-every 30s --cut-every 20s --cut-for 3s"
    assert line.main(["--listen", "127.0.0.1:1", "--to", "127.0.0.1:2", *shape.split()]) == 0
    link = Link(rate_bit_per_s=1e6, delay_s=0.04, jitter_s=0.01, reset_every_s=30.0, cut_every_s=20.0, cut_s=3.0)
    assert carried == [("127.0.0.1:1", "127.0.0.1:2", link)]
