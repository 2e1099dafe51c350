"""What it takes a newcomer from an empty folder to a federated model of their own: words to read, keys to press, seconds
to wait.

They read the quickstart and the page that `fedprune new` makes, every word and every line of code on them, and what
`new` and `check` print; they type each command, and a task of fifteen lines of their own in place of the one they were
given; and the commands are carried out as they stand, by cold processes. Reading counts 200 words a minute, typing 200
keys. Installation is apart from it: it takes what torch's download takes.

Example: python bench/newcomer.py
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedprune_lab.benching import keep
from fedprune_lab.ports import HOST, Ports

QUICKSTART, OWN = Path("docs/quickstart.md"), Path("bench/tasks/waves.py")
WORDS_A_MINUTE, KEYS_A_MINUTE = 200, 200
COMMAND = [sys.executable, "-c", "from fedprune_lab.cli import main; raise SystemExit(main())"]
NAMES = ("alice", "bob", "carol")
ADDRESS = "127.0.0.1:7400"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that a newcomer does: `read` words, `typed` keys, and `waits_s` seconds in front of the machine."""

    what: str
    read: int = 0
    typed: int = 0
    waits_s: float = 0.0

    @property
    def minutes(self) -> float:
        """Reading and typing."""
        return self.read / WORDS_A_MINUTE + self.typed / KEYS_A_MINUTE


def walk(home: Path) -> list[Step]:
    """From the empty folder `home` to the report of a run."""
    steps = [Step(what="read the quickstart", read=len(QUICKSTART.read_text().split()))]
    steps.append(_does(home, "fedprune new waves"))
    folder = home / "waves"
    page = (folder / "README.md").read_text()
    steps.append(Step(what="read the new folder's page", read=len(page.split())))
    shutil.copy(OWN, folder / "task.py")
    steps.append(Step(what="write a task of one's own", typed=len(OWN.read_text())))
    steps.append(_does(folder, "fedprune check task.py"))
    steps += _together(
        folder,
        ["fedprune server run.toml", *(f"fedprune client --server {ADDRESS} --task task.py --name {n}" for n in NAMES)],
    )
    steps.append(_does(folder, "fedprune report runs/waves", read=False))
    return steps


def _does(folder: Path, line: str, *, read: bool = True) -> Step:
    began = time.monotonic()
    done = subprocess.run([*COMMAND, *shlex.split(line)[1:]], cwd=folder, capture_output=True, text=True, check=True)
    words = len(done.stdout.split()) if read else 0
    return Step(what=line, read=words, typed=len(line) + 1, waits_s=time.monotonic() - began)


def _together(folder: Path, lines: Sequence[str]) -> list[Step]:
    """Commands in terminals of their own, at a port of this bench's own."""
    with Ports() as ports:
        address = f"{HOST}:{ports.take()}"
        commands = [[address if word == ADDRESS else word for word in shlex.split(line)[1:]] for line in lines]
        commands[0] += ["--address", address]
        began = time.monotonic()
        running = [
            subprocess.Popen([*COMMAND, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for words in commands
        ]
        codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"exit codes {codes} of {lines}")
    waited = [0.0] * (len(lines) - 1) + [time.monotonic() - began]
    return [Step(what=line, typed=len(line) + 1, waits_s=s) for line, s in zip(lines, waited, strict=True)]


def outcome(folder: Path) -> Mapping[str, Any]:
    """Where the run ended."""
    (run,) = json.loads((folder / "runs" / "waves" / "report.json").read_text())["runs"]
    return {"rounds": run["totals"]["rounds"], **run["final"]}


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        steps = walk(Path(home))
        ended = outcome(Path(home) / "waves")
    total = Step(
        what="all of it",
        read=sum(s.read for s in steps),
        typed=sum(s.typed for s in steps),
        waits_s=sum(s.waits_s for s in steps),
    )
    table = Table(title="a newcomer's own model", title_justify="left", highlight=False)
    for heading in ("step", "words read", "keys typed", "minutes", "machine"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for step in [*steps, total]:
        table.add_row(step.what, str(step.read), str(step.typed), f"{step.minutes:.2f}", f"{step.waits_s:.0f} s")
    Console().print(table)
    print(f"{ended['rounds']} rounds, accuracy {ended['accuracy']:.1%}, density {ended['density']:.1%}")
    rows = [
        {"what": s.what, "read": s.read, "typed": s.typed, "minutes": s.minutes, "waits_s": s.waits_s} for s in steps
    ]
    print(f"kept in {keep('newcomer', {'steps': rows, 'minutes': total.minutes, 'outcome': ended})}")


if __name__ == "__main__":
    main()
