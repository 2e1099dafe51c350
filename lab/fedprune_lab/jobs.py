"""What is said between a demo and the nursery that starts its programs: jobs one way, their ends the other.

Apart from both, because the nursery runs the `fedprune` command, and the command knows the demo.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

# What makes a fork worth it; the first step of an optimizer imports torch._dynamo.
WARM_MODULES = ("torch._dynamo", "fedprune_server.serve", "fedprune_client.start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command line of `fedprune`, or of another module with a `run(arguments) -> int`; what it prints goes to the
    file `log`."""

    name: str
    arguments: list[str]
    log: str
    module: str = "fedprune_lab.cli"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job is over; `code` is its exit code, negative for the signal that killed it."""

    name: str
    code: int


def encode(jobs: list[Job], *, warm: Sequence[str] | None) -> str:
    """The line that a nursery is asked with: the modules to import before forking, None to start cold."""
    return json.dumps({"warm": warm, "jobs": [asdict(job) for job in jobs]}) + "\n"
