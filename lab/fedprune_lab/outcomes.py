"""What a comparison found, as a table, CSV and JSON: accuracy against measured bytes, weights, flops and time.

Every figure is a mean over seeds of what the runs' own reports and masks say; nothing is estimated.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import sqrt
from typing import Any

from fedprune.report import RunReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One strategy over its seeds. `accuracy` is the mean of the last evaluations, `spread` its standard deviation over
    seeds (None for one seed); `weights` are those left, free ones included; `bytes` up and down over the whole run and
    all clients, as `measured_on`; `flops` of one example."""

    strategy: str
    seeds: int
    accuracy: float | None
    spread: float | None
    density: float
    weights: float
    flops: float | None
    bytes_up: float
    bytes_down: float
    measured_on: str
    seconds: float


def outcome(strategy: str, reports: Sequence[RunReport], flops: Sequence[float | None]) -> Outcome:
    """The row of a strategy from the reports of its seeds, and the flops of what each ended with."""
    found = [r.final.accuracy_last_rounds for r in reports if r.final.accuracy_last_rounds is not None]
    is_counted = all(r.totals.socket is not None for r in reports)
    moved = [(r.totals.socket if is_counted else None) or r.totals.payload for r in reports]
    counted = [f for f in flops if f is not None]
    return Outcome(
        strategy=strategy,
        seeds=len(reports),
        accuracy=_mean(found) if found else None,
        spread=_deviation(found),
        density=_mean([r.final.density for r in reports]),
        weights=_mean([r.parameters * r.final.density_of_all for r in reports]),
        flops=_mean(counted) if counted else None,
        bytes_up=_mean([m.up for m in moved]),
        bytes_down=_mean([m.down for m in moved]),
        measured_on="socket" if is_counted else "payload",
        seconds=_mean([r.totals.seconds for r in reports]),
    )


def table(rows: Sequence[Outcome]) -> str:
    """Lines for a terminal."""
    width = max(len(row.strategy) for row in rows)
    head = f"{'strategy':<{width}}{'accuracy':>18}{'density':>9}{'weights':>10}{'flops':>10}{'bytes':>13}{'time':>9}"
    lines = [head]
    for row in rows:
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.2%}"
        accuracy += "" if row.spread is None else f" +- {row.spread:.2%}"
        flops = "-" if row.flops is None else f"{row.flops:,.0f}"
        total = f"{row.bytes_up + row.bytes_down:,.0f}"
        lines.append(
            f"{row.strategy:<{width}}{accuracy:>18}{row.density:>9.3f}{row.weights:>10,.0f}{flops:>10}{total:>13}"
            f"{row.seconds:>8.1f}s"
        )
    return "\n".join(lines)


def to_csv(rows: Sequence[Outcome]) -> str:
    """One line a strategy, with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Outcome)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def to_dict(rows: Sequence[Outcome], notes: Sequence[str]) -> dict[str, Any]:
    """Plain JSON values."""
    return {"schema": 1, "outcomes": [asdict(row) for row in rows], "notes": list(notes)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _deviation(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = _mean(values)
    return sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
