"""Finds and reads the report.json that a user means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedprune.errors import LocalError
from fedprune.report import RunReport, read_document

REPORT = "report.json"


def find(run: Path) -> Path:
    """The report.json that a user means: the file, its folder, or the name of a folder under runs/."""
    candidates = (run, run / REPORT, Path("runs") / run / REPORT)
    for path in candidates:
        if path.is_file():
            return path
    raise LocalError(
        f"there is no report for {str(run)!r}",
        expected=" or ".join(str(path) for path in candidates[1:]),
        next_step="Name a finished run; `fedprune demo` makes two",
    )


def read(path: Path) -> tuple[dict[str, Any], tuple[RunReport, ...]]:
    """The file as it stands, and its runs. Raises `LocalError` with the file and the place that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"cannot read {path}: {error}", next_step="Check the path and its permissions") from error
    runs = read_document(text, name=str(path))
    whole: dict[str, Any] = json.loads(text)
    return whole, runs
