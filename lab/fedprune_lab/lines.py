"""One round in words: the same in the lines of a log, the live table and the report. No library is needed for it."""

from __future__ import annotations

from fedprune.report import RoundReport
from fedprune.traffic import Ratio, Traffic
from fedprune_lab import figures


def round_line(row: RoundReport, rounds: int) -> str:
    """One round as a line of text."""
    accuracy, density, up, down, dense, fewer, time = cells(row, moved(row))[1:]
    return (
        f"round {row.round:>3}/{rounds}  accuracy {accuracy:>7}  density {density:>7}  "
        f"up {up:>8}  down {down:>8}  raw dense {dense:>8}  {fewer:>5} fewer  {time}"
    )


def moved(row: RoundReport) -> Traffic:
    """What crossed: on the socket where the kernel tells, else the payload."""
    return row.payload if row.socket is None else row.socket


def cells(row: RoundReport, actual: Traffic) -> tuple[str, ...]:
    """Round, accuracy, density, bytes up and down (`actual`), raw dense bytes, how many times fewer, time."""
    return (
        str(row.round),
        figures.percent(row.accuracy),
        figures.percent(row.density),
        figures.size(actual.up),
        figures.size(actual.down),
        figures.size(row.dense_equivalent.both),
        figures.times(Ratio.of(row.dense_equivalent, actual).both),
        figures.seconds(row.seconds),
    )
