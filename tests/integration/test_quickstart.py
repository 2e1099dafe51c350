"""The quickstart as its reader does it: the files and commands of the page, in their order, in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedprune_lab import cli
from fedprune_lab.jobs import Job
from fedprune_lab.ports import Ports
from fedprune_lab.processes import Processes

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "quickstart.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What the page says to install and to open a shell with: this test runs in what that makes.
READERS = ("export", "inspect", "list", "log", "report", "verify")
DONE_BEFORE = ("make ", "source ")


def blocks(language: str) -> list[str]:
    return [content for kind, content in BLOCK.findall(PAGE) if kind == language]


def groups() -> Iterator[list[list[str]]]:
    """The arguments of `fedprune` for each console block of the page."""
    for block in blocks("console"):
        lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
        if commands := [shlex.split(line) for line in lines if not line.startswith(DONE_BEFORE)]:
            assert {words[0] for words in commands} == {"fedprune"}
            yield [words[1:] for words in commands]


def reading_examples() -> list[str]:
    """The examples in the help of each verb that reads a finished run, on the run of the page."""
    shown = [
        line.strip().removeprefix("Example: ").removeprefix("fedprune ")
        for command in cli.app.registered_commands
        for line in (command.callback.__doc__ or "").splitlines()
        if command.name in READERS and line.strip().removeprefix("Example: ").startswith("fedprune ")
    ]
    assert len(shown) >= len(READERS)
    # Here is one run: there is nothing to compare it with.
    return [re.sub(r"\bruns/[\w-]+", "runs/first", line) for line in shown if line.count("runs/") < 2]


def at(address: str, words: list[str]) -> list[str]:
    """The same command at a port of this test's own; what clients send is kept, as an example of `export` needs it."""
    here = [address if word == "127.0.0.1:7400" else word for word in words]
    return [*here, "--address", address, "--set", "run.keep_updates=true"] if here[0] == "server" else here


def run_together(commands: list[list[str]], address: str) -> list[str]:
    """Start all commands of a block, as its reader does in several terminals; gives what each printed."""
    jobs = [
        Job(name=str(number), arguments=at(address, words), log=f"{number}.log")
        for number, words in enumerate(commands)
    ]
    codes: dict[str, int] = {}
    with Processes(jobs) as processes:
        while processes.running:
            codes |= {ended.name: ended.code for ended in processes.wait(0.2)}
            # At once: a client whose coordinator has failed would look for it for an hour.
            assert not any(codes.values()), {name: processes.last_words(name) for name in codes}
    return [Path(job.log).read_text() for job in jobs]


def test_the_page_works_from_an_empty_folder_to_a_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task, load = blocks("python")
    (run_file,) = blocks("toml")
    (tmp_path / "task.py").write_text(task)
    (tmp_path / "run.toml").write_text(run_file)
    monkeypatch.chdir(tmp_path)
    printed: dict[str, str] = {}
    for commands in groups():
        if len(commands) > 1:
            with Ports() as ports:
                said = run_together(commands, f"127.0.0.1:{ports.take()}")
            printed |= dict(zip((words[0] for words in commands), said, strict=True))
        else:
            assert cli.run(commands[0]) == 0
            printed[commands[0][0]] = capsys.readouterr().out
    assert list(printed) == ["check", "server", "client", "report"]
    assert "task.py is a good task" in printed["check"]
    assert "run first finished: 30 rounds" in printed["server"]
    assert "steady state" in printed["report"]
    whole = json.loads(Path("runs/first/report.json").read_text())["runs"][0]
    assert whole["final"]["density"] == pytest.approx(0.1, abs=0.02)
    assert whole["final"]["accuracy"] > 0.7
    named = re.findall(r"^\| `([\w./]+)` \|", PAGE, re.MULTILINE)
    assert len(named) >= 6
    assert [name for name in named if not Path("runs/first", name).exists()] == []
    for line in reading_examples():
        assert cli.run(shlex.split(line)) == 0, (line, capsys.readouterr().err)
        assert capsys.readouterr().out, line
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "task", raising=False)
    loaded: dict[str, object] = {}
    exec(load, loaded)  # noqa: S102 - the page's own block
    assert str(loaded["trained"]).startswith("Sequential(")
