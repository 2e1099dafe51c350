"""Write the reference pages that are made from code: `run-file.md` from the model, `commands.md` from the parser, `python.md` from
docstrings, `report.schema.json` from the report's types. The pictures are made by pictures.py.

`tests/docs/test_pages.py` makes them again and compares, so a page cannot drift from what the program does.

Example: python docs/generate.py
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedprune import Shard, data, report
from fedprune.config import RunConfig
from fedprune_client.training import TrainContext
from fedprune_lab import cli, partition

DOCS = Path(__file__).resolve().parent
RUN_FILE = """# The run file

One TOML file decides how a run goes. Every key has a default, so an empty file is a valid run; an unknown key is an
error that names the file, the line and the nearest right key. `--set section.key=value` changes a key from the command
line. Paths are relative to the folder the file lies in. The file with every default written out is kept in
`runs/<name>/config.toml`.

This page is made from `common/fedprune/config.py` and the sections beside it by `make docs`.
"""
COMMANDS = """# Commands

An error is one line that says what was found, what was expected and what to do next; `--debug`, anywhere on the line,
shows the traceback too. Exit codes: 0 done, 1 failed, 2 wrong arguments or run file, 3 not connected, 4 task file.
The verbs of one side also work where only that side is installed: `python -m fedprune_server serve`, `health`, `stop`,
`verify`, `certs` and `invite`, `python -m fedprune_client run` and `check`.

This page is made from the commands' own help by `make docs`.
"""

# Annotations are text in the source, and come out quoted.
QUOTED = re.compile(r"(: |-> )'([^']*)'")
PYTHON = """# Python

What a task file may import. A task needs none of it: [the task file](tasks.md) says what it must have itself.

This page is made from signatures and docstrings by `make docs`.
"""


def run_file() -> str:
    """The page of all sections and keys, with default and meaning."""
    return "\n".join([RUN_FILE, *(_section(name, field) for name, field in RunConfig.model_fields.items())])


def commands() -> str:
    """The page of all verbs, each with its help as a terminal shows it."""
    return "\n".join([COMMANDS, *(_verb(words) for words in cli.verbs())])


def _section(name: str, field: FieldInfo) -> str:
    section = field.annotation
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    rows = [_row(key, inner) for key, inner in section.model_fields.items()]
    if not rows:
        return f"## [{name}]\n\nNo keys yet.\n"
    return "\n".join([f"## [{name}]\n", "| key | default | meaning |", "| --- | --- | --- |", *rows, ""])


def _row(key: str, field: FieldInfo) -> str:
    default = field.get_default()
    shown = "" if default is None else f"`{json.dumps(list(default) if isinstance(default, tuple) else default)}`"
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    meaning = " ".join(str(field.description).split())
    if choices:
        meaning += f" One of {', '.join(f'`{c}`' for c in choices)}."
    return f"| `{key}` | {shown} | {meaning} |"


def _verb(words: tuple[str, ...]) -> str:
    screen = io.StringIO()
    with contextlib.redirect_stdout(screen):
        cli.run([*words, "--help"])
    text = "\n".join(line.rstrip() for line in screen.getvalue().strip().splitlines())
    return f"## fedprune {' '.join(words)}\n\n```text\n{text}\n```\n"


def python() -> str:
    """The page of what a task may import, each with its signature and its docstring."""
    sections = (f"## {title}\n\n" + "\n".join(map(_described, things)) for title, things in PUBLIC.items())
    return "\n".join([PYTHON, *sections])


def report_schema() -> str:
    """The JSON schema of report.json."""
    return json.dumps(report.schema(), indent=1) + "\n"


def _described(thing: Callable[..., Any]) -> str:
    kind = "class" if isinstance(thing, type) else "def"
    signature = QUOTED.sub(r"\1\2", str(inspect.signature(thing)).replace(repr(data.ALPHABET), "ALPHABET"))
    if isinstance(thing, type):
        signature = signature.removesuffix(" -> None")
    members = [
        f"- `{name}`: {_first_sentence(value)}" for name, value in vars(thing).items() if _is_public(name, value)
    ]
    parts = [
        f"### {thing.__name__}",
        f"```text\n{kind} {thing.__name__}{signature}: ...\n```",
        inspect.getdoc(thing) or "",
    ]
    return "\n\n".join([*parts, *(["\n".join(members)] if members else [])]) + "\n"


def _is_public(name: str, value: object) -> bool:
    return not name.startswith("_") and inspect.isfunction(value)


def _first_sentence(value: object) -> str:
    return " ".join((inspect.getdoc(value) or "").split())


PUBLIC: dict[str, tuple[Callable[..., Any], ...]] = {
    "fedprune": (Shard,),
    "fedprune.data": (data.ImageFolder, data.table, data.text, data.windows, data.Columns, data.in_memory),
    "fedprune_lab.partition": (
        partition.iid,
        partition.dirichlet,
        partition.shards,
        partition.by_id,
        partition.by_size,
    ),
    "The `ctx` of a task's own `train`": (TrainContext,),
}
PAGES = {
    "run-file.md": run_file,
    "commands.md": commands,
    "python.md": python,
    "report.schema.json": report_schema,
}

if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    for page, make in PAGES.items():
        (DOCS / page).write_text(make(), encoding="utf-8")
