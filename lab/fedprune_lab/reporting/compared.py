"""A comparison as one HTML file: accuracy against bytes, weights, operations and time, the strategies beside their
controls. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from fedprune_lab import figures
from fedprune_lab.outcomes import Outcome
from fedprune_lab.reporting.charts import Line, line_chart
from fedprune_lab.reporting.html import page, table
from fedprune_lab.reporting.tables import Table
from fedprune_lab.strategies import is_control

Measure = Callable[[Outcome], float | None]
Wording = Callable[[float], str]


def document(rows: Sequence[Outcome], notes: Sequence[str], *, name: str) -> str:
    """The whole page."""
    against: tuple[tuple[str, Measure, Wording], ...] = (
        ("bytes moved", lambda row: row.bytes_up + row.bytes_down, lambda v: figures.size(round(v))),
        ("weights left", lambda row: row.weights, _count),
        ("operations for an example", lambda row: row.flops, _count),
        ("time in rounds", lambda row: row.seconds, figures.seconds),
    )
    plots = "".join(_plot(rows, *one) for one in against)
    told = "".join(f"<li>{escape(note)}</li>" for note in notes)
    parts = [
        f"<header><h1>{escape(name)}</h1><p>{escape(_subtitle(rows))}</p></header>",
        f'<section class="charts">{plots}</section>',
        table(outcomes(rows)),
        f"<section><h2>notes</h2><ul>{told}</ul></section>" if told else "",
    ]
    return page(name, parts)


def outcomes(rows: Sequence[Outcome]) -> Table:
    """One line a strategy, the controls named as such."""
    head = ("strategy", "", "accuracy", "density", "weights", "operations", "up", "down", "time")
    return Table(title="Strategies and controls", head=head, rows=tuple(_row(row) for row in rows))


def _row(row: Outcome) -> tuple[str, ...]:
    spread = "" if row.spread is None else f" ± {100 * row.spread:.1f}"
    return (
        row.strategy,
        "control" if is_control(row.strategy) else "",
        figures.percent(row.accuracy) + spread,
        figures.percent(row.density),
        _count(row.weights),
        figures.UNKNOWN if row.flops is None else _count(row.flops),
        figures.size(round(row.bytes_up)),
        figures.size(round(row.bytes_down)),
        figures.seconds(row.seconds),
    )


def _plot(rows: Sequence[Outcome], what: str, measure: Measure, wording: Wording) -> str:
    """Strategies are points; those that were not measured are left out."""
    lines = [
        Line(name=row.strategy, points=[(found, row.accuracy)], colour=number)
        for number, row in enumerate(rows)
        if (found := measure(row)) is not None
    ]
    title = f"accuracy against {what}"
    return line_chart(title, lines, x_name=what, x_wording=wording, y_wording=lambda v: f"{100 * v:.3g} %")


def _subtitle(rows: Sequence[Outcome]) -> str:
    seeds = rows[0].seeds
    return f"means over {seeds} seeds" if seeds > 1 else "one seed"


def _count(value: float) -> str:
    return f"{round(value):,}"
