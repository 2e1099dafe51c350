"""Shows rounds while they happen: a table that grows on a terminal, a line a round everywhere else.

A view is told what happens and decides nothing; the same calls serve both forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from fedprune.progress import Progress, duration, run_left_s
from fedprune.report import RoundReport
from fedprune_lab.lines import cells, moved, round_line

# Rows of the live table; the lines beside them are its title, its head, its frame and what is being waited for.
ROWS = 12


class View(Protocol):
    """What a demo or a run tells whoever watches."""

    def say(self, text: str) -> None:
        """What is being done or waited for now."""

    def begin(self, run: str, rounds: int) -> None:
        """A run starts."""

    def round(self, row: RoundReport) -> None:
        """A round is complete."""

    def clients(self, standing: Mapping[str, Any]) -> None:
        """How far each client is: the values of `fedprune_server.now`."""

    def close(self) -> None:
        """Nothing more follows; safe to call twice."""


def open_view(console: Console) -> View:
    """The live table where the console is a terminal, lines elsewhere."""
    return LiveView(console) if console.is_terminal else LineView(console)


class LineView:
    """One line for each thing that happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rounds = 0

    def say(self, text: str) -> None:
        self._print(text)

    def begin(self, run: str, rounds: int) -> None:
        self._rounds = rounds
        self._print(f"{run}: {rounds} rounds")

    def round(self, row: RoundReport) -> None:
        self._print(round_line(row, self._rounds))

    def clients(self, standing: Mapping[str, Any]) -> None:
        """A log has no place for what passes."""

    def close(self) -> None:
        """Lines need no end."""

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveView:
    """A table of the latest rounds, redrawn in place; a finished run's table stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title = ""
        self._status = ""
        self._rounds = 0
        self._rows: list[RoundReport] = []
        self._progress = Progress()
        self._clients: Table | None = None
        self._live: Live | None = None

    def say(self, text: str) -> None:
        self._status = text
        if self._live is None:
            self._console.print(text, highlight=False, markup=False)
        else:
            self._live.update(self._whole())

    def begin(self, run: str, rounds: int) -> None:
        self.close()
        self._title, self._rounds, self._rows, self._status = run, rounds, [], "waiting for the first round"
        self._clients = None
        self._live = Live(self._whole(), console=self._console, auto_refresh=False)
        self._live.start(refresh=True)

    def round(self, row: RoundReport) -> None:
        self._rows.append(row)
        self._status = "" if row.round == self._rounds else f"round {row.round + 1} of {self._rounds}{self._left(row)}"
        if self._live is not None:
            self._live.update(self._whole(), refresh=True)

    def clients(self, standing: Mapping[str, Any]) -> None:
        self._clients = self._progress.table(standing)
        if self._live is not None:
            self._live.update(self._whole(), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            # What passes is wiped; the rounds stay.
            self._live.update(self._table(), refresh=True)
            self._live.stop()
            self._live = None

    def _left(self, row: RoundReport) -> str:
        left = run_left_s([r.seconds for r in self._rows], planned=self._rounds, done=row.round)
        return f", about {duration(left)} left"

    def _whole(self) -> RenderableType:
        return self._table() if self._clients is None else Group(self._table(), "", self._clients)

    def _table(self) -> Table:
        table = rounds_table(self._rows[-ROWS:], title=f"{self._title}, {self._rounds} rounds")
        table.caption = self._status
        return table


def calm_table(title: str) -> Table:
    """An empty table without frames: the rounds fit into the 80 characters that a terminal has at least."""
    return Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        highlight=False,
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        min_width=len(title),
    )


def rounds_table(rows: list[RoundReport], *, title: str) -> Table:
    """Rounds as a table, bytes summed over clients; socket bytes where the kernel tells them."""
    from_kernel = all(row.socket is not None for row in rows)
    word = "socket" if from_kernel else "payload"
    table = calm_table(title)
    for heading in ("round", "accuracy", "density", f"{word} up", f"{word} down", "raw dense", "fewer", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row, moved(row) if from_kernel else row.payload))
    return table
