"""`fedprune bench`: finds and runs the benches of a checkout, one program each.

They are not part of an installation: figures are made where the code they are about can be seen. Each is an ordinary
script under bench/, whose docstring says what it measures.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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
    known = available(folder)
    if name not in known:
        raise ConfigError("there is no such bench", seen=name, expected=" | ".join(known))
    return subprocess.run([sys.executable, str(folder / f"{name}.py"), *arguments], check=False).returncode


def _purpose(path: Path) -> str:
    whole = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return whole.partition("\n")[0]
