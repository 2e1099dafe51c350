"""Every file that the pages show does what they say: tasks train, other code runs, run files load, the rest parses."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from fedprune import manifest
from fedprune.config import RunConfig
from fedprune.tensor import Version
from fedprune_client import app as client
from fedprune_client.check import check
from fedprune_server import app as server

from . import pages

# Its last block loads what the page has trained: tests/integration/test_quickstart.py does that after the training.
AFTER_TRAINING = 'load_file("runs/first/model.safetensors")'
PYTHON = [block for block in pages.blocks("python") if AFTER_TRAINING not in block[1]]
TASKS = [block for block in PYTHON if "def train_data" in block[1]]


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


def test_there_is_something_of_each_kind() -> None:
    assert len(TASKS) >= 8
    for language in ("toml", "yaml", "json"):
        assert pages.blocks(language), language


@pytest.mark.parametrize(("page", "text"), TASKS)
def test_tasks_train_a_batch(page: str, text: str, owner: Path, tmp_path: Path) -> None:
    for package in ("datasets", "mnist1d", "PIL", "pyarrow"):
        if package in text:
            pytest.importorskip(package, reason=f"{package} is not installed")
    file = tmp_path / "task.py"
    file.write_text(text)
    assert check(file, data=owner).examples


@pytest.mark.parametrize(("page", "text"), [block for block in PYTHON if block not in TASKS])
def test_other_code_runs(page: str, text: str) -> None:
    found: dict[str, Any] = {}
    exec(text, found)  # noqa: S102 - the page's own block
    if "def model(width" in text:
        half, whole = (sum(p.numel() for p in found["model"](width).parameters()) for width in (0.5, 1.0))
        assert 0 < half < whole


@pytest.mark.parametrize(("page", "text"), pages.blocks("toml"))
def test_run_files_are_valid(page: str, text: str) -> None:
    assert RunConfig.loads(text.replace("NAME", "name"), name=page).run.rounds > 0


@pytest.mark.parametrize(("page", "text"), pages.blocks("yaml"))
def test_yaml_parses_and_its_programs_take_what_they_are_given(page: str, text: str) -> None:
    whole = pytest.importorskip("yaml", reason="PyYAML, which the site needs, is not installed").safe_load(text)
    assert whole
    for name, service in whole.get("services", {}).items():
        app = {"coordinator": server.app, "client": client.app}[name]
        verb, *words = service["command"]
        command: Any = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]  # it is a group
        assert command.make_context(verb, words).command is command


@pytest.mark.parametrize(("page", "text"), pages.blocks("json"))
def test_what_a_client_signs_is_what_is_shown(page: str, text: str) -> None:
    facts = json.loads(text)
    assert facts.pop("what") == manifest.WHAT
    shape, model, mask = facts.pop("version")
    run, assignment = facts.pop("run"), facts.pop("assignment")
    version = Version(shape=shape, model=model, mask=mask)
    assert manifest.manifest(run_id=run, assignment_id=assignment, version=version, **facts) == text.strip()
