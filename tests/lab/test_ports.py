"""A port that is held is given to nobody who does not know it, and listened on by who does."""

from __future__ import annotations

import socket
import sys

import pytest

from fedprune_lab.ports import HOST, MOST_HELD, Ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ports are not held")


def is_given_away(port: int) -> bool:
    """Whether somebody who takes any port could get this one: nobody has it."""
    with socket.socket() as anybody:
        try:
            anybody.bind((HOST, port))
        except OSError:
            return False
        return True


def test_it_is_held_until_the_end() -> None:
    with Ports() as ports:
        port = ports.take()
        assert not is_given_away(port)
    assert is_given_away(port)


def test_one_program_can_listen_on_it_and_no_second_one() -> None:
    with Ports() as ports:
        port = ports.take()
        with socket.create_server((HOST, port)):
            socket.create_connection((HOST, port)).close()
            with pytest.raises(OSError, match="in use"):
                socket.create_server((HOST, port))


def test_nobody_answers_on_it_before() -> None:
    with Ports() as ports, pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, ports.take()))


def test_only_so_many_are_held() -> None:
    with Ports() as ports:
        first, *rest = (ports.take() for _ in range(MOST_HELD + 1))
        assert is_given_away(first)
        assert not any(map(is_given_away, rest))
