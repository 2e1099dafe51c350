"""The pages say what the program does: generated ones are current, and every command, run file and task shown works."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

from fedprune.config import RunConfig
from fedprune_client.check import check
from fedprune_lab import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, content) of every fenced block in that language."""
    found = []
    for page in PAGES:
        for kind, content in BLOCK.findall(page.read_text(encoding="utf-8")):
            if kind == language:
                found.append((page.name, content))
    return found


def shown_commands() -> Iterator[tuple[str, str]]:
    """(page, line) of every command after a `$` in a console block, continuation lines joined."""
    for page, content in blocks("console"):
        for line in content.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield page, line.removeprefix("$ ").partition("  #")[0].strip()


def made_by(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{script}", ROOT / "docs" / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    """A folder with data of every kind that the pages read, a little of each."""
    folder = tmp_path / "owner"
    for name, place in (("healthy", "scans"), ("ill", "scans"), ("letters", "")):
        (folder / place / name).mkdir(parents=True)
    (folder / "letters" / "first.txt").write_text("Dear reader,\n" * 20)
    (folder / "patients.csv").write_text("age,dose,pressure,outcome\n" + "50,1.5,120,well\n61,0.5,140,ill\n" * 5)
    torch.save((torch.zeros(8, 784), torch.arange(8)), folder / "train.pt")
    with contextlib.suppress(ImportError):
        from PIL import Image

        for number in range(8):
            Image.new("RGB", (40, 30), (25 * number, 0, 99)).save(
                folder / "scans" / ("healthy", "ill")[number % 2] / f"{number}.png"
            )
    with contextlib.suppress(ImportError):
        from datasets import Dataset

        rows = {"signal": [[0.5] * 8] * 6, "label": [0, 1, 2] * 2}
        Dataset.from_dict(rows).save_to_disk(folder / "readings", num_proc=None)
    return folder


@pytest.mark.parametrize("maker", ["generate", "pictures"])
def test_generated_pages_are_current(maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pages = made_by(maker).PAGES
    assert pages
    for page, make in pages.items():
        assert (ROOT / "docs" / page).read_text(encoding="utf-8") == make(), f"{page} is old; run: make docs"


def test_there_is_something_to_check() -> None:
    assert len(list(shown_commands())) >= 8
    assert blocks("toml")
    assert blocks("python")


@pytest.mark.parametrize(("page", "line"), [c for c in shown_commands() if c[1].startswith("fedprune ")])
def test_commands_parse(page: str, line: str) -> None:
    verb, *words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(cli.app).commands[verb]  # type: ignore[attr-defined]  # it is a group
    while isinstance(command, typer.core.TyperGroup):
        verb, *words = words
        command = command.commands[verb]
    assert command.make_context(verb, words).command is command


@pytest.mark.parametrize(("page", "line"), [c for c in shown_commands() if c[1].startswith("make ")])
def test_make_targets_exist(page: str, line: str) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert shlex.split(line)[1] in targets


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_run_files_are_valid(page: str, text: str) -> None:
    assert RunConfig.loads(text, name=page).run.rounds > 0


@pytest.mark.parametrize(("page", "text"), [b for b in blocks("python") if "def train_data" in b[1]])
def test_tasks_train_a_batch(page: str, text: str, owner: Path, tmp_path: Path) -> None:
    for package in ("datasets", "mnist1d", "PIL", "pyarrow"):
        if package in text:
            pytest.importorskip(package, reason=f"{package} is not installed")
    file = tmp_path / "task.py"
    file.write_text(text)
    assert check(file, data=owner).examples


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_parses(page: str, text: str) -> None:
    assert ast.parse(text).body


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert dead == []
