"""Write what is made from code: `run-file.md` from the model, `commands.md` from the parser, pictures from what they show.

`tests/test_docs.py` makes them again and compares, so a page cannot drift from what the program does.

Example: python docs/generate.py
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedprune.config import RunConfig
from fedprune_lab import cli, digits, shares

DOCS = Path(__file__).resolve().parent
RUN_FILE = """# The run file

One TOML file decides how a run goes. Every key has a default, so an empty file is a valid run; an unknown key is an
error that names the file, the line and the nearest right key. `--set section.key=value` changes a key from the command
line. Paths are relative to the folder the file lies in. The file with every default written out is kept in
`runs/<name>/config.toml`.

This page is made from `common/fedprune/config.py` by `make docs`.
"""
COMMANDS = """# Commands

An error is one line that says what was found, what was expected and what to do next; `--debug`, anywhere on the line,
shows the traceback too. Exit codes: 0 done, 1 failed, 2 wrong arguments or run file, 3 not connected, 4 task file.
The verbs of one side also work where only that side is installed: `python -m fedprune_server serve`, `health`, `stop`,
`verify`, `certs` and `invite`, `python -m fedprune_client run` and `check`.

This page is made from the commands' own help by `make docs`.
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


def shares_picture() -> str:
    """Who gets what in the demo."""
    return shares.svg(shares.count(Path(digits.__file__), clients=4), "The demo's digits, four clients")


PAGES = {"run-file.md": run_file, "commands.md": commands, "images/shares.svg": shares_picture}

if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    for page, make in PAGES.items():
        (DOCS / page).write_text(make(), encoding="utf-8")
