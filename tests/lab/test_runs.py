"""The list of runs and a run's log, from the files that a coordinator writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedprune.config import RunConfig, RunSection
from fedprune.errors import LocalError
from fedprune.report import RoundReport, document
from fedprune_lab import cli, runs

MakeRound = Callable[..., RoundReport]


def begin(folder: Path, *rows: RoundReport, planned: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / runs.CONFIG).write_text(RunConfig(run=RunSection(name=folder.name, rounds=planned)).to_toml())
    append(folder, *rows)


def append(folder: Path, *rows: RoundReport) -> None:
    with (folder / runs.ROUNDS).open("a") as file:
        file.writelines(row.to_json() + "\n" for row in rows)


def finish(folder: Path, make_dense: Callable[..., object]) -> None:
    (folder / "report.json").write_text(json.dumps(document([make_dense(3)])))  # type: ignore[list-item]  # a factory


def test_lists_runs_and_a_demo_s_two(tmp_path: Path, make_round: MakeRound, make_dense: Callable[..., object]) -> None:
    begin(tmp_path / "b", make_round(1), make_round(2))
    begin(tmp_path / "demo" / "dense")
    begin(tmp_path / "a", *(make_round(n) for n in (1, 2, 3)))
    finish(tmp_path / "a", make_dense)
    a, b, dense = runs.listed(tmp_path)
    assert (a.folder, a.state, a.rounds, a.planned) == (str(tmp_path / "a"), "finished", 3, 3)
    assert (a.accuracy, a.density, a.bytes) == (0.903, 1.0, 3000)
    assert (b.state, b.rounds, b.accuracy) == ("unfinished", 2, 0.902)
    assert (dense.state, dense.rounds, dense.accuracy, dense.bytes) == ("unfinished", 0, None, 0)


def test_the_list_on_a_terminal(tmp_path: Path, make_round: MakeRound, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path / "b", make_round(1))
    assert cli.run(["list", str(tmp_path)]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "rounds", "accuracy", "density", "bytes"]
    assert line.split() == [str(tmp_path / "b"), "unfinished", "1/3", "90.1", "%", "100.0", "%", "1.00", "kB"]


def test_the_list_as_json(tmp_path: Path, make_round: MakeRound, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path / "b", make_round(1))
    assert cli.run(["list", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == [runs.listed(tmp_path)[0].to_dict()]


def test_a_run_of_another_version_is_listed(tmp_path: Path, make_round: MakeRound) -> None:
    begin(tmp_path / "old", make_round(1))
    with (tmp_path / "old" / runs.CONFIG).open("a") as file:
        file.write("[gone]\nkey = 1\n")
    assert [row.planned for row in runs.listed(tmp_path)] == [3]


def test_an_empty_list_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_the_log_so_far(tmp_path: Path, make_round: MakeRound) -> None:
    begin(tmp_path / "b", make_round(1), make_round(2))
    lines = list(runs.log(tmp_path / "b", follow=False))
    assert [line.split()[:2] for line in lines] == [["round", "1/3"], ["round", "2/3"]]


def test_following_ends_with_the_run(tmp_path: Path, make_round: MakeRound, make_dense: Callable[..., object]) -> None:
    folder = tmp_path / "b"
    begin(folder, make_round(1))
    lines = runs.log(folder, follow=True)
    assert next(lines).startswith("round   1/3")
    append(folder, make_round(2))
    assert next(lines).startswith("round   2/3")
    append(folder, make_round(3))
    finish(folder, make_dense)
    assert [line.split()[1] for line in lines] == ["3/3"]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path, make_round: MakeRound) -> None:
    folder = tmp_path / "b"
    begin(folder, make_round(1))
    line = make_round(2).to_json()
    with (folder / runs.ROUNDS).open("a") as file:
        file.write(line[:20])
        file.flush()
        assert len(list(runs.log(folder, follow=False))) == 1
        file.write(line[20:] + "\n")
    assert len(list(runs.log(folder, follow=False))) == 2


def test_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="there is no such run"):
        list(runs.log(tmp_path / "nope", follow=False))


def test_the_log_as_json(tmp_path: Path, make_round: MakeRound, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tmp_path / "b", make_round(1), make_round(2))
    assert cli.run(["log", str(tmp_path / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["round"] for row in found["rounds"]] == [1, 2]
