"""One line and one exit code for each way a command can end."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
import typer

from fedprune import commands
from fedprune.errors import ConfigError, DigestError, FedpruneError, StoreError, TaskError, UnavailableError

ENDINGS: dict[str, tuple[type[FedpruneError], int]] = {
    "config": (ConfigError, 2),
    "peer": (UnavailableError, 3),
    "task": (TaskError, 4),
    "store": (StoreError, 1),
    "digest": (DigestError, 1),
}


@pytest.fixture
def app() -> typer.Typer:
    app = commands.new_app("toy", "A toy.")

    @app.command()
    def end(how: str, code: Annotated[int, typer.Option(min=0)] = 0) -> None:
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "interrupt-said":
            with commands.interruptible("kept: what was done"):
                raise KeyboardInterrupt
        if how == "bug":
            raise ZeroDivisionError
        if how in ENDINGS:
            raise ENDINGS[how][0]("it broke", party="site 3", seen=1, expected=2, next_step="Mend it")
        raise typer.Exit(code)

    return app


@pytest.mark.parametrize("how", ENDINGS)
def test_an_error_is_one_line(app: typer.Typer, capsys: pytest.CaptureFixture[str], how: str) -> None:
    assert commands.run(app, ["end", how], prog="toy") == ENDINGS[how][1]
    printed = capsys.readouterr()
    assert printed.err == "fedprune: site 3: it broke (got 1, expected 2). Mend it\n"
    assert printed.out == ""


@pytest.mark.parametrize("line", [["--debug", "end", "task"], ["end", "task", "--debug"]])
def test_debug_lets_the_error_through(app: typer.Typer, line: list[str]) -> None:
    with pytest.raises(TaskError):
        commands.run(app, line, prog="toy")


def test_bugs_are_not_dressed_up(app: typer.Typer) -> None:
    with pytest.raises(ZeroDivisionError):
        commands.run(app, ["end", "bug"], prog="toy")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["end", "well"], 0),
        (["end", "well", "--code", "7"], 7),
        (["end", "interrupt"], 130),
        (["end"], 2),
        (["end", "well", "--code", "x"], 2),
        (["finish"], 2),
        ([], 2),
        (["--help"], 0),
        (["end", "-h"], 0),
    ],
)
def test_exit_codes(app: typer.Typer, line: list[str], code: int) -> None:
    assert commands.run(app, line, prog="toy") == code


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    commands.print_json({"a": [1, 2], "ü": None})
    assert json.loads(capsys.readouterr().out) == {"a": [1, 2], "ü": None}


def test_json_refuses_what_other_programs_cannot_read() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        commands.print_json({"a": float("nan")})


def test_an_interrupted_command_says_what_it_leaves(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(app, ["end", "interrupt-said"], prog="toy") == 130
    assert capsys.readouterr().err == "\nfedprune: interrupted; kept: what was done\n"
