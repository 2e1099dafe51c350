"""The compose files for separate machines start what the guide says, with the variables that it sets and without them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from fedprune_client import app as client
from fedprune_server import app as server

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMMAND = re.compile(r"command: >-\n((?: {6}.+\n)+)")
LINE = f"fl.example.org:7400/7402/{'0' * 64}/{'t' * 22}"


def interpolated(text: str, environment: dict[str, str]) -> str:
    """As Compose does it, for the two forms in use: ${NAME:-else} and ${NAME:+then}, the second around the first."""
    text = re.sub(r"\$\{(\w+):-([^${}]*)\}", lambda m: environment.get(m[1]) or m[2], text)
    return re.sub(r"\$\{(\w+):\+([^${}]*)\}", lambda m: m[2] if environment.get(m[1]) else "", text)


def parsed(file: str, app: typer.Typer, environment: dict[str, str]) -> dict[str, Any]:
    found = COMMAND.search((DEPLOY / file).read_text())
    assert found is not None
    verb, *words = shlex.split(interpolated(found[1], environment))
    group: Any = typer.main.get_command(app)
    return dict(group.commands[verb].make_context(verb, words).params)


@pytest.mark.parametrize("line", [LINE, ""])
def test_a_client_joins_by_its_line_and_needs_it_once(line: str) -> None:
    given = parsed("client.yaml", client.app, {"JOIN": line})
    assert given["join"] == (line or None)
    assert Path(given["state"]) == Path("/state")
    assert given["server"] is None


@pytest.mark.parametrize(("clients", "overrides"), [("2", ["clients.expect=2"]), ("", [])])
def test_a_coordinator_waits_for_as_many_as_it_is_told(clients: str, overrides: list[str]) -> None:
    given = parsed("coordinator.yaml", server.app, {"CLIENTS": clients})
    assert list(given["overrides"]) == [*overrides, "page.serve=true", 'page.token_file="/run/secrets/page-token"']
    assert Path(given["certs"]) == Path("/state/certs")
