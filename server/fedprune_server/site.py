"""What all runs of a coordinator process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedprune.config import RunConfig
from fedprune.report import RoundReport, RunReport
from fedprune.sockets import SocketMeter
from fedprune_server.closing import Evaluator
from fedprune_server.members import Members
from fedprune_server.workshop import Workshop


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all runs of a process share."""

    workshop: Workshop
    evaluator: Evaluator | None
    members: Members
    meter: SocketMeter
    out: Path
    durable: bool
    take_over: bool
    failpoint: Callable[[str], None]
    watch: Callable[[RunConfig, RoundReport], None]
    finished: Callable[[RunReport], None]
    say: Callable[[str], None]
