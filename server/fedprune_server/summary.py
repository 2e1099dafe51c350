"""What a run came to, as the few lines a coordinator prints when it is over: the byte table.

Plain text without the lab, because an image of the coordinator has to print it as well. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedprune.report import RunReport
from fedprune.traffic import Ratio, Traffic


def byte_table(report: RunReport) -> str:
    """Accuracy, density, and what travelled, in bytes summed over clients, beside what dense float32 would weigh."""
    return "\n".join([_headline(report), *_rows(report)])


def _headline(report: RunReport) -> str:
    accuracy = "" if report.final.accuracy is None else f", accuracy {report.final.accuracy:.2%}"
    rounds = len(report.rounds)
    return f"run {report.name} {report.outcome}: {rounds} rounds{accuracy}, density {report.final.density:.1%}"


def _rows(report: RunReport) -> Iterator[str]:
    totals, steady = report.totals, report.steady_state
    yield _row("bytes, whole run", "up", "down")
    yield _bytes("payload", totals.payload)
    if totals.socket is not None:
        yield _bytes("socket", totals.socket)
    yield _bytes("raw dense", totals.dense_equivalent)
    yield _times("fewer than raw dense", totals.socket_ratio or totals.payload_ratio)
    if steady is not None:
        yield _times(f"fewer, from round {steady.first_round} on", steady.socket_ratio or steady.payload_ratio)


def _bytes(label: str, traffic: Traffic) -> str:
    return _row(label, f"{traffic.up:,}", f"{traffic.down:,}")


def _times(label: str, ratio: Ratio) -> str:
    return _row(label, *(f"{r:.1f}x" if r is not None else "-" for r in (ratio.up, ratio.down)))


def _row(label: str, up: str, down: str) -> str:
    return f"  {label:<28}{up:>16}{down:>16}"
