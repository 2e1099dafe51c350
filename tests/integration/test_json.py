"""`--json` everywhere: each verb of the command prints one object on stdout and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedprune_lab import cli, new
from fedprune_lab.ports import Ports

from .federation import Federation, run_file, task_file

ROOT = Path(__file__).resolve().parents[2]
# These start other programs: test_programs.py and test_demo.py look at what they print; compare prints what it keeps.
ELSEWHERE = {("server",), ("client",), ("health",), ("stop",), ("demo",), ("compare",)}
TASK, RUN, CERTS = "ward/task.py", "runs/run", ("--certs", "certs")
# In this order: a run and its certificates are made before they are looked at.
ASKED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("new",), ("fresh",)),
    (("check",), (TASK,)),
    (("shares",), (TASK, "--svg", "shares.svg")),
    (("report",), (RUN,)),
    (("list",), ("runs",)),
    (("log",), (RUN,)),
    (("inspect",), (RUN, "--pictures", "pictures")),
    (("export",), (RUN, "--csr", "csr")),
    (("verify",), (RUN,)),
    (("audit",), (RUN,)),
    (("bench",), ()),
    (("certs", "init"), ("localhost", *CERTS)),
    (("certs", "list"), CERTS),
    (("certs", "issue"), ("bob", "--out", "bob", *CERTS)),
    (("invite",), ("alice", *CERTS)),
    (("certs", "revoke"), ("bob", *CERTS)),
    (("certs", "rotate"), CERTS),
    (("doctor", "client"), ()),
    (("doctor", "server"), ("--address", "ADDRESS")),
)


def test_no_verb_is_left_out() -> None:
    assert {words for words, _ in ASKED} | ELSEWHERE == set(cli.verbs())


async def test_each_prints_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new.create(tmp_path / "ward")
    (tmp_path / "bench").symlink_to(ROOT / "bench")
    pruning = ("pruning.density=0.5", "pruning.every=1", "pruning.end=0.5")
    assert await Federation(tmp_path, task_file(tmp_path), [run_file(*pruning)]).run()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    with Ports() as ports:
        address = f"127.0.0.1:{ports.take()}"
        for words, arguments in ASKED:
            here = [address if word == "ADDRESS" else word for word in arguments]
            assert cli.run([*words, *here, "--json"]) == 0, words
            assert isinstance(json.loads(capsys.readouterr().out), dict), words
