"""`fedprune new`: a folder with a task, a run file, a compose file and a README that run as they are.

The files lie in template/ as files, not as strings, so that the linter and the tests see them as a user will.
"""

from __future__ import annotations

from pathlib import Path

from fedprune.config import RunSection
from fedprune.errors import ConfigError

TEMPLATE = Path(__file__).parent / "template"
FILES = ("task.py", "run.toml", "compose.yaml", "README.md")
PLACEHOLDER = "NAME"


def create(folder: Path) -> list[Path]:
    """Write the files into `folder`, which is made if need be. Raises `ConfigError` rather than overwrite anything."""
    name = run_name(folder)
    paths = [folder / file for file in FILES]
    taken = [path.name for path in paths if path.exists()]
    if taken or (folder.exists() and not folder.is_dir()):
        raise ConfigError(
            f"{folder} is in the way" if not taken else f"{folder} already holds {', '.join(taken)}",
            next_step="Name another folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.write_text((TEMPLATE / path.name).read_text(encoding="utf-8").replace(PLACEHOLDER, name), encoding="utf-8")
    return paths


def run_name(folder: Path) -> str:
    """The folder's own name, as a run and a compose project may be called: lower case, digits, '-' and '_'."""
    kept = "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in folder.resolve().name.lower())
    name = kept.strip("-_")[:64] or "run"
    return RunSection(name=name).name
