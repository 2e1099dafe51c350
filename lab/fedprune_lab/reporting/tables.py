"""What a report says in tables: headings and rows of words, which HTML and Markdown then set each in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedprune.report import RoundReport, RunReport
from fedprune_lab import figures
from fedprune_lab.comparison import compare
from fedprune_lab.lines import moved
from fedprune_lab.report import ROWS

BESIDE = "dense, same codec: not in this report; name the dense run first, `fedprune report DENSE RUN`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as words; the first column names the row. `long` ones are folded away where that can be done."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    long: bool = False


def tables(runs: Sequence[RunReport]) -> list[Table]:
    """All tables of a report, those for all runs first; empty ones are left out."""
    found = [sums(runs), *comparisons(runs)]
    for run in runs:
        found += [ledger(run), layers(run), holders(run), decisions(run), trials(run), rounds(run)]
    return [table for table in found if table.rows]


def sums(runs: Sequence[RunReport]) -> Table:
    """The runs side by side."""
    rows = tuple((label, *(cell(run) for run in runs)) for label, cell in ROWS)
    return Table(title="Side by side", head=("", *(run.name for run in runs)), rows=rows)


def comparisons(runs: Sequence[RunReport]) -> list[Table]:
    """Each run held against its controls: raw dense always, and the first run's own bytes where that one is dense."""
    if len(runs) < 2 or runs[0].final.density < 1.0:
        return [_against_raw(run) for run in runs if run.rounds]
    return [_comparison(runs[0], run) for run in runs[1:]]


def _against_raw(run: RunReport) -> Table:
    """The control that needs no second run; and how to get the other."""
    rows = []
    for label, span in (("whole run", run.totals), ("steady state", run.steady_state)):
        if span is not None:
            ratio = span.socket_ratio or span.payload_ratio
            rows.append((f"{label}, raw dense", *(figures.times(r) for r in (ratio.up, ratio.down, ratio.both))))
    rows.append((BESIDE, figures.UNKNOWN, figures.UNKNOWN, figures.UNKNOWN))
    measured_on = "socket" if run.totals.socket_ratio else "payload"
    title = f"{run.name} against its controls: how many times fewer {measured_on} bytes"
    return Table(title=title, head=("", "up", "down", "both"), rows=tuple(rows))


def _comparison(dense: RunReport, pruned: RunReport) -> Table:
    found = compare(dense, pruned)
    rows = []
    for label, saving in (("whole run", found.whole_run), ("steady state", found.steady_state)):
        if saving is not None:
            for baseline, ratio in (("raw dense", saving.raw), ("dense, same codec", saving.same_codec)):
                if ratio is not None:
                    cells = (figures.times(r) for r in (ratio.up, ratio.down, ratio.both))
                    rows.append((f"{label}, {baseline}", *cells))
    change = figures.points(None if found.accuracy_gap is None else -found.accuracy_gap)
    rows.append(("accuracy, points", "", "", change))
    title = f"{found.pruned} against its control {found.dense}: how many times fewer {found.measured_on} bytes"
    return Table(title=title, head=("", "up", "down", "both"), rows=tuple(rows))


def ledger(run: RunReport) -> Table:
    """Where the bytes went."""
    kinds = sorted(run.totals.ledger.items(), key=lambda item: -item[1].both)
    rows = tuple((kind, figures.size(t.up), figures.size(t.down), figures.size(t.both)) for kind, t in kinds)
    return Table(title=f"{run.name}: bytes by what they were for", head=("kind", "up", "down", "both"), rows=rows)


def layers(run: RunReport) -> Table:
    """Each prunable tensor after the last change of the mask."""
    change = next((row for row in reversed(run.rounds) if row.layers), None)
    rows = tuple(
        (
            layer.name,
            f"{layer.size:,}",
            f"{layer.alive:,}",
            figures.percent(layer.alive / layer.size if layer.size else None),
            figures.count(run.flops.of_layer(layer) if run.flops else None),
            layer.score or figures.UNKNOWN,
            f"{layer.floor_trimmed:,}",
        )
        for layer in (change.layers if change else ())
    )
    head = ("layer", "weights", "alive", "density", "operations", "ranked by", "held by a floor")
    return Table(title=f"{run.name}: layers", head=head, rows=rows)


def holders(run: RunReport) -> Table:
    """What each client held at the end, where clients hold a part of the model each."""
    rows = tuple((client, figures.percent(density)) for client, density in run.client_densities.items())
    return Table(title=f"{run.name}: what each client holds", head=("client", "density"), rows=rows)


def decisions(run: RunReport) -> Table:
    """Each change of the mask, and what it cost."""
    rows, before = [], 1.0
    for row in run.rounds:
        if row.mask_changed:
            cut = sum(
                max(0, (layer.size if layer.before is None else layer.before) - layer.alive) for layer in row.layers
            )
            grown = sum(layer.grown for layer in row.layers)
            density = f"{figures.percent(before)} to {figures.percent(row.density)}"
            rows.append((str(row.round), density, f"{cut:,}", f"{grown:,}", figures.percent(row.accuracy)))
        before = row.density
    head = ("after round", "density", "cut", "regrown", "accuracy")
    return Table(title=f"{run.name}: pruning decisions", head=head, rows=tuple(rows))


def trials(run: RunReport) -> Table:
    """Steps on approval: what was tried, what it cost, and what was decided."""
    rows = tuple(
        (
            str(row.round),
            f"{figures.percent(trial.density_before)} to {figures.percent(trial.density_tried)}",
            trial.decision,
            figures.points(trial.drop),
            f"{figures.points(trial.low)} to {figures.points(trial.high)}",
            str(trial.pairs),
        )
        for row in run.rounds
        if (trial := row.trial) is not None
    )
    head = ("decided after round", "density", "decision", "drop in points", "interval", "clients")
    return Table(title=f"{run.name}: steps on approval", head=head, rows=rows)


def rounds(run: RunReport) -> Table:
    """Round by round."""
    head = ("round", "accuracy", "loss", "density", "up", "down", "raw dense", "clients", "time")
    rows = tuple(_round(row) for row in run.rounds)
    return Table(title=f"{run.name}: rounds", head=head, rows=rows, long=True)


def _round(row: RoundReport) -> tuple[str, ...]:
    actual, loss = moved(row), row.metrics.get("loss")
    return (
        str(row.round),
        figures.percent(row.accuracy),
        figures.UNKNOWN if loss is None else f"{loss:.4g}",
        figures.percent(row.density),
        figures.size(actual.up),
        figures.size(actual.down),
        figures.size(row.dense_equivalent.both),
        f"{row.clients_counted} of {row.clients_asked}",
        figures.seconds(row.seconds),
    )
