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


def test_what_a_bench_says_and_keeps_as_one_object(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keeping = "out.mkdir(); (out / 'size.json').write_text('{\"bytes\": 3}')"
    (folder / "size.py").write_text(
        f'"""How large."""\nfrom pathlib import Path\nout = Path(__file__).parent / "out"\n{keeping}\nprint("3 bytes")\n'
    )
    found = benches.told("size", folder=folder)
    assert found == {"bench": "size", "exit_code": 0, "results": {"size": {"bytes": 3}}, "said": ["3 bytes"]}
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "3 bytes\n")
    # What an earlier bench had kept is none of this one's.
    assert benches.told("speed", folder=folder) == {"bench": "speed", "exit_code": 3, "results": {}, "said": []}


def test_says_what_there_is_instead(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"got weight, expected size \| speed"):
        benches.run("weight", folder=folder)


def test_says_where_benches_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Call it in a checkout"):
        benches.available(tmp_path)


def test_every_bench_of_ours_says_what_it_measures() -> None:
    silent = [name for name, purpose in benches.available(ROOT / "bench").items() if not purpose]
    assert silent == []
