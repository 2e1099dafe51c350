"""The `fedprune` command: the verbs of both sides, and those that need both on one machine.

Each verb is a thin function: arguments in, one call, an exit code out. The verbs of one side are that side's own
functions, so that `fedprune server` and `python -m fedprune_server serve` cannot drift apart; those that read what a run
left behind are in `afterwards.py`. Whatever needs torch, gRPC or rich is imported by the verb that uses it: `--help`
answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import fedprune_client.app as client
import fedprune_server.app as server
import fedprune_server.authority.app as authority
from fedprune import commands
from fedprune_lab import afterwards
from fedprune_lab.afterwards import Json

app = commands.new_app("fedprune", "Federated learning that prunes while it trains, and sends only what is left.")

Out = Annotated[Path, typer.Option(metavar="DIR", help="The demo makes its folder in here.")]
Clients = Annotated[int, typer.Option(min=1, help="Client processes.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of each of the two runs.")]
Density = Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the weights that is left at the end.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the first model and of the batches.")]
RunFile = Annotated[Path, typer.Argument(metavar="RUN.toml", help="What all strategies have in common.")]
Vary = Annotated[
    list[str], typer.Option("--vary", metavar="KEY=V,V", help="A key and the values to try; repeat for combinations.")
]
Seeds = Annotated[str, typer.Option(metavar="N,N", help="Seeds; each strategy runs once with each.")]
Folds = Annotated[
    int,
    typer.Option(
        min=0, metavar="K", help="Hold out each of K parts of every client's data in turn, and choose by their mean."
    ),
]
TaskFile = Annotated[Path | None, typer.Option("--task", metavar="FILE", help="Task file; wins over [task] file.")]
NewFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder; its name becomes the run's.")]
SharesTask = Annotated[Path, typer.Argument(metavar="TASK", help="Your task file.")]
Count = Annotated[int, typer.Option(min=1, help="Of how many clients.")]
Data = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="What the task sees as shard.path. [default: the task file's folder]"),
]
Picture = Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw it into this file, too.")]
Bench = Annotated[str | None, typer.Argument(metavar="NAME", help="Which one.")]
BenchArguments = Annotated[list[str] | None, typer.Argument(metavar="ARGUMENTS", help="Passed on to the bench.")]
Page = Annotated[bool, typer.Option("--page", help="Show it in a browser while it happens.")]
Relay = Annotated[bool, typer.Option("--relay", help="Count the bytes a third time, between the two sides.")]


@app.command("demo")
def demo(
    out: Out = Path("runs"),
    clients: Clients = 4,
    rounds: Rounds = 40,
    density: Density = 0.1,
    seed: Seed = 1,
    relay: Relay = False,
    page: Page = False,
    as_json: Json = False,
) -> None:
    """A whole federation on this machine, twice: dense, then pruned to a tenth.

    \b
    Example: fedprune demo
             fedprune demo --clients 8 --density 0.05 --json
             fedprune demo --page
    """
    from rich.console import Console

    from fedprune_lab import demo as demos
    from fedprune_lab.federation import free_folder, page_address

    plan = demos.Plan(
        out=free_folder(out, "demo"),
        rounds=rounds,
        clients=clients,
        density=density,
        seed=seed,
        relay=relay,
        page=page_address() if page else None,
    )
    console = Console(stderr=as_json)
    with commands.interruptible(f"kept: the rounds so far, in {plan.out}; `fedprune list {plan.out}` shows them"):
        whole = demos.run_demo(plan, console)
    if as_json:
        commands.print_json(whole)
    else:
        demos.print_outcome(plan, console)


@app.command("compare")
def compare(
    run_file: RunFile,
    vary: Vary,
    task: TaskFile = None,
    seeds: Seeds = "1",
    folds: Folds = 0,
    clients: Clients = 4,
    overrides: server.Overrides = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run several strategies on one task, and beside them the dense run, a random mask and a narrower dense network.

    \b
    Example: fedprune compare run.toml --vary pruning.method=magnitude,snip --seeds 1,2,3
             fedprune compare run.toml --vary pruning.preset=gradual,fedrts --vary pruning.density=0.1,0.2
             fedprune compare run.toml --vary pruning.density=0.05,0.1,0.2 --folds 5
    """
    from rich.console import Console

    from fedprune_lab import comparing, outcomes
    from fedprune_lab.federation import free_folder
    from fedprune_lab.view import open_view

    work = comparing.Comparing(
        run_file=run_file,
        task=comparing.task_of(run_file, task),
        varied=vary,
        seeds=comparing.read_seeds(seeds),
        folds=comparing.checked_folds(folds),
        clients=clients,
        overrides=overrides or [],
        out=free_folder(out, "compare"),
        view=open_view(Console(stderr=as_json)),
    )
    with commands.interruptible(f"kept: the runs so far, in {work.out}; `fedprune list {work.out}` shows them"):
        rows = work.run()
    if as_json:
        commands.print_json(outcomes.to_dict(rows, work.notes))
        return
    print(outcomes.table(rows))
    print(*work.notes, f"all of it: {work.out}/compare.html, .csv, .json and .svg", sep="\n")


