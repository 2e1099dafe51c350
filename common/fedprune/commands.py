"""What every fedprune command line does alike: how it is made, how it fails, how it prints JSON.

A program that parses its arguments should not pay for torch or gRPC, so the apps import what does the work inside
the command that needs it; nothing here is heavier than typer. An error of ours is one line on stderr and an exit
code; a traceback is for bugs, and for `--debug`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

import typer

from fedprune.errors import ConfigError, FedpruneError, TaskError, UnavailableError


class ExitCode(IntEnum):
    """What a script can tell from the exit code alone."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_CONNECTED = 3
    TASK = 4
    INTERRUPTED = 130


def new_app(name: str, purpose: str) -> typer.Typer:
    """An empty command line in the house style: plain text, help when called without a verb."""
    app = typer.Typer(
        name=name,
        help=purpose,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="--debug, anywhere on the line, shows the traceback of an error.",
    )
    app.callback()(_no_options)
    return app


def run(app: typer.Typer, argv: Sequence[str] | None, *, prog: str) -> int:
    """Run one command line (`argv` without the program's name; None: this process's) and give its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        app([w for w in words if w != "--debug"], prog_name=prog)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAILED
    except FedpruneError as error:
        if debug:
            raise
        print(f"fedprune: {error}", file=sys.stderr)
        return exit_code(error)
    return ExitCode.OK


@contextmanager
def interruptible(kept: str) -> Iterator[None]:
    """Ctrl-C within the block ends the command, with a word on what it leaves behind."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nfedprune: interrupted; {kept}", file=sys.stderr, flush=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def exit_code(error: FedpruneError) -> ExitCode:
    """2 for a wrong run file or flag, 3 for a peer that is not there, 4 for a task file, 1 for all else."""
    match error:
        case ConfigError():
            return ExitCode.USAGE
        case UnavailableError():
            return ExitCode.NOT_CONNECTED
        case TaskError():
            return ExitCode.TASK
        case _:
            return ExitCode.FAILED


def print_json(value: object) -> None:
    """The one object that a command with `--json` prints on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _no_options() -> None:
    """Keeps an app with a single verb from swallowing the verb's name."""
