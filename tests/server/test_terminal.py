"""What a coordinator prints: lines, on a terminal the clients below them, and with --json one object alone."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fedprune.config import RunConfig
from fedprune.report import RoundReport, RunReport
from fedprune.tensor import Schema, TensorSpec
from fedprune.traffic import Traffic
from fedprune_server.coordinator import Coordinator
from fedprune_server.standing import into, kept_up
from fedprune_server.terminal import Terminal

CONFIG = RunConfig.loads("[run]\nrounds = 5\n")
STANDING = {
    "time": 1.0,
    "phase": "training",
    "round": 2,
    "waiting_for": "round 2: waiting for 1 client",
    "clients": {"0": {"name": "alice", "state": "working", "step": 1, "steps": 4}},
}


def row(number: int) -> RoundReport:
    moved = Traffic(up=1000, down=2000)
    return RoundReport(
        round=number, accuracy=0.5, density=1.0, density_of_all=1.0, seconds=2.0, payload=moved, socket=None,
        dense_equivalent=moved,
    )  # fmt: skip


def test_lines_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    with terminal.open():
        terminal.round(CONFIG, row(1))
        terminal.show(STANDING)
    terminal.close()
    printed = capsys.readouterr()
    assert printed.out.startswith("round   1/5  accuracy  50.00%")
    assert printed.out.count("\n") == 1


def test_with_json_stdout_has_one_object_alone(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(as_json=True)
    with terminal.open():
        terminal.round(CONFIG, row(1))
        terminal.finished(RunReport.of(name="one", outcome="finished", rounds=[row(1)]))
    terminal.close()
    printed = capsys.readouterr()
    assert [run["name"] for run in json.loads(printed.out)["runs"]] == ["one"]
    assert "round   1/5" in printed.err


def test_a_terminal_shows_each_client_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    monkeypatch.setattr(Terminal, "_console", console)
    terminal = Terminal()
    assert terminal.watched
    with terminal.open():
        terminal.round(CONFIG, row(1))
        terminal.show(STANDING)
        shown = text.getvalue()
    assert "alice" in shown
    assert "round 2: waiting for 1 client, about 8 s left" in shown
    assert terminal.live is None


async def test_a_file_says_how_things_stand(tmp_path: Path) -> None:
    coordinator = Coordinator(
        schema=Schema(tensors=(TensorSpec(name="w", shape=(2,)),)), frozen_digest="", heartbeat_s=1.0
    )
    file = tmp_path / "now.json"
    async with kept_up(coordinator, into(file)):
        await asyncio.sleep(0)
        assert json.loads(file.read_text())["phase"] == "between runs"
    assert [path.name for path in tmp_path.iterdir()] == ["now.json"]
