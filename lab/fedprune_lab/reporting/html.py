"""A report as one HTML file that needs nothing else: no script, no font, no other host; light and dark, screen and paper."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import accumulate
from pathlib import Path

from fedprune import __version__
from fedprune.report import RoundReport, RunReport
from fedprune_lab import figures
from fedprune_lab.lines import moved
from fedprune_lab.report import notes
from fedprune_lab.reporting.charts import Line, heat_map, line_chart
from fedprune_lab.reporting.tables import Table, tables
from fedprune_lab.reporting.text import environments, run_file, title

STYLE = Path(__file__).with_name("report.css")

# The picture (PNG) of each layer's mask, by the run's name and the layer's.
Pictures = Mapping[str, Mapping[str, bytes]]


def document(runs: Sequence[RunReport], pictures: Pictures) -> str:
    """The whole page."""
    parts = [
        f"<header><h1>{escape(title(runs))}</h1><p>{escape(_subtitle(runs))}</p></header>",
        _tiles(runs[-1]),
        f'<section class="charts">{"".join(charts(runs))}</section>',
        *(_masks(run.name, pictures[run.name]) for run in runs if pictures.get(run.name)),
        *(table(found) for found in tables(runs)),
    ]
    for run in runs:
        parts += [_notes(run), _fold(f"{run.name}: run file", f"<pre>{escape(run_file(run))}</pre>")]
    parts += [table(found) for found in environments(runs)]
    return page(title(runs), parts)


def page(name: str, parts: Sequence[str]) -> str:
    """These sections as a file that needs no other."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(name)}</title>'
    style = STYLE.read_text(encoding="utf-8")
    footer = f"<footer>made by fedprune {__version__}</footer>"
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head><body>{"".join(parts)}{footer}</body></html>\n'


def charts(runs: Sequence[RunReport]) -> list[str]:
    """The plots; those that would show nothing are left out."""
    numbers = range(len(runs))
    found = [
        _over_rounds(runs, "accuracy", lambda row: row.accuracy, lambda v: f"{100 * v:.3g} %"),
        _over_rounds(runs, "loss", lambda row: row.metrics.get("loss"), lambda v: f"{v:.3g}"),
        _bytes(runs),
        line_chart(
            "accuracy against bytes moved",
            [Line(name=runs[n].name, points=_against_bytes(runs[n]), colour=n) for n in numbers],
            x_name="bytes so far",
            x_wording=_size,
            y_wording=lambda v: f"{100 * v:.3g} %",
        ),
        _over_rounds(runs, "density of the prunable weights", lambda row: row.density, lambda v: f"{100 * v:.3g} %"),
        _over_rounds(runs, "seconds of each round", lambda row: row.seconds, lambda v: f"{v:.3g} s"),
    ]
    found += [
        heat_map(f"{run.name}: density of each layer", strips) for run in runs if (strips := layer_densities(run))
    ]
    return [chart for chart in found if chart]


def layer_densities(run: RunReport) -> list[tuple[str, list[float | None]]]:
    """The density of each layer after each round; a layer is whole until a round says otherwise."""
    names = list(dict.fromkeys(layer.name for row in run.rounds for layer in row.layers))
    shares = dict.fromkeys(names, 1.0)
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    for row in run.rounds:
        shares |= {layer.name: layer.alive / layer.size if layer.size else 1.0 for layer in row.layers}
        for name in names:
            columns[name].append(shares[name])
    return list(columns.items())


def _over_rounds(
    runs: Sequence[RunReport], title: str, value: Callable[[RoundReport], float | None], wording: Callable[[float], str]
) -> str:
    lines = [
        Line(name=run.name, points=[(row.round, value(row)) for row in run.rounds], colour=n)
        for n, run in enumerate(runs)
    ]
    return line_chart(title, lines, x_name="round", x_wording=lambda v: f"{v:g}", y_wording=wording)


def _bytes(runs: Sequence[RunReport]) -> str:
    lines = [
        Line(name=f"{run.name}, both directions", points=[(row.round, moved(row).both) for row in run.rounds], colour=n)
        for n, run in enumerate(runs)
    ]
    longest = max(runs, key=lambda run: len(run.rounds))
    dense = [(row.round, row.dense_equivalent.both) for row in longest.rounds]
    lines.append(Line(name="raw dense", points=dense, colour=len(runs), soft=True))
    return line_chart(
        "bytes of each round",
        lines,
        x_name="round",
        x_wording=lambda v: f"{v:g}",
        y_wording=_size,
        log=True,
    )


def _size(value: float) -> str:
    """A round number of bytes, without the digits that say so."""
    return re.sub(r"\.0+ ", " ", figures.size(round(value)))


def _against_bytes(run: RunReport) -> list[tuple[float, float | None]]:
    sums = accumulate(moved(row).both for row in run.rounds)
    return [(total, row.accuracy) for total, row in zip(sums, run.rounds, strict=True)]


def _subtitle(runs: Sequence[RunReport]) -> str:
    last = runs[-1]
    return f"{last.parameters:,} weights, {last.prunable:,} of them prunable; {last.clients} clients; {len(last.rounds)} rounds"


def _tiles(run: RunReport) -> str:
    fewer = run.totals.socket_ratio or run.totals.payload_ratio
    steady = run.steady_state and (run.steady_state.socket_ratio or run.steady_state.payload_ratio)
    moved_in_all = run.totals.socket or run.totals.payload
    tiles = (
        ("accuracy", figures.percent(run.final.accuracy), run.accuracy_source or "not measured"),
        ("weights left", figures.percent(run.final.density), f"{figures.percent(run.q)} of all weights"),
        *_operations(run),
        (
            "moved",
            figures.size(moved_in_all.both),
            f"instead of {figures.size(run.totals.dense_equivalent.both)} raw dense",
        ),
        (
            "fewer bytes",
            figures.times(fewer.both),
            f"{figures.times(steady.both)} in the steady state" if steady else "over the run",
        ),
        ("time in rounds", figures.seconds(run.totals.seconds), f"{len(run.rounds)} rounds"),
    )
    cells = (f"<div><h2>{escape(a)}</h2><b>{escape(b)}</b><p>{escape(c)}</p></div>" for a, b, c in tiles)
    return f'<section class="tiles" aria-label="{escape(run.name)}">{"".join(cells)}</section>'


def _operations(run: RunReport) -> list[tuple[str, str, str]]:
    """The tile of what an example costs, where that was counted."""
    if run.flops is None:
        return []
    share = run.flops.left / run.flops.dense if run.flops.dense else None
    left, dense = figures.count(run.flops.left), figures.count(run.flops.dense)
    return [("operations", left, f"for an example, {figures.percent(share)} of {dense} dense")]


def _masks(run: str, layers: Mapping[str, bytes]) -> str:
    pictures = (
        f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, png in layers.items()
    )
    return (
        f'<section><h2>{escape(run)}: weights that are left</h2><div class="masks">{"".join(pictures)}</div></section>'
    )


def _notes(run: RunReport) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes(run))
    return f"<section><h2>{escape(run.name)}: notes</h2><ul>{items}</ul></section>" if items else ""


def table(content: Table) -> str:
    """A table as a section; a long one is folded away."""

    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in content.rows)
    inner = f'<div class="scroll"><table><thead>{line(content.head, "th")}</thead><tbody>{body}</tbody></table></div>'
    return (
        _fold(content.title, inner) if content.long else f"<section><h2>{escape(content.title)}</h2>{inner}</section>"
    )


def _fold(name: str, inner: str) -> str:
    return f"<section><details><summary>{escape(name)}</summary>{inner}</details></section>"
