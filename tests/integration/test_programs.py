"""The programs as a shell runs them: a real coordinator process, asked, disturbed and ended from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedprune.config import RunConfig
from fedprune_lab.new import create
from fedprune_lab.ports import Ports
from fedprune_server.serve import Server, serve

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from fedprune_lab.cli import run; sys.exit(run())", *words]


def ended(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    create(tmp_path / "ward")
    return tmp_path / "ward"


@pytest.fixture
def address() -> Iterator[str]:
    with Ports() as ports:
        yield f"127.0.0.1:{ports.take()}"


@pytest.fixture
def coordinator(project: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """A coordinator that waits for clients; its first line on stderr has been read."""
    words = command("server", "run.toml", "--address", address)
    with subprocess.Popen(words, cwd=project, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "waiting for clients" in process.stderr.readline()
        yield process
        process.kill()


def test_asked_disturbed_and_stopped(coordinator: subprocess.Popen[str], project: Path, address: str) -> None:
    healthy = ended("health", address, "--json", folder=project)
    assert json.loads(healthy.stdout) == {"coordinator": address, "state": "serving"}

    second = ended("server", "run.toml", "--address", address, "--set", "run.name=second", folder=project)
    assert second.returncode == 2
    assert f"the port is in use, or the address is not this machine's (got {address})" in second.stderr
    assert "Traceback" not in second.stderr

    asked = ended("stop", address, "--shutdown", "--json", folder=project)
    assert asked.returncode == 0
    assert set(json.loads(asked.stdout)) == {"coordinator", "kept"}
    assert coordinator.wait() != 0  # the run it was started for did not finish


def test_a_signal_ends_it_and_says_what_was_kept(coordinator: subprocess.Popen[str]) -> None:
    coordinator.send_signal(signal.SIGTERM)
    _, words = coordinator.communicate()
    assert "SIGTERM: finishing what is in flight" in words
    assert "kept: " in words
    assert "Traceback" not in words
    assert coordinator.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("finished", "signalled", "code"), [(True, 15, 0), (True, 0, 0), (False, 15, 143), (False, 0, 1)]
)
def test_a_signal_behind_the_end_makes_no_failure_of_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, *, finished: bool, signalled: int, code: int
) -> None:
    """Who restarts what failed would begin the next run."""

    async def run(server: Server) -> bool:
        server.signalled = signalled
        return finished

    monkeypatch.setattr(Server, "run", run)
    config = RunConfig.load(project / "run.toml")
    task, out = project / "task.py", project / "runs"
    assert serve([config], task=task, out=out, address="127.0.0.1:0", insecure=True) == code


def test_with_json_each_side_prints_one_object(project: Path, address: str) -> None:
    keys = ("run.rounds=2", "clients.expect=1", "pruning.density=1.0")
    words = ["run.toml", "--address", address, *(word for key in keys for word in ("--set", key)), "--json"]
    joining = ["--server", address, "--task", "task.py", "--name", "alice", "--patience-s", "100"]
    with subprocess.Popen(
        command("server", *words),
        cwd=project,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        client = ended("client", *joining, "--json", folder=project)
        report, told = server.communicate()
    (run,) = json.loads(report)["runs"]
    assert (run["outcome"], len(run["rounds"])) == ("finished", 2)
    assert "round   2/2" in told
    alice = json.loads(client.stdout)
    assert (alice["client"], alice["coordinator"]) == ("alice", address)
    assert len(alice["runs"]) == 1


def test_an_interrupted_client_says_what_it_keeps(project: Path, address: str) -> None:
    words = command("client", "--server", address, "--task", "task.py", "--state", "mine")
    with subprocess.Popen(words, cwd=project, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as client:
        assert client.stderr is not None
        client.stderr.readline()
        client.send_signal(signal.SIGINT)
        rest = client.stderr.read()
    assert "kept: who this client is and what it has sealed, in mine" in rest
    assert "Traceback" not in rest
    assert client.returncode == 130


@pytest.mark.parametrize("program", ["server", "client"])
def test_a_task_file_that_is_wrong(project: Path, address: str, program: str) -> None:
    (project / "task.py").write_text("def model():\n    return 1 / 0\n")
    words = ["run.toml", "--address", address] if program == "server" else ["--server", address, "--task", "task.py"]
    done = ended(program, *words, folder=project)
    assert done.returncode == 4
    assert done.stderr == "fedprune: task.py: task file has no `train_data`. Add `def train_data(shard)`\n"


def test_a_key_that_is_wrong(project: Path, address: str) -> None:
    file = project / "run.toml"
    file.write_text(file.read_text().replace("density", "densty"))
    done = ended("server", "run.toml", "--address", address, folder=project)
    assert done.returncode == 2
    line = 1 + next(n for n, text in enumerate(file.read_text().splitlines()) if text.startswith("densty"))
    assert done.stderr == f"fedprune: run.toml line {line}: [pruning] densty is not a key; did you mean density?\n"
