"""Killed at every named point, a coordinator comes back to the same run: nothing lost, nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedprune_server.store import verify

from . import crashing

CHANGES = (
    "create-run",
    "add-client",
    "freeze-shards",
    "open-round",
    "begin-upload",
    "accept",
    "freeze",
    "commit-version",
    "set-run-state",
    "collect-garbage",
)
COMMITS = {f"{change}-{moment}-commit" for change in CHANGES for moment in ("before", "after")}
FILES = {"blob-append", "blob-before-sync", "blob-before-rename", "blob-after-rename", "blob-deleted"}
NAMED = {"0": COMMITS | FILES, "100000": COMMITS | {"blob-append"}}


@pytest.fixture(scope="module", params=NAMED)
def inline_bytes(request: pytest.FixtureRequest) -> str:
    """Whether blobs are files or live in the database."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def folder(inline_bytes: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crashes")


@pytest.fixture(scope="module")
def found(folder: Path, inline_bytes: str) -> dict[str, Any]:
    command = [sys.executable, crashing.__file__, str(folder), inline_bytes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_every_named_point_was_tried(found: dict[str, Any], inline_bytes: str) -> None:
    assert {trial.split()[1] for trial in found["trials"]} == NAMED[inline_bytes]


def test_what_was_acknowledged_is_there(found: dict[str, Any]) -> None:
    for name, trial in found["trials"].items():
        assert set(trial["acknowledged"]) <= set(trial["kept"]), name


def test_every_journey_ends_the_same(found: dict[str, Any]) -> None:
    assert len(found["undisturbed"]["receipts"]) == crashing.CLIENTS * crashing.ROUNDS
    for name, trial in found["trials"].items():
        assert trial["outcome"] == found["undisturbed"], name


def test_what_is_left_holds_together(folder: Path, found: dict[str, Any]) -> None:
    for name in found["trials"]:
        assert verify(folder / name.split()[0]).problems == (), name
