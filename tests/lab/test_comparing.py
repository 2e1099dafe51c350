"""The controls at equal weights, and a whole comparison by real processes."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from fedprune.errors import ConfigError, TaskError
from fedprune.task import load_task
from fedprune.torch import build_model
from fedprune_lab import digits
from fedprune_lab.comparing import Comparing, _narrow_task, checked_folds, read_seeds, task_of, width_for
from fedprune_lab.view import LineView

DIGITS = Path(digits.__file__)


def comparing(folder: Path, varied: str, *, rounds: int, pruning: str, folds: int = 0) -> Comparing:
    """Two clients and one seed; what is written goes to `folder`/out."""
    run_file = folder / "run.toml"
    run_file.write_text(f"[run]\nrounds = {rounds}\n[pruning]\n{pruning}\n")
    return Comparing(
        run_file=run_file,
        task=DIGITS,
        varied=[varied],
        seeds=[1],
        folds=folds,
        clients=2,
        out=folder / "out",
        view=LineView(Console(stderr=True, quiet=True)),
    )


def test_the_width_gives_as_many_weights() -> None:
    task = load_task(DIGITS)
    for weights in (2_000, 15_000, 100_000):
        hidden = task.model(width_for(task, weights))  # type: ignore[call-arg]  # it takes a width
        assert sum(p.numel() for p in hidden.parameters()) == pytest.approx(weights, rel=0.02)


def test_the_narrow_task_is_the_same_task_but_for_its_model(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(_narrow_task(DIGITS, 0.25))
    narrow, whole = load_task(file), load_task(DIGITS)
    assert [p.shape[0] for p in build_model(narrow).parameters()][:2] == [128, 128]
    assert narrow.test_data is not None
    assert whole.test_data is not None
    assert len(narrow.test_data()) == len(whole.test_data())


def test_a_model_that_takes_no_width_has_no_narrow_control(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(DIGITS.read_text().replace("def model(width: float = 1.0)", "def model()").replace("* width", ""))
    with pytest.raises(TaskError, match="takes 0 positional arguments but 1 was given"):
        width_for(load_task(file), 2_000)


def test_arguments_that_are_none(tmp_path: Path) -> None:
    assert read_seeds("3,1,3") == [3, 1]
    with pytest.raises(ConfigError, match="--seeds cannot be read"):
        read_seeds("one")
    run_file = tmp_path / "run.toml"
    run_file.write_text("[run]\nrounds = 2\n")
    with pytest.raises(ConfigError, match="there is no task file"):
        task_of(run_file, None)


def test_folds_are_held_out_in_turn_and_test_data_has_no_say(tmp_path: Path) -> None:
    pruning = "every = 1\nend = 0.9\nstart = 0.0"
    work = comparing(tmp_path, "pruning.density=0.5,0.9", rounds=2, pruning=pruning, folds=2)
    rows = work.run()
    assert {row.seeds for row in rows} == {2}
    reports = sorted((tmp_path / "out" / "strategies").glob("*/report.json"))
    assert [path.parent.name for path in reports] == [
        f"{name}-s1f{fold}" for name in ("dense", "density-0.5", "density-0.9") for fold in (0, 1)
    ]
    for path in reports:
        (run,) = json.loads(path.read_text())["runs"]
        assert run["accuracy_source"] == "clients' held-out share"
    assert work.notes[0].startswith("chosen over 2 folds: density 0.")
    with pytest.raises(ConfigError, match="one fold leaves nothing"):
        checked_folds(1)


def test_a_strategy_is_shown_beside_its_controls(tmp_path: Path) -> None:
    work = comparing(tmp_path, "pruning.preset=gradual", rounds=3, pruning="density = 0.2\nevery = 1")
    dense, gradual, random, narrow = work.run()
    assert [dense.strategy, gradual.strategy] == ["dense", "preset gradual"]
    assert (random.strategy, narrow.strategy) == ("random mask 0.2", f"narrower dense {gradual.weights:.0f}")
    assert random.density == pytest.approx(gradual.density, abs=1e-3)
    assert random.weights == pytest.approx(gradual.weights, rel=0.01)
    assert narrow.weights == pytest.approx(gradual.weights, rel=0.02)
    assert dense.flops is not None
    assert gradual.flops is not None
    assert gradual.flops < 0.25 * dense.flops
    assert gradual.bytes_up < dense.bytes_up
    whole = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["strategy"] for row in whole["outcomes"]] == [r.strategy for r in (dense, gradual, random, narrow)]
    assert (tmp_path / "out" / "compare.svg").read_text().startswith("<svg")
    assert (tmp_path / "out" / "compare.html").read_text().count("<td>control</td>") == 3