@app.command("new")
def new(folder: NewFolder, as_json: Json = False) -> None:
    """Make a folder with a task, a run file, a compose file and a README that run as they are.

    \b
    Example: fedprune new scans
    """
    from fedprune_lab.new import create

    paths = create(folder)
    if as_json:
        commands.print_json({"folder": str(folder), "made": [path.name for path in paths]})
        return
    print(f"made {', '.join(path.name for path in paths)} in {folder}")
    print(f"next: fedprune check {paths[0]}")


@app.command("shares")
def shares(
    task: SharesTask, count: Count = 4, data: Data = None, picture: Picture = None, as_json: Json = False
) -> None:
    """Show who gets what: how many examples of each label a task gives to each client.

    \b
    Example: fedprune shares task.py --count 8
             fedprune shares task.py --count 8 --svg shares.svg
    """
    from rich.console import Console

    from fedprune_lab import shares as counting

    found = counting.count(task, clients=count, data=data)
    if picture is not None:
        picture.write_text(counting.svg(found, f"{task.name}, {count} clients"), encoding="utf-8")
    if as_json:
        commands.print_json(found.to_dict())
    else:
        Console().print(counting.table(found))
        if picture is not None:
            print(f"drawn in {picture}")


app.command("server")(server.serve)
app.command("client")(client.run)
app.command("check")(client.check)
app.command("health")(server.health)
app.command("stop")(server.stop)
app.command("verify")(server.verify)
app.command("audit")(server.audit)
app.command("invite")(authority.invite)
app.add_typer(authority.certs)
doctor = commands.new_app("doctor", "What is wrong between two machines, and what to do: a look from either side.")
doctor.command("client")(client.doctor)
doctor.command("server")(server.doctor)
app.add_typer(doctor)


app.command("report")(afterwards.report)
app.command("list")(afterwards.list_runs)
app.command("log")(afterwards.log)
app.command("inspect")(afterwards.inspect)
app.command("export")(afterwards.export)


@app.command("bench", context_settings={"ignore_unknown_options": True})
def bench(name: Bench = None, arguments: BenchArguments = None, as_json: Json = False) -> None:
    """Make one of the figures we publish, in a checkout of fedprune; without a name, list them.

    \b
    Example: fedprune bench overhead
    """
    from fedprune_lab import benches

    if name is not None and as_json:
        found = benches.told(name, arguments or [])
        commands.print_json(found)
        raise typer.Exit(found["exit_code"])
    if name is not None:
        raise typer.Exit(benches.run(name, arguments or []))
    if as_json:
        commands.print_json({"benches": benches.available()})
        return
    for known, purpose in benches.available().items():
        print(f"{known:<12} {purpose}")


def verbs() -> list[tuple[str, ...]]:
    """Every verb as the words one types after `fedprune`."""
    alone = [(str(command.name),) for command in app.registered_commands]
    groups = [group.typer_instance for group in app.registered_groups if group.typer_instance is not None]
    return alone + [(str(g.info.name), str(command.name)) for g in groups for command in g.registered_commands]


def run(argv: Sequence[str] | None = None) -> int:
    """Run one `fedprune` command line; gives the exit code."""
    return commands.run(app, argv, prog="fedprune")


def main() -> int:
    """The console script."""
    return run()
