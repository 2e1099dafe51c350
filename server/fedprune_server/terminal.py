"""What `fedprune server` prints: a line a round, and on a terminal below them how far each client is.

With `--json` the lines go to stderr and stdout gets one object at the end: what report.json holds, of all runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fedprune.commands import print_json
from fedprune.config import RunConfig
from fedprune.progress import Progress, duration, run_left_s
from fedprune.report import RoundReport, RunReport, document
from fedprune_server.summary import byte_table


@dataclass(slots=True, kw_only=True)
class Terminal:
    """Told of what happens; `as_json` keeps stdout for the object. `live` is there where somebody can watch."""

    as_json: bool = False
    live: Live | None = None
    _reports: list[RunReport] = field(default_factory=list)
    _rows: list[RoundReport] = field(default_factory=list)
    _planned: int = 0
    _progress: Progress = field(default_factory=Progress)

    def say(self, text: str) -> None:
        """What is being waited for."""
        print(f"fedprune: {text}", file=sys.stderr, flush=True)

    def round(self, config: RunConfig, row: RoundReport) -> None:
        """A line a round."""
        if row.round == 1 or self._planned != config.run.rounds:
            self._rows.clear()
        self._rows.append(row)
        self._planned = config.run.rounds
        self._print(round_line(config, row))

    def finished(self, report: RunReport) -> None:
        """The bytes of a run that is over."""
        self._reports.append(report)
        self._rows.clear()
        self._print(byte_table(report))

    def show(self, standing: dict[str, Any]) -> None:
        """How far each client is."""
        if self.live is not None:
            left = run_left_s([r.seconds for r in self._rows], planned=self._planned, done=standing["round"] - 1)
            words = [standing["waiting_for"] or standing["phase"]]
            words += [f"about {duration(left)} left"] if left is not None else []
            self.live.update(Group(self._progress.table(standing), Text(", ".join(words), style="dim")), refresh=True)

    @property
    def watched(self) -> bool:
        """Whether somebody can watch."""
        return self._console.is_terminal

    @contextmanager
    def open(self) -> Iterator[None]:
        """Until the coordinator ends; what was shown live is wiped, lines stay."""
        if not self.watched:
            yield
            return
        with Live(console=self._console, transient=True, auto_refresh=False) as self.live:
            try:
                yield
            finally:
                self.live = None

    @property
    def _console(self) -> Console:
        return Console(file=sys.stderr if self.as_json else sys.stdout)

    def close(self) -> None:
        """With `as_json`, the object."""
        if self.as_json:
            print_json(document(self._reports))

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr if self.as_json else sys.stdout, flush=True)


def round_line(config: RunConfig, row: RoundReport) -> str:
    """A round in one line."""
    accuracy = "" if row.accuracy is None else f"accuracy {row.accuracy:7.2%}  "
    moved = row.socket or row.payload
    return (
        f"round {row.round:3d}/{config.run.rounds}  {accuracy}density {row.density:6.1%}  "
        f"up {moved.up:>12,} B  down {moved.down:>12,} B  {row.seconds:6.2f} s"
    )
