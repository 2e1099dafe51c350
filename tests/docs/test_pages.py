"""Generated pages are current, links lead somewhere, and what a page names in passing exists."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from fedprune_client import app as client
from fedprune_lab import cli
from fedprune_server import app as server

from . import pages
from .pages import ROOT

LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
EXTRA = re.compile(r"fedprune\[(\w+)\]")
PROGRAMS = {"fedprune": cli.app, "fedprune_server": server.app, "fedprune_client": client.app}


def made_by(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{script}", ROOT / "docs" / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("maker", ["generate", "pictures"])
def test_generated_pages_are_current(maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    made = made_by(maker).PAGES
    assert made
    for page, make in made.items():
        assert (ROOT / "docs" / page).read_text(encoding="utf-8") == make(), f"{page} is old; run: make docs"


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name_of)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert dead == []


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = [line for page in pages.PAGES for line in pages.shown_commands(page)]
    named = {
        shlex.split(line)[1] for line in [*shown, *(line for _, line in pages.inline_commands())] if line[:5] == "make "
    }
    assert len(named) > 4
    assert named <= set(targets)


def test_extras_exist() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for page in pages.PAGES for extra in EXTRA.findall(page.read_text(encoding="utf-8"))}
    assert named == set(known)


INLINE = sorted(set(pages.inline_commands()))


@pytest.mark.parametrize(("page", "line"), [c for c in INLINE if c[1].split()[0] in ("fedprune", "python")])
def test_commands_within_sentences_exist(page: str, line: str) -> None:
    """Half of a command is enough in a sentence: each verb, option and program in it must be there."""
    words = shlex.split(line)
    if words[:2] == ["python", "-m"]:
        has_options(PROGRAMS[words[2]], words[3:])
    elif words[0] == "python" or (words[1:2] == ["bench"] and len(words) > 2):
        script = (ROOT / (f"bench/{words[2]}.py" if words[1] == "bench" else words[1])).read_text()
        assert [word for word in words[2:] if word.startswith("--") and word not in script] == [], line
    else:
        has_options(cli.app, words[1:])


def has_options(app: typer.Typer, words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while isinstance(command, typer.core.TyperGroup) and words:
        command, words = command.commands[words[0]], words[1:]
    known = [option for parameter in command.params for option in parameter.opts]
    assert [word for word in words if word.startswith("-") and word not in known] == []
