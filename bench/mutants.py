"""Do the tests notice when a safeguard is gone? Each of those in mutants.toml is taken out of a copy of the code, and
a test must fail.

Prints a line for each; exit code 1 when a mutant survived.

Example: python bench/mutants.py
         python bench/mutants.py fsync
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("common", "server", "client", "lab")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A safeguard: the line that is changed, and the tests that must notice."""

    file: str
    line: str
    instead: str
    tests: tuple[str, ...]


MUTANTS = TypeAdapter(dict[str, Mutant]).validate_python(tomllib.loads((ROOT / "bench/mutants.toml").read_text()))


def dies(name: str, mutant: Mutant, copy: Path) -> bool:
    """Whether a test fails with the mutant in `copy`."""
    path = copy / mutant.file
    text = (ROOT / mutant.file).read_text()
    if text.count(mutant.line) != 1:
        raise SystemExit(f"{name}: the line is not in {mutant.file} once: {mutant.line}")
    path.write_text(text.replace(mutant.line, mutant.instead))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(copy / room) for room in ROOMS)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    path.write_text(text)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{name}: the tests did not run\n{done.stdout[-2000:]}")
    return done.returncode == 1


def main(names: list[str]) -> int:
    """Try the mutants of these names, or all."""
    survived = 0
    with tempfile.TemporaryDirectory(prefix="fedprune-mutants-") as folder:
        copy = Path(folder) / "copy"
        skipped = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, copy, ignore=skipped)
        for name, mutant in MUTANTS.items():
            if not names or name in names:
                dead = dies(name, mutant, copy)
                survived += not dead
                print(f"{name}: {'noticed' if dead else 'SURVIVED'} ({' '.join(mutant.tests)})", flush=True)
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
