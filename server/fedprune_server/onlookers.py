"""Whoever watches a run from outside: the live page and the trackers. They are told, and decide nothing.

One small protocol for all of them: a run begins, a round is complete, the run is over. What they are told are the
values that `report.json` holds, so that no onlooker can show another number than the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedprune.config import RunConfig
from fedprune.report import RoundReport, RunReport
from fedprune.tensor import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run that begins, or goes on with the rounds `done` by an earlier process."""

    run_id: str
    config: RunConfig
    folder: Path
    schema: Schema
    done: Sequence[RoundReport] = ()


class Onlooker(Protocol):
    """Told of everything in order, from one thread; must not block."""

    def begin(self, run: Begun) -> None:
        """A run begins or goes on."""

    def round(self, row: RoundReport) -> None:
        """A round of the run that began last is complete, its evaluation included."""

    def end(self, report: RunReport) -> None:
        """That run is over and its files are written."""
