"""The newcomer's task is as short as is said, and reading and typing stay below the ten minutes that are promised."""

from __future__ import annotations

import re
from pathlib import Path

from fedprune_client.check import check

ROOT = Path(__file__).resolve().parents[2]
TASK = ROOT / "bench" / "tasks" / "waves.py"


def test_the_task_is_fifteen_lines_and_works() -> None:
    assert len([line for line in TASK.read_text().splitlines() if line.strip()]) == 15
    assert check(TASK, index=1, count=3).metrics.keys() >= {"loss", "accuracy"}


def test_what_is_published_is_what_the_pages_are_now() -> None:
    table = (ROOT / "bench" / "README.md").read_text().partition("## Seen by a newcomer")[2]
    for page in ("docs/quickstart.md", "lab/fedprune_lab/template/README.md"):
        words = len((ROOT / page).read_text().split())
        assert f"| {words} |" in table, f"{page} has {words} words now; run: python bench/newcomer.py"
    assert f"| {len(TASK.read_text())} |" in table
    (total,) = re.findall(r"\*\*all of it\*\*.*\*\*([\d.]+)\*\* \|$", table, re.MULTILINE)
    assert float(total) < 10
