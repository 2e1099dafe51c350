"""The `fedprune` command: the verbs of both sides, and those that need both on one machine.

Each verb is a thin function: arguments in, one call, an exit code out. The verbs of one side are that side's own
functions, so that `fedprune server` and `python -m fedprune_server serve` cannot drift apart. Whatever needs torch,
gRPC or rich is imported by the verb that uses it: `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import fedprune_client.app as client
import fedprune_server.app as server
from fedprune import commands

app = commands.new_app("fedprune", "Federated learning that prunes while it trains, and sends only what is left.")

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, its name under runs/, or a report.json.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

app.command("server")(server.serve)
app.command("client")(client.run)
app.command("check")(client.check)
app.command("health")(server.health)


@app.command()
def report(run: RunFolder, as_json: Json = False) -> None:
    """Show what a run did: accuracy, density and bytes, round by round.

    \b
    Example: fedprune report runs/digits
    """
    from rich.console import Console

    from fedprune_lab import report as reports

    whole, runs = reports.read(reports.find(run))
    if as_json:
        commands.print_json(whole)
    else:
        reports.print_report(runs, Console())


def run(argv: Sequence[str] | None = None) -> int:
    """Run one `fedprune` command line; gives the exit code."""
    return commands.run(app, argv, prog="fedprune")


def main() -> int:
    """The console script."""
    return run()
