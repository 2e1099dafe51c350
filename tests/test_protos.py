"""The committed wire code is what the pinned generator makes of the .proto files today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROBE = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import generate; generate.generate(pathlib.Path(sys.argv[2]))"


def contents(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.suffix in {".py", ".pyi"}]
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in files}


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(ROOT / "protos"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made = contents(tmp_path / "fedprune" / "v1")
    committed = contents(ROOT / "common" / "fedprune" / "v1")
    assert sorted(made) == sorted(committed)
    stale = [name for name in made if made[name] != committed[name]]
    assert not stale, "run: make protos"
