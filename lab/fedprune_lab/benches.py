"""`fedprune bench`: finds and runs the benches of a checkout, one program each.

They are not part of an installation: figures are made where the code they are about can be seen. Each is an ordinary
script under bench/, whose docstring says what it measures.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedprune.errors import ConfigError

FOLDER = Path("bench")


def available(folder: Path = FOLDER) -> dict[str, str]:
    """Name -> what it measures, for each bench of the checkout. Raises `ConfigError` where there is none."""
    found = {path.stem: _purpose(path) for path in sorted(folder.glob("*.py"))}
    if not found:
        raise ConfigError(
            "there are no benches here", seen=folder.resolve(), next_step="Call it in a checkout of fedprune"
        )
    return found


def run(name: str, arguments: Sequence[str] = (), folder: Path = FOLDER) -> int:
    """Run one bench with these arguments, its output passed on; gives its exit code."""
    return subprocess.run(_command(name, arguments, folder), check=False).returncode


def told(name: str, arguments: Sequence[str] = (), folder: Path = FOLDER) -> dict[str, Any]:
    """Run one bench, its lines on stderr meanwhile; gives them, the results it kept under `out`, and its exit code."""
    before = _kept(folder)
    said = []
    with subprocess.Popen(_command(name, arguments, folder), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            said.append(line.rstrip("\n"))
    new = {path for path, changed in _kept(folder).items() if before.get(path) != changed}
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(new)}
    return {"bench": name, "exit_code": running.returncode, "results": results, "said": said}


def _command(name: str, arguments: Sequence[str], folder: Path) -> list[str]:
    known = available(folder)
    if name not in known:
        raise ConfigError("there is no such bench", seen=name, expected=" | ".join(known))
    return [sys.executable, str(folder / f"{name}.py"), *arguments]


def _kept(folder: Path) -> dict[Path, int]:
    """The results of benches, and when each was written, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in (folder / "out").glob("*.json")}


def _purpose(path: Path) -> str:
    whole = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return whole.partition("\n")[0]
