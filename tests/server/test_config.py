"""What a coordinator refuses to start with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedprune.errors import ConfigError
from fedprune_server.config import ServerConfig


def made(
    tmp_path: Path,
    *texts: str,
    task: str | None = "task.py",
    address: str | None = None,
    insecure: bool = False,
    certs: Path | None = None,
    overrides: tuple[str, ...] = (),
) -> ServerConfig:
    (tmp_path / "task.py").touch()
    (tmp_path / "other.py").touch()
    files = []
    for index, text in enumerate(texts):
        files.append(tmp_path / f"{index}.toml")
        files[-1].write_text(text)
    path = None if task is None else tmp_path / task
    out = tmp_path / "runs"
    return ServerConfig.from_files(
        files, overrides=overrides, task=path, out=out, address=address, insecure=insecure, certs=certs
    )


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    text = "[task]\nfile = 'other.py'\n[network]\naddress = '127.0.0.1:1'\n"
    assert made(tmp_path, text, task=None).task == tmp_path / "other.py"
    assert made(tmp_path, text).task == tmp_path / "task.py"
    assert made(tmp_path, text).address == "127.0.0.1:1"
    assert made(tmp_path, text, address="localhost:2").address == "localhost:2"


def test_overrides_reach_every_run(tmp_path: Path) -> None:
    config = made(tmp_path, "[run]\nname = 'a'", "[run]\nname = 'b'", overrides=("run.rounds=3",))
    assert [(c.run.name, c.run.rounds) for c in config.runs] == [("a", 3), ("b", 3)]


def test_refuses_two_runs_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two of the run files are called 'run'"):
        made(tmp_path, "", "")


def test_refuses_to_start_without_run_or_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a run file"):
        made(tmp_path)
    with pytest.raises(ConfigError, match="no task file is named"):
        made(tmp_path, "", task=None)
    with pytest.raises(ConfigError, match=r"there is no task file \(got .*missing.py\)"):
        made(tmp_path, "", task="missing.py")


def test_plaintext_for_other_machines_must_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not encrypted \(got 0\.0\.0\.0:7400.*--insecure"):
        made(tmp_path, "", address="0.0.0.0:7400")
    assert made(tmp_path, "", address="0.0.0.0:7400", insecure=True).insecure
    assert made(tmp_path, "[network]\naddress = '[::]:7400'\ninsecure = true").insecure


def test_other_machines_are_welcome_with_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certs = tmp_path / "certs"
    with pytest.raises(ConfigError, match=r"there are no certificates .*fedprune certs init"):
        made(tmp_path, "", address="0.0.0.0:7400", certs=certs)
    certs.mkdir()
    assert made(tmp_path, "", address="0.0.0.0:7400", certs=certs).certs == certs
    with pytest.raises(ConfigError, match="contradict"):
        made(tmp_path, "", address="0.0.0.0:7400", certs=certs, insecure=True)
    monkeypatch.chdir(tmp_path)
    assert made(tmp_path, "", address="0.0.0.0:7400").certs == Path("certs")
    assert made(tmp_path, "", address="127.0.0.1:7400").certs is None
    assert made(tmp_path, "", address="0.0.0.0:7400", insecure=True).certs is None


def test_a_page_is_served_where_the_file_or_a_flag_says_so(tmp_path: Path) -> None:
    def page(text: str = "", **flags: Any) -> str | None:
        (tmp_path / "task.py").touch()
        file = tmp_path / "run.toml"
        file.write_text(text)
        found = ServerConfig.from_files(
            [file], overrides=[], task=tmp_path / "task.py", out=tmp_path, address=None, insecure=False, **flags
        )
        return found.page

    text = "[page]\naddress = '127.0.0.1:1'\n"
    assert page() is None
    assert page(text) is None
    assert page(page=True) == "127.0.0.1:7401"
    assert page(text, page=True) == "127.0.0.1:1"
    assert page(text + "serve = true\n") == "127.0.0.1:1"
    assert page(text, page_address="127.0.0.1:2") == "127.0.0.1:2"


def test_a_token_file_lies_beside_the_run_file(tmp_path: Path) -> None:
    assert made(tmp_path, "[page]\ntoken_file = 'secret'\n").page_token == tmp_path / "secret"
