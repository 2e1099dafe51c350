"""Finding and running the benches of a checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedprune.errors import ConfigError
from fedprune_lab import benches

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "speed.py").write_text('"""How fast.\n\nMore."""\nimport sys\nsys.exit(len(sys.argv) + 2)\n')
    (tmp_path / "size.py").write_text('"""How large."""\n')
    return tmp_path


def test_lists_what_there_is(folder: Path) -> None:
    assert benches.available(folder) == {"size": "How large.", "speed": "How fast."}


def test_passes_arguments_and_exit_code_on(folder: Path) -> None:
    assert benches.run("size", folder=folder) == 0
    assert benches.run("speed", ["--quick"], folder=folder) == 4


def test_says_what_there_is_instead(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"got weight, expected size \| speed"):
        benches.run("weight", folder=folder)


def test_says_where_benches_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Call it in a checkout"):
        benches.available(tmp_path)


def test_every_bench_of_ours_says_what_it_measures() -> None:
    silent = [name for name, purpose in benches.available(ROOT / "bench").items() if not purpose]
    assert silent == []
