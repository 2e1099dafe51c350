"""The demo's parts without its processes; tests/integration/test_demo.py runs the whole."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from fedprune.errors import LocalError
from fedprune.report import RoundReport, RunReport, document
from fedprune_lab.demo import Plan, print_outcome, run_demo
from fedprune_lab.federation import Federation, Tail, free_folder
from fedprune_lab.view import LineView

MakeRun = Callable[..., RunReport]
MakeRound = Callable[..., RoundReport]


def console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=100, color_system=None), text


def test_the_two_runs_differ_in_name_and_density_only(tmp_path: Path) -> None:
    dense, pruned = Plan(out=tmp_path, density=0.2, rounds=30).configs()
    assert (dense.run.name, pruned.run.name) == ("dense", "pruned")
    assert (dense.pruning.density, pruned.pruning.density) == (1.0, 0.2)
    same = {"run": dense.run, "pruning": dense.pruning}
    assert pruned.model_copy(update=same) == dense
    assert dense.clients.expect == 4


def test_a_demo_never_writes_over_another(tmp_path: Path) -> None:
    assert free_folder(tmp_path, "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert free_folder(tmp_path, "demo") == tmp_path / "demo-3"


def test_a_tail_gives_each_round_once_and_waits_for_the_end_of_a_line(tmp_path: Path, make_round: MakeRound) -> None:
    path = tmp_path / "rounds.jsonl"
    tail = Tail(path)
    assert tail.rows() == []
    first, second = make_round(1).to_json() + "\n", make_round(2).to_json() + "\n"
    path.write_text(first + second[:40])
    assert tail.rows() == [make_round(1)]
    assert tail.rows() == []
    path.write_text(first + second)
    assert tail.rows() == [make_round(2)]


def test_the_outcome_shows_both_runs_and_says_each_note_once(
    tmp_path: Path, make_dense: MakeRun, make_pruned: MakeRun
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(document([make_dense(), make_pruned()])))
    out, text = console()
    print_outcome(Plan(out=tmp_path), out)
    shown = text.getvalue()
    assert "pruned against dense" in shown
    assert shown.count("accuracy is measured on coordinator test data") == 1
    assert f"fedprune report {tmp_path}" in shown.replace("\n", "")


def test_a_cold_coordinator_that_fails_ends_the_clients_too(tmp_path: Path) -> None:
    out, text = console()
    plan = Plan(out=tmp_path / "run", task=tmp_path / "no-such-task.py")
    looked: list[int] = []
    federation = Federation(
        configs=plan.configs(), task=plan.task, clients=2, out=plan.out, cold=True, look=looked.append
    )
    with pytest.raises(LocalError, match="failed with exit code"):
        federation.run(LineView(out))
    assert "starting 1 coordinator and 2 clients" in text.getvalue()
    assert len(set(looked)) <= 1


def test_a_program_that_fails_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    out, text = console()
    plan = Plan(out=tmp_path / "demo", task=tmp_path / "no-such-task.py", clients=1)
    with pytest.raises(LocalError, match="failed with exit code") as caught:
        run_demo(plan, out)
    assert "no-such-task.py" in str(caught.value)
    assert "starting 1 coordinator and 1 clients" in text.getvalue()
