"""What a client refuses before anything is loaded or dialled."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fedprune.errors import ConfigError
from fedprune_client.config import ClientConfig


def made(
    task: Path,
    *,
    server: str = "localhost:7400",
    name: str | None = None,
    data: Path | None = None,
    credentials: Path | None = None,
    insecure: bool = False,
) -> ClientConfig:
    return ClientConfig.from_flags(
        server=server,
        task=task,
        name=name,
        data=data,
        state=task.parent / "state",
        threads=0,
        credentials=credentials,
        insecure=insecure,
    )


@pytest.fixture
def task(tmp_path: Path) -> Path:
    file = tmp_path / "task.py"
    file.touch()
    return file


def test_fills_in_name_and_data(task: Path) -> None:
    config = made(task)
    assert (config.name, config.data) == (socket.gethostname(), task.parent)


def test_keeps_what_was_given(task: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    config = made(task, server="[::1]:7400", name="ward-7", data=tmp_path / "scans")
    assert (config.name, config.data) == ("ward-7", tmp_path / "scans")


@pytest.mark.parametrize("server", ["localhost", ":7400", "h:", "h:http", ""])
def test_refuses_an_address_without_host_and_port(task: Path, server: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        made(task, server=server)


@pytest.mark.parametrize("name", ["", "ä", "a\nb", "a\x00", "../a", "a/b", ".a", "a" * 129])
def test_refuses_a_name_that_cannot_travel(task: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="the name cannot be used"):
        ClientConfig(server="localhost:1", task=task, name=name, data=task.parent, state=task.parent, threads=0)


def test_refuses_missing_files(task: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no task file \(got .*nope.py\)\. Check --task"):
        made(tmp_path / "nope.py")
    with pytest.raises(ConfigError, match="there is no data at --data"):
        made(task, data=tmp_path / "nope")


def test_plaintext_to_another_machine_must_be_asked_for(task: Path) -> None:
    with pytest.raises(ConfigError, match=r"would not be encrypted \(got fl.example.org:7400.*--insecure"):
        made(task, server="fl.example.org:7400")
    assert made(task, server="fl.example.org:7400", insecure=True).insecure
    assert made(task, server="fl.example.org:7400", credentials=task.parent).credentials == task.parent
