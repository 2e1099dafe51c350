"""The coordinator's command line: `python -m fedprune_server VERB`, and the server verbs of `fedprune`.

Arguments are parsed here and nowhere else. What needs gRPC or torch is imported by the verb that uses it, so that
`--help` answers at once.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedprune import commands
from fedprune_server.authority import app as authority

app = commands.new_app("fedprune_server", "The coordinator: owns the model, its masks, the rounds and the ledger.")

RunFiles = Annotated[list[Path], typer.Argument(metavar="RUN.toml...", help="Run files, done one after another.")]
Task = Annotated[Path | None, typer.Option(metavar="FILE", help="Task file; wins over [task] file.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Each run gets a folder here, by its name.")]
Address = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to listen; wins over [network] address.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Listen for other machines without encryption.")]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over", help="Go on with a run that a coordinator out of reach still holds; that one is fenced."
    ),
]
Certs = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Certificates for encrypted connections. [default: certs, for an address that other machines reach]",
    ),
]
Credentials = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Key and certificate to show, for a coordinator with TLS; such as certs/operator."
    ),
]
Page = Annotated[bool, typer.Option("--page", help="Serve the live page, and /metrics, at [page] address.")]
PageAddress = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Serve them here; beyond this machine with a token.")
]
Status = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep in FILE how the run and each client stand, as JSON, while it runs."),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the run file.")
]
Peer = Annotated[str, typer.Argument(metavar="HOST:PORT", help="The coordinator.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for the answer.", min=0.1)]
Shutdown = Annotated[bool, typer.Option("--shutdown", help="End the process too, runs that wait included.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/digits.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")]
Listening = Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="Where it listens, or is going to.")]


@app.command()
def serve(
    run_files: RunFiles,
    task: Task = None,
    out: Out = Path("runs"),
    address: Address = None,
    certs: Certs = None,
    insecure: Insecure = False,
    take_over: TakeOver = False,
    page: Page = False,
    page_address: PageAddress = None,
    status: Status = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Coordinate one or more runs, then exit. A run that is unfinished in DIR goes on where it was. On a terminal the
    progress of each client is shown; with --json, what report.json holds is printed at the end.

    \b
    Example: fedprune server run.toml --task task.py
             fedprune server run.toml --address 0.0.0.0:7400 --certs certs
             fedprune server run.toml --set pruning.density=0.1 --set run.name=tenth
             fedprune server run.toml --page
             fedprune server run.toml --json > report.json
    """
    from fedprune.tomlfile import naming_lines
    from fedprune_server.config import ServerConfig

    config = ServerConfig.from_files(
        run_files,
        overrides=overrides or [],
        task=task,
        out=out,
        address=address,
        insecure=insecure,
        certs=certs,
        page=page,
        page_address=page_address,
    )
    from fedprune_server.serve import serve as coordinate

    # What is imported stays: looking through it for garbage would hold up a round now and then.
    gc.freeze()
    with naming_lines(run_files):
        code = coordinate(
            config.runs,
            task=config.task,
            out=config.out,
            address=config.address,
            insecure=config.insecure,
            take_over=take_over,
            certs=config.certs,
            page=config.page,
            page_token=config.page_token,
            status=status,
            as_json=as_json,
        )
    raise typer.Exit(code)


@app.command()
def health(
    coordinator: Peer = "127.0.0.1:7400",
    timeout_s: Timeout = 5.0,
    credentials: Credentials = None,
    as_json: Json = False,
) -> None:
    """Ask a coordinator whether it serves: exit code 0, or 3 when it does not.

    \b
    Example: fedprune health 127.0.0.1:7400
             fedprune health 10.0.0.5:7400 --credentials certs/operator
    """
    from fedprune_server.health import ask

    state = ask(coordinator, timeout_s=timeout_s, credentials=credentials)
    if as_json:
        commands.print_json({"coordinator": coordinator, "state": state})
    else:
        print(f"{coordinator} is {state}")


@app.command()
def stop(
    coordinator: Peer = "127.0.0.1:7400",
    shutdown: Shutdown = False,
    timeout_s: Timeout = 10.0,
    credentials: Credentials = None,
    as_json: Json = False,
) -> None:
    """Ask a coordinator to end its run after the last committed round. With TLS, that is for operators.

    \b
    Example: fedprune stop 127.0.0.1:7400 --shutdown
             fedprune stop 10.0.0.5:7400 --credentials certs/operator
    """
    from fedprune_server.operating import stop as ask_to_stop

    kept = ask_to_stop(coordinator, shutdown=shutdown, timeout_s=timeout_s, credentials=credentials)
    if as_json:
        commands.print_json({"coordinator": coordinator, "kept": kept})
    else:
        print(f"kept: {kept}")


@app.command()
def verify(run: RunFolder, as_json: Json = False) -> None:
    """Check that what a run left behind is what was written: chain, tables, blobs and files. Exit code 1 if not.

    \b
    Example: fedprune verify runs/digits
    """
    from fedprune_server.store.verify import verify as check

    findings = check(run)
    if as_json:
        commands.print_json({"run": str(run), "ok": findings.ok, **asdict(findings)})
    else:
        for line in (*findings.problems, *findings.notes):
            print(line)
        verdict = "nothing is wrong" if findings.ok else f"{len(findings.problems)} problems"
        print(f"{run}: {verdict}; {findings.links} links, {findings.blobs} blobs, {findings.files} files")
        print(f"head of the chain: {findings.head}")
    if not findings.ok:
        raise typer.Exit(commands.ExitCode.FAILED)


@app.command()
def audit(run: RunFolder, as_json: Json = False) -> None:
    """Show who joined, was refused or revoked, and whose signed update entered which round. Exit code 1 when a
    signature is not its sender's; that nothing was changed or left out, `fedprune verify` tells.

    \b
    Example: fedprune audit runs/digits
    """
    from fedprune_server import audit as audits

    found = audits.read(run)
    if as_json:
        commands.print_json({"run": str(run), "ok": not found.problems, **asdict(found)})
    else:
        print(*(audits.line(event) for event in found.events), *found.problems, sep="\n")
    if found.problems:
        raise typer.Exit(commands.ExitCode.FAILED)


@app.command()
def doctor(
    address: Listening = "127.0.0.1:7400",
    certs: Certs = None,
    enrol_port: authority.EnrolPort = 7402,
    out: Out = Path("runs"),
    timeout_s: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """Look at what a coordinator needs here: versions, disk, clock, certificates, names, ports; with what to do.

    \b
    Example: fedprune doctor server --certs certs --address 0.0.0.0:7400
    """
    from fedprune.checkup.printing import told
    from fedprune_server import doctor as doctors

    found = certs or (authority.CERTS if authority.CERTS.is_dir() else None)
    place = doctors.Place(address=address, certs=found, enrol_port=enrol_port, out=out, timeout_s=timeout_s)
    told(doctors.check(place), as_json=as_json)


app.add_typer(authority.certs)
app.command("invite")(authority.invite)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line of the coordinator; gives the exit code."""
    return commands.run(app, argv, prog="fedprune_server")
