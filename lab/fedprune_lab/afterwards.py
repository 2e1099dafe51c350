"""The verbs that read what runs left behind: `fedprune report`, `list`, `log`, `inspect` and `export`.

They need no coordinator and change nothing in a run's folder but the files they say they write. Whatever is heavy is
imported by the verb that uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedprune import commands

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, its name under runs/, or a report.json.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
RunFolders = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="A run's folder, its name under runs/, or a report.json.")
]
ReportOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Where to write; else beside the first run's report.json.")
]
Runs = Annotated[Path, typer.Argument(metavar="DIR", help="Where the runs lie.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")]
Inspected = Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run's folder; with --codec, one frame.")]
Codec = Annotated[bool, typer.Option("--codec", help="Show a frame: what the codec chose, and what it weighs.")]
Pictures = Annotated[Path | None, typer.Option(metavar="DIR", help="Draw what is left of each layer, as PNG files.")]
Exported = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or a .safetensors file.")]
Csr = Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.")]
OfRound = Annotated[
    int | None,
    typer.Option("--round", min=1, help="Write what each client sent in this round instead; needs [run] keep_updates."),
]


def report(runs: RunFolders, out: ReportOut = None, as_json: Json = False) -> None:
    """Show what a run did, round by round, and write it as one HTML file, as Markdown and as CSV; several runs side
    by side.

    \b
    Example: fedprune report runs/digits
             fedprune report runs/dense runs/tenth --out comparison
    """
    from rich.console import Console

    from fedprune_lab import reading
    from fedprune_lab.report import print_report
    from fedprune_lab.reporting import files

    if as_json:
        documents = [reading.read(reading.find(run))[0] for run in runs]
        whole = documents[0] | {"runs": [run for document in documents for run in document["runs"]]}
        commands.print_json(whole if len(documents) == 1 else {"schema": whole["schema"], "runs": whole["runs"]})
        return
    found, written = files.write(runs, out)
    print_report(found, Console())
    for path in written:
        print(f"wrote {path}")


def list_runs(folder: Runs = Path("runs"), as_json: Json = False) -> None:
    """List the runs in a folder: state, rounds, accuracy, density and bytes.

    \b
    Example: fedprune list
    """
    from fedprune_lab import runs

    rows = runs.listed(folder)
    if as_json:
        commands.print_json({"runs": [row.to_dict() for row in rows]})
    else:
        print(runs.table(rows) if rows else f"no runs in {folder}; `fedprune demo` makes two")


def log(run: RunFolder, follow: Follow = False, as_json: Json = False) -> None:
    """Show the rounds of a run, a line each; with --json as one object, when they are all there.

    \b
    Example: fedprune log runs/digits --follow
    """
    from fedprune_lab import runs

    with commands.interruptible("the run goes on, and its rounds are kept; this only showed them"):
        if as_json:
            import json

            rounds = [json.loads(row.to_json()) for row, _ in runs.rows(run, follow=follow)]
            commands.print_json({"run": str(run), "rounds": rounds})
            return
        for line in runs.log(run, follow=follow):
            print(line, flush=True)


def inspect(what: Inspected, codec: Codec = False, pictures: Pictures = None, as_json: Json = False) -> None:
    """Look inside: a run's layers after each change of the mask, or with --codec the segments of one frame.

    \b
    Example: fedprune inspect runs/digits --pictures digits-masks
             fedprune inspect --codec runs/digits/masks/v1.mask
    """
    from fedprune_lab import inspect_codec, inspect_run
    from fedprune_lab import pictures as drawing

    found = inspect_codec.run(what) if codec else inspect_run.run(what)
    if pictures is not None:
        drawing.run(inspect_run.folder_of(what), inspect_run.layers_of(found), pictures)
    if as_json:
        commands.print_json(found)
    else:
        print(*(inspect_codec.lines(found) if codec else inspect_run.lines(found)), sep="\n")


def export(run: Exported, csr: Csr, round_: OfRound = None, as_json: Json = False) -> None:
    """Write a run's matrices, or what its clients sent, as CSR files that scipy.sparse.load_npz opens.

    \b
    Example: fedprune export runs/digits --csr digits-csr
             fedprune export runs/digits --csr digits-sent --round 2
    """
    from fedprune_lab import export_csr

    if round_ is not None:
        told = export_csr.run_round(run, round_, csr)
        if as_json:
            commands.print_json({"folder": str(csr), "round": round_, "clients": told})
        else:
            print(*(export_csr.line(entry) for entry in told), sep="\n")
        return
    written = export_csr.run(run, csr)
    if as_json:
        commands.print_json({"folder": str(csr), "matrices": len(written)})
    else:
        print(f"wrote {len(written)} files to {csr}")
