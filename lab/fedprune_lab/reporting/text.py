"""A report as Markdown, for a pull request or a wiki, and its rounds as CSV, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import tomli_w

from fedprune.report import RunReport
from fedprune_lab.report import notes
from fedprune_lab.reporting.tables import Table, tables

COLUMNS = (
    "run",
    "round",
    "accuracy",
    "loss",
    "density",
    "density_of_all",
    "payload_up",
    "payload_down",
    "socket_up",
    "socket_down",
    "dense_equivalent_up",
    "dense_equivalent_down",
    "clients_asked",
    "clients_counted",
    "seconds",
    "work_seconds",
    "mask_version",
    "mask_changed",
)


def markdown(runs: Sequence[RunReport]) -> str:
    """Tables, notes, run files and environments."""
    parts = [f"# {title(runs)}", *(_table(table) for table in tables(runs))]
    for run in runs:
        parts.append(f"## {run.name}: notes\n\n" + "\n".join(f"- {note}" for note in notes(run)))
        parts.append(f"## {run.name}: run file\n\n```toml\n{run_file(run)}```")
    parts += [_table(found) for found in environments(runs)]
    return "\n\n".join(parts) + "\n"


def rounds_csv(runs: Sequence[RunReport]) -> str:
    """One line for each round of each run; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        for row in run.rounds:
            traffic = (row.payload, row.socket, row.dense_equivalent)
            counted = [count for t in traffic for count in ((t.up, t.down) if t else (None, None))]
            measured = (row.accuracy, row.metrics.get("loss"), row.density, row.density_of_all)
            clients = (row.clients_asked, row.clients_counted, row.seconds, row.work_seconds)
            writer.writerow(
                [run.name, row.round, *measured, *counted, *clients, row.mask_version, int(row.mask_changed)]
            )
    return text.getvalue()


def title(runs: Sequence[RunReport]) -> str:
    """The runs in one line."""
    return ", ".join(f"{run.name} ({run.outcome})" for run in runs)


def run_file(run: RunReport) -> str:
    """The run file, every default written out."""
    return tomli_w.dumps(_without_nothing(run.config))


def environments(runs: Sequence[RunReport]) -> list[Table]:
    """What the figures were seen on: each machine once, with its runs."""
    seen: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        seen.setdefault(tuple(run.environment.items()), []).append(run.name)
    return [Table(title=f"{', '.join(names)}: environment", head=("", ""), rows=rows) for rows, names in seen.items()]


def _without_nothing(config: dict[str, object]) -> dict[str, object]:
    """TOML has no null."""
    found = {}
    for key, value in config.items():
        if value is not None:
            found[key] = _without_nothing(value) if isinstance(value, dict) else value
    return found


def _table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "| --- |" + " ---: |" * (len(table.head) - 1)
    return "\n".join([f"## {table.title}\n", line(table.head), rule, *(line(row) for row in table.rows)])
