"""What an installer gets: one version, typed packages, every source file, and sides that stand alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

import fedprune

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"common": "fedprune", "server": "fedprune_server", "client": "fedprune_client", "lab": "fedprune_lab"}
SKIPPED = {"__pycache__"}


def build_wheel(project: Path, out: Path) -> set[str]:
    """Build `project` and give the names of the files in its wheel."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_of(folder: str) -> set[str]:
    paths = [p for p in (ROOT / folder / ROOMS[folder]).rglob("*") if p.is_file() and not SKIPPED & set(p.parts)]
    return {p.relative_to(ROOT / folder).as_posix() for p in paths}


def copy_sides(target: Path, *folders: str) -> Path:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    for folder in folders:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns(*SKIPPED))
    return target


def test_one_version() -> None:
    assert version("fedprune") == fedprune.__version__


@pytest.mark.parametrize(("folder", "package"), ROOMS.items())
def test_packages_are_typed(folder: str, package: str) -> None:
    assert (ROOT / folder / package / "py.typed").is_file()


def test_the_wheel_holds_every_file_and_no_other(tmp_path: Path) -> None:
    made = build_wheel(copy_sides(tmp_path, *ROOMS), tmp_path / "out")
    wanted = set().union(*(files_of(folder) for folder in ROOMS))
    assert {name for name in made if ".dist-info/" not in name} == wanted


@pytest.mark.parametrize(("side", "other"), [("client", "server"), ("server", "client")])
def test_one_side_builds_without_the_other(tmp_path: Path, side: str, other: str) -> None:
    made = build_wheel(copy_sides(tmp_path, "common", side), tmp_path / "out")
    assert f"{ROOMS[side]}/app.py" in made
    assert not [name for name in made if name.startswith((ROOMS[other], "fedprune_lab"))]


def test_torch_is_pinned_where_it_is_installed() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "torch" in pins
    assert any(f"grpcio-tools=={pins['grpcio-tools']}" == entry for entry in project["dependency-groups"]["protos"])
