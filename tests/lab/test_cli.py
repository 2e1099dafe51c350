"""The `fedprune` command as a shell sees it: help at once, an example for each verb, an exit code for each ending."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedprune_client import app as client_app
from fedprune_lab import cli
from fedprune_server import app as server_app

HEAVY = ("torch", "grpc", "google.protobuf", "numpy", "pydantic", "rich", "asyncio", "cryptography", "sqlite3")
PROBE = """
import sys
from {module} import {function}
code = {function}({words})
heavy = [name for name in {heavy} if name in sys.modules]
sys.exit(f"imported for {words}: {{heavy}}" if heavy else code)
"""


@pytest.mark.parametrize(
    ("module", "function"),
    [("fedprune_lab.cli", "run"), ("fedprune_server.app", "main"), ("fedprune_client.app", "main")],
)
def test_help_loads_nothing_heavy(module: str, function: str) -> None:
    probe = PROBE.format(module=module, function=function, words=["--help"], heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: fedprune" in done.stdout


@pytest.mark.parametrize("words", [["list"], ["doctor", "server", "--address", "127.0.0.1:1"], ["doctor", "client"]])
def test_what_answers_at_once_loads_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    probe = PROBE.format(module="fedprune_lab.cli", function="run", words=words, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "imported for" not in done.stderr
    assert done.stdout


@pytest.mark.parametrize("words", cli.verbs(), ids=" ".join)
def test_each_verb_has_help_with_an_example(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*words, "--help"]) == 0
    assert f"Example: fedprune {' '.join(words)}" in capsys.readouterr().out


def test_the_verbs_of_a_side_are_the_side_s_own() -> None:
    groups = [group.typer_instance for group in cli.app.registered_groups if group.typer_instance is not None]
    mine = {command.callback for app in (cli.app, *groups) for command in app.registered_commands}
    for side in (server_app.app, client_app.app):
        assert {command.callback for command in side.registered_commands} <= mine


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (["server", "missing.toml"], 2, "cannot read the run file missing.toml"),
        (["client", "--server", "127.0.0.1:1", "--task", "missing.py"], 2, "there is no task file"),
        (["health", "127.0.0.1:1"], 3, "no healthy coordinator at 127.0.0.1:1"),
        (["health", "--timeout-s", "0"], 2, "0"),
        (["doctor", "client", "nowhere"], 2, "the coordinator's address cannot be read"),
        (["doctor", "server", "--address", "nowhere"], 2, "the address cannot be read"),
        (["verify", "missing"], 1, "no run here"),
        (["inspect", "--codec", "missing"], 1, "there is no such file"),
        (["export", "missing", "--csr", "out"], 1, "there is no model"),
        (["log", "missing"], 1, "there is no such run"),
        (["stop", "127.0.0.1:1"], 3, "cannot be asked to stop"),
        (["report", "missing"], 1, "there is no report for 'missing'"),
        (["serve"], 2, "No such command 'serve'"),
    ],
)
def test_exit_codes(line: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(line) == code
    assert message in capsys.readouterr().err


def test_a_misspelt_key_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[run]\nrounds = 3\n\n[pruning]\ndensty = 0.1\n")
    assert cli.run(["server", str(file)]) == 2
    expected = f"fedprune: {file} line 5: [pruning] densty is not a key; did you mean density?\n"
    assert capsys.readouterr().err == expected
