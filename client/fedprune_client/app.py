"""The client's command line: `python -m fedprune_client VERB`, and the client verbs of `fedprune`.

Arguments are parsed here and nowhere else. What needs gRPC or torch is imported by the verb that uses it, so that
`--help` answers at once.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedprune import commands
from fedprune_client.config import PATIENCE_S, ClientConfig

# How long a thread may keep the interpreter from another one.
HAND_OVER_S = 0.0005

app = commands.new_app("fedprune_client", "A client: trains on its own data and sends what is left of its update.")

Server = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The coordinator. [default: the one joined by an invitation]")
]
Dialled = Annotated[
    str | None,
    typer.Argument(metavar="HOST:PORT", help="The coordinator. [default: the one joined by an invitation, if any]"),
]
Task = Annotated[Path, typer.Option(metavar="FILE", help="Your task file.")]
Name = Annotated[str | None, typer.Option(help="This client's name, the same every time. [default: the host's name]")]
Data = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="What the task sees as shard.path. [default: the task file's folder]"),
]
State = Annotated[
    Path,
    typer.Option(metavar="DIR", help="What must survive a restart: this client's identity and sealed results."),
]
Checked = Annotated[Path, typer.Argument(metavar="TASK", help="Your task file.")]
Index = Annotated[int, typer.Option(min=0, help="Which client to try the task as.")]
Count = Annotated[int, typer.Option(min=1, help="Of how many clients.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads for training; 0 leaves it to torch.")]

Credentials = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Key and certificate for a coordinator with TLS, from `certs issue`.")
]
Join = Annotated[
    str | None,
    typer.Option(metavar="LINE", help="Join by an invitation, the line that `fedprune invite SITE` printed."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Reach a coordinator on another machine without encryption.")
]
Patience = Annotated[
    float,
    typer.Option(min=0, help="Seconds to look for a coordinator that cannot be joined, then give up; 0 is for ever."),
]

Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for each step.", min=0.1)]


@app.command()
def run(
    task: Task,
    server: Server = None,
    join: Join = None,
    name: Name = None,
    data: Data = None,
    state: State = Path(".fedprune"),
    threads: Threads = 0,
    credentials: Credentials = None,
    insecure: Insecure = False,
    patience_s: Patience = PATIENCE_S,
    as_json: Json = False,
) -> None:
    """Join a coordinator and train until its runs are over; with --json, say at the end how they ended.

    \b
    Example: fedprune client --server 127.0.0.1:7400 --task task.py --name alice
             fedprune client --join LINE --task task.py --data /srv/scans
             fedprune client --server fl.example.org:7400 --credentials ward-7 --task task.py
    """
    config = ClientConfig.from_flags(
        server=server,
        task=task,
        name=name,
        data=data,
        state=state,
        threads=threads,
        credentials=credentials,
        join=join,
        insecure=insecure,
        patience_s=patience_s,
    )
    from fedprune_client.start import run_client

    # What is imported stays: looking through it for garbage would hold up a round now and then.
    gc.freeze()
    # Two threads take turns, one for the network and one for the model: none is to wait long for the other.
    sys.setswitchinterval(HAND_OVER_S)
    kept = f"kept: who this client is and what it has sealed, in {config.state}; start it again and it goes on"
    with commands.interruptible(kept):
        ended = run_client(config)
    if as_json:
        commands.print_json(ended)


@app.command()
def check(task: Checked, data: Data = None, index: Index = 0, count: Count = 1, as_json: Json = False) -> None:
    """Try a task file on this machine alone: functions, one batch, and what the model weighs dense and pruned.

    \b
    Example: fedprune check task.py
             fedprune check task.py --data /srv/scans --count 4
    """
    from fedprune_client import check as checks

    report = checks.check(task, data=data, index=index, count=count)
    if as_json:
        commands.print_json(report.as_dict())
    else:
        typer.echo(checks.describe(report))


@app.command()
def doctor(
    server: Dialled = None,
    join: Join = None,
    credentials: Credentials = None,
    state: State = Path(".fedprune"),
    timeout_s: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Look at this machine and at every step of the way to a coordinator, up to the bytes a second; with what to do.

    \b
    Example: fedprune doctor client
             fedprune doctor client 127.0.0.1:7400
             fedprune doctor client --join LINE
    """
    from fedprune.checkup.printing import told
    from fedprune_client import doctor as doctors

    way = doctors.way_from_flags(server, credentials=credentials, join=join, state=state, timeout_s=timeout_s)
    told(doctors.check(way, state=state), as_json=as_json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line of the client; gives the exit code."""
    return commands.run(app, argv, prog="fedprune_client")
