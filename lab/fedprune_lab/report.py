"""`fedprune report`: prints what a run's report.json says.

Everything shown was written by the coordinator that made the run; nothing is measured or guessed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fedprune.report import FEWEST_STEADY_ROUNDS, LAST_ROUNDS, RunReport, Span
from fedprune_lab import figures
from fedprune_lab.comparison import Comparison, compare
from fedprune_lab.view import calm_table, rounds_table


def print_report(runs: tuple[RunReport, ...], console: Console) -> None:
    """Each run's rounds and sums; a dense and a pruned run also side by side."""
    for run in runs:
        console.print(rounds_table(list(run.rounds), title=f"{run.name} ({run.outcome})"))
        for note in notes(run):
            _line(console, f"  {note}")
    print_sums(runs, console)


def print_sums(runs: Sequence[RunReport], console: Console) -> None:
    """The runs side by side, and the second held against the first."""
    console.print(summary(runs))
    if len(runs) == 2:
        found = compare(*runs)
        console.print(comparison_table(found))
        explained = figures.times(1 / found.q if found.q else None)
        change = figures.points(None if found.accuracy_gap is None else -found.accuracy_gap)
        _line(console, f"  {figures.percent(found.q)} of all weights are left (q), which explains {explained}")
        _line(console, f"  accuracy changed by {change} points (means of the last {LAST_ROUNDS} evaluations)")


def notes(run: RunReport) -> list[str]:
    """What a reader must know about the figures."""
    found = list(run.warnings)
    if run.accuracy_source:
        found.append(f"accuracy is measured on {run.accuracy_source}")
    if run.socket_unavailable:
        found.append(f"no socket bytes: {run.socket_unavailable}")
    if run.flops_unavailable:
        found.append(f"operations are not counted: {run.flops_unavailable}")
    if run.steady_state is None:
        found.append(f"no steady state: fewer than {FEWEST_STEADY_ROUNDS} rounds after the last mask change")
    return found


def summary(runs: Sequence[RunReport]) -> Table:
    """Runs side by side, a column each: accuracy, density, bytes, ratios, time."""
    table = calm_table("summary")
    table.add_column("", no_wrap=True)
    for run in runs:
        table.add_column(run.name, justify="right", no_wrap=True)
    for label, cell in ROWS:
        table.add_row(label, *(cell(run) for run in runs))
    return table


def comparison_table(found: Comparison) -> Table:
    """How many times fewer bytes, against both dense baselines, over the whole run and in the steady state."""
    title = f"{found.pruned} against {found.dense}: how many times fewer {found.measured_on} bytes"
    table = calm_table(title)
    for heading in ("", "up", "down", "both"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for label, saving in (("whole run", found.whole_run), ("steady state", found.steady_state)):
        if saving is None:
            continue
        for baseline, ratio in (("raw dense", saving.raw), ("dense, same codec", saving.same_codec)):
            if ratio is not None:
                cells = (figures.times(r) for r in (ratio.up, ratio.down, ratio.both))
                table.add_row(f"{label}, {baseline}", *cells)
    return table


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _steady(run: RunReport) -> str:
    steady = run.steady_state
    return figures.UNKNOWN if steady is None else f"{steady.rounds} rounds from {steady.first_round}"


def _ratio(span: Span | None) -> str:
    return figures.UNKNOWN if span is None else figures.ratio_up_down(span.socket_ratio or span.payload_ratio)


ROWS = (
    ("accuracy, last", lambda run: figures.percent(run.final.accuracy)),
    (f"accuracy, mean of last {LAST_ROUNDS}", lambda run: figures.percent(run.final.accuracy_last_rounds)),
    ("density of prunable weights", lambda run: figures.percent(run.final.density)),
    ("density of all weights (q)", lambda run: figures.percent(run.q)),
    ("operations for an example", lambda run: figures.count(run.flops and run.flops.left)),
    ("operations of the dense model", lambda run: figures.count(run.flops and run.flops.dense)),
    ("rounds", lambda run: str(run.totals.rounds)),
    ("payload up", lambda run: figures.size(run.totals.payload.up)),
    ("payload down", lambda run: figures.size(run.totals.payload.down)),
    ("payload after the last round", lambda run: figures.size(run.after_last_round.both)),
    ("socket up", lambda run: figures.size(run.totals.socket and run.totals.socket.up)),
    ("socket down", lambda run: figures.size(run.totals.socket and run.totals.socket.down)),
    ("raw dense equivalent up", lambda run: figures.size(run.totals.dense_equivalent.up)),
    ("raw dense equivalent down", lambda run: figures.size(run.totals.dense_equivalent.down)),
    ("fewer than raw, whole run", lambda run: _ratio(run.totals)),
    ("fewer than raw, steady state", lambda run: _ratio(run.steady_state)),
    ("steady state", _steady),
    ("time in rounds", lambda run: figures.seconds(run.totals.seconds)),
)
