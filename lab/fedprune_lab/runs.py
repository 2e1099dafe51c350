"""`fedprune list` and `fedprune log`: what lies under runs/, and one run's rounds as they are written.

Read from the files a coordinator leaves behind; no coordinator is asked. The list reads them as plain JSON: the types
of a report take longer to import than a list may take to answer.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedprune.errors import LocalError
from fedprune_lab import figures

if TYPE_CHECKING:
    from fedprune.report import RoundReport

CONFIG, ROUNDS, REPORT = "config.toml", "rounds.jsonl", "report.json"
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One run as a line of the list; bytes are the sum of both directions. A run without a report is "unfinished":
    it is still going on, or was interrupted."""

    folder: str
    state: str
    rounds: int
    planned: int
    accuracy: float | None
    density: float | None
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def listed(out: Path) -> list[Listed]:
    """The runs in `out` and one folder below it, where a demo keeps its two, by name."""
    folders = {path.parent for pattern in (f"*/{CONFIG}", f"*/*/{CONFIG}") for path in out.glob(pattern)}
    return [_listed(folder) for folder in sorted(folders)]


def table(rows: list[Listed]) -> str:
    """The list as text, columns aligned."""
    head = ("run", "state", "rounds", "accuracy", "density", "bytes")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def log(run: Path, *, follow: bool) -> Iterator[str]:
    """One line for each round of a run; with `follow`, go on until its report is there.

    Raises `LocalError` when there is no such run.
    """
    from fedprune_lab.lines import round_line

    for row, planned in rows(run, follow=follow):
        yield round_line(row, planned)


def rows(run: Path, *, follow: bool) -> Iterator[tuple[RoundReport, int]]:
    """The same as values, each with the number of rounds that the run is to have."""
    from fedprune.report import RoundReport

    folder = next((f for f in (run, Path("runs") / run) if (f / CONFIG).is_file()), None)
    if folder is None:
        raise LocalError("there is no such run", seen=run, next_step="`fedprune list` shows the runs")
    planned = _planned(folder)
    shown = 0
    while True:
        over = (folder / REPORT).is_file()
        found = _lines(folder)
        for line in found[shown:]:
            yield RoundReport.from_json(line), planned
        shown = len(found)
        if over or not follow:
            return
        time.sleep(POLL_S)


def _listed(folder: Path) -> Listed:
    rows = [json.loads(line) for line in _lines(folder)]
    scored = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    moved = [row["socket"] or row["payload"] for row in rows]
    return Listed(
        folder=str(folder),
        state=_outcome(folder / REPORT) if (folder / REPORT).is_file() else "unfinished",
        rounds=len(rows),
        planned=_planned(folder),
        accuracy=scored[-1] if scored else None,
        density=rows[-1]["density"] if rows else None,
        bytes=sum(traffic["up"] + traffic["down"] for traffic in moved),
    )


def _cells(row: Listed) -> tuple[str, ...]:
    rounds = f"{row.rounds}/{row.planned}"
    accuracy, density = figures.percent(row.accuracy), figures.percent(row.density)
    return row.folder, row.state, rounds, accuracy, density, figures.size(row.bytes)


def _planned(folder: Path) -> int:
    """The rounds a run was to have; 0 where its file does not say. A run of another version is listed all the same."""
    stored = tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return int(stored.get("run", {}).get("rounds", 0))


def _outcome(report: Path) -> str:
    return str(json.loads(report.read_text(encoding="utf-8"))["runs"][0]["outcome"])


def _lines(folder: Path) -> list[str]:
    """The complete lines of rounds.jsonl; a last line that is still being written is left for the next look."""
    file = folder / ROUNDS
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    complete = text[: text.rfind("\n") + 1]
    return complete.splitlines()
