"""`fedprune report` on files of its own making: what is found, what is printed, what is refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console

from fedprune.errors import LocalError
from fedprune.report import Final, LayerReport, RoundReport, RunReport, Span, document
from fedprune_lab.comparison import Comparison, Saving
from fedprune_lab.reading import find, read
from fedprune_lab.report import print_report

MakeRun = Callable[..., RunReport]


def printed(*runs: RunReport) -> str:
    text = io.StringIO()
    print_report(runs, Console(file=text, width=140, color_system=None))
    return text.getvalue()


@pytest.mark.parametrize("values", [RoundReport, RunReport, Final, Span, LayerReport, Comparison, Saving])
def test_every_key_is_documented(values: type) -> None:
    words = set(re.findall(r"\w+", (Path(__file__).parents[2] / "docs" / "report.md").read_text()))
    assert {field.name for field in fields(values)} <= words


@pytest.mark.parametrize("spelling", ["runs/x/report.json", "runs/x", "x"])
def test_a_run_is_found_by_file_folder_or_name(spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/report.json").write_text("{}")
    assert find(Path(spelling)) == Path("runs/x/report.json")


def test_a_run_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalError, match=r"no report for 'y'.*y/report\.json or runs/y/report\.json"):
        find(Path("y"))


def test_a_report_is_read_as_it_stands_and_as_runs(tmp_path: Path, make_dense: MakeRun) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document([make_dense()], mine=1)))
    whole, runs = read(path)
    assert whole["mine"] == 1
    assert runs == (make_dense(),)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot read"):
        read(tmp_path)


def test_one_run_is_printed_with_every_round_and_its_sums(make_pruned: MakeRun) -> None:
    text = printed(make_pruned())
    assert "pruned (finished)" in text
    assert all(f"\n{n:>5} " in text for n in range(1, 13))
    assert "accuracy is measured on coordinator test data" in text
    assert "25.0x up, 25.0x down" in text
    assert "9 rounds from 4" in text


def test_two_runs_are_held_against_both_baselines(make_dense: MakeRun, make_pruned: MakeRun) -> None:
    text = printed(make_dense(), make_pruned())
    assert "pruned against dense: how many times fewer socket bytes" in text
    assert "steady state, dense, same codec" in text
    assert "12.5x" in text
    assert "12.5 % of all weights are left (q), which explains 8.00x" in text
    assert "accuracy changed by +0.00 points" in text


def test_what_is_not_known_is_said_not_guessed(make_dense: MakeRun) -> None:
    short = RunReport.of(
        name="short",
        outcome="failed",
        rounds=make_dense(3, socket=False).rounds,
        warnings=["no update counted"],
        socket_unavailable="only Linux tells the bytes of a connection",
    )
    text = printed(short)
    assert "no socket bytes: only Linux tells the bytes of a connection" in text
    assert "no steady state: fewer than 8 rounds after the last mask change" in text
    assert "no update counted" in text


def test_a_run_without_rounds_is_printed_too() -> None:
    assert "empty (failed)" in printed(RunReport.of(name="empty", outcome="failed", rounds=[]))
