"""Where the page listens, and the token that it asks for beyond loopback."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import httpx
import pytest

from fedprune.errors import ConfigError, MissingExtraError
from fedprune_server import extras
from fedprune_server.page.serving import Place, read_token, served
from fedprune_server.page.watching import Watch


def test_loopback_needs_no_token(tmp_path: Path) -> None:
    with Place.open("127.0.0.1:0", token_file=None, out=tmp_path).listener as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    assert list(tmp_path.iterdir()) == []


def test_beyond_it_a_token_is_made_once_and_kept_for_oneself(tmp_path: Path) -> None:
    places = [Place.open("0.0.0.0:0", token_file=None, out=tmp_path / "runs") for _ in range(2)]
    for place in places:
        place.listener.close()
    kept = tmp_path / "runs" / "page-token"
    assert {place.token for place in places} == {kept.read_text().strip()}
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(kept.read_text()) > 30


def test_the_address_to_open_has_the_token(tmp_path: Path) -> None:
    with Place.open("127.0.0.1:0", token_file=None, out=tmp_path).listener as listener:
        port = listener.getsockname()[1]
        assert Place(listener=listener, token=None).url == f"http://127.0.0.1:{port}/"
        assert Place(listener=listener, token="t").url == f"http://127.0.0.1:{port}/?token=t"


def test_a_token_of_one_s_own(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("sixteen-characters\n")
    assert read_token(file, tmp_path / "runs") == "sixteen-characters"
    file.write_text("short")
    with pytest.raises(ConfigError, match="too short"):
        read_token(file, tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "missing", tmp_path)


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="in use"):
        Place.open(f"127.0.0.1:{taken.getsockname()[1]}", token_file=None, out=tmp_path)


async def test_it_serves_until_the_block_ends(tmp_path: Path, watch: Watch) -> None:
    place = Place.open("127.0.0.1:0", token_file=None, out=tmp_path)
    state = f"{place.url}state.json"
    async with httpx.AsyncClient() as visitor:
        async with served(place, watch.coordinator):
            assert (await visitor.get(state)).json()["runs"] == []
        with pytest.raises(httpx.TransportError):
            await visitor.get(state)


def test_without_its_libraries_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fedprune_server.page.serving", None)
    with pytest.raises(MissingExtraError, match="fedprune\\[page\\]"):
        extras.open_page("127.0.0.1:0", token_file=None, out=tmp_path)
