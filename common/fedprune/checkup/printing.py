"""Findings on the terminal as they are made, for either side's `doctor`: what takes long is not silent."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from fedprune import commands
from fedprune.checkup.findings import Finding, as_dict, is_well, line, verdict


def told(findings: Iterable[Finding], *, as_json: bool) -> None:
    """Print them, and end with exit code 1 when one is bad."""
    made = []
    for finding in findings:
        made.append(finding)
        if not as_json:
            print(line(finding), flush=True)
    if as_json:
        commands.print_json(as_dict(made))
    else:
        print(verdict(made))
    if not is_well(made):
        raise typer.Exit(commands.ExitCode.FAILED)
