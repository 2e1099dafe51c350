"""The `fedprune` command: the verbs of both sides, and those that need both on one machine.

Each verb is a thin function: arguments in, one call, an exit code out. The verbs of one side are that side's own
functions, so that `fedprune server` and `python -m fedprune_server serve` cannot drift apart. Whatever needs torch
or gRPC is imported by the verb that uses it: `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import fedprune_client.app as client
import fedprune_server.app as server
from fedprune import commands

app = commands.new_app("fedprune", "Federated learning that prunes while it trains, and sends only what is left.")
app.command("server")(server.serve)
app.command("client")(client.run)
app.command("health")(server.health)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one `fedprune` command line; gives the exit code."""
    return commands.run(app, argv, prog="fedprune")


def main() -> int:
    """The console script."""
    return run()
