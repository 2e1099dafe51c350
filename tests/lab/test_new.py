"""A new project runs as it is made."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from rich.console import Console

from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.report import RunReport
from fedprune_client import app as client_app
from fedprune_client.check import check
from fedprune_lab import cli, new
from fedprune_lab.federation import Federation
from fedprune_lab.view import LineView
from fedprune_server import app as server_app


def test_makes_the_files_and_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deep" / "scans"
    assert cli.run(["new", str(folder)]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "compose.yaml", "run.toml", "task.py"]
    assert capsys.readouterr().out.endswith(f"next: fedprune check {folder / 'task.py'}\n")
    assert "# scans\n" in (folder / "README.md").read_text()
    assert "name: scans\n" in (folder / "compose.yaml").read_text()


def test_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("mine")
    with pytest.raises(ConfigError, match=r"already holds task\.py"):
        new.create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["task.py"]
    with pytest.raises(ConfigError, match="is in the way"):
        new.create(tmp_path / "task.py")


def test_an_empty_or_unrelated_folder_is_welcome(tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    assert len(new.create(tmp_path)) == 4


@pytest.mark.parametrize(
    ("folder", "name"),
    [("scans", "scans"), ("My Scans", "my-scans"), (".hidden", "hidden"), ("röntgen", "r-ntgen"), ("...", "run")],
)
def test_the_run_is_called_like_the_folder(tmp_path: Path, folder: str, name: str) -> None:
    assert new.run_name(tmp_path / folder) == name


def parse(app: typer.Typer, words: list[str]) -> None:
    """Raise what the command line would refuse."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    group.commands[words[0]].make_context(words[0], words[1:])


def has_compose() -> bool:
    """Whether docker's command line is here, with Compose. Without, each version of it says something else."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def test_compose_understands_its_file(tmp_path: Path) -> None:
    """The syntax by Compose itself, which needs no engine for that; the commands by the programs in the images."""
    if not has_compose():
        pytest.skip("docker's command line is not installed, or has no Compose")
    new.create(tmp_path / "scans")
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=tmp_path / "scans",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    assert whole["name"] == "scans"
    assert set(whole["services"]) == {"coordinator", "client"}
    parse(server_app.app, whole["services"]["coordinator"]["command"])
    parse(client_app.app, whole["services"]["client"]["command"])
    assert whole["services"]["client"]["depends_on"]["coordinator"]["condition"] == "service_healthy"


def test_its_page_shows_commands_that_exist(tmp_path: Path) -> None:
    new.create(tmp_path / "scans")
    page = (tmp_path / "scans" / "README.md").read_text()
    lines = re.findall(r"^\$ fedprune (.*)$", page, re.MULTILINE)
    assert [line.split()[0] for line in lines[:2]] == ["check", "server"]
    for line in lines:
        parse(cli.app, shlex.split(line))


def test_the_task_passes_its_check(tmp_path: Path) -> None:
    task = new.create(tmp_path)[0]
    report = check(task, data=None, index=0, count=3)
    assert report.as_dict()["parameters"] > 30_000


def test_the_run_learns_and_prunes(tmp_path: Path) -> None:
    task, run_file = new.create(tmp_path / "scans")[:2]
    short = ["run.rounds=14", "pruning.end=0.4", "clients.expect=2"]
    config = RunConfig.load(run_file, short)
    federation = Federation(configs=[config], task=task, clients=2, out=tmp_path / "out")
    (report,), _ = federation.run(LineView(Console(quiet=True)))
    assert isinstance(report, RunReport)
    assert report.outcome == "finished"
    assert report.final.accuracy is not None
    assert report.final.accuracy > 0.6
    assert report.final.density == pytest.approx(0.1, abs=0.01)
