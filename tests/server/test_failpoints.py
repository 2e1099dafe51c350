"""The table of failpoints is the one in the code and the one in the docs: nothing in either that the other lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedprune.errors import ConfigError
from fedprune_server.failpoints import CHANGES, POINTS, armed

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path.read_text() for path in (ROOT / "server" / "fedprune_server").rglob("*.py")]


def found(pattern: str) -> set[str]:
    """What the pattern's group matches anywhere in the server."""
    return {name for text in SOURCES for name in re.findall(pattern, text)}


def test_every_transaction_has_its_points() -> None:
    assert found(r'\.transaction\(\s*"([a-z-]+)"') == set(CHANGES)


def test_every_other_point_is_passed_somewhere() -> None:
    commits = {f"{change}-{moment}-commit" for change in CHANGES for moment in ("before", "after")}
    assert found(r'\b_?at\("([a-z-]+)"\)') | found(r'\bfailpoint\("([a-z-]+)"\)') == set(POINTS) - commits


def test_the_docs_list_exactly_them() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (?:yes)? *\|$", page, re.MULTILINE))
    assert listed == {name: point.meaning for name, point in POINTS.items()}
    errors = set(re.findall(r"^\| `([a-z-]+)` \| .+? \| yes \|$", page, re.MULTILINE))
    assert errors == {name for name, point in POINTS.items() if point.fails}


def test_there_are_enough_and_a_misspelt_one_is_refused() -> None:
    assert len(POINTS) >= 25
    assert armed("commit-version-before-commit=kill@3").armed == ("commit-version-before-commit=kill@3",)
    with pytest.raises(ConfigError, match="no such failpoint"):
        armed("commit-version-before-comit=kill")
