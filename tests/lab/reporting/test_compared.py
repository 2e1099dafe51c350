"""A comparison's page: every measure plotted, controls marked, what was not measured left out."""

from __future__ import annotations

from dataclasses import replace

from fedprune_lab.outcomes import Outcome
from fedprune_lab.reporting import compared

ROW = Outcome(
    strategy="dense",
    seeds=3,
    accuracy=0.975,
    spread=0.012,
    density=1.0,
    weights=1000.0,
    flops=2000.0,
    bytes_up=4_000_000.0,
    bytes_down=2_000_000.0,
    measured_on="socket",
    seconds=12.0,
)
MINE = replace(ROW, strategy="preset <gradual>", density=0.1, weights=100.0, flops=None, accuracy=0.96)
NAMES = ("dense", "preset <gradual>", "random mask 0.1", "narrower dense 100")
ROWS = [ROW, MINE, replace(ROW, strategy=NAMES[2]), replace(ROW, strategy=NAMES[3])]


def test_each_strategy_has_a_point_for_each_measure_it_has() -> None:
    page = compared.document(ROWS, ["no <flops>"], name="task.py")
    assert page.count("<figure>") == 4
    assert page.count("<circle") == 4 * 4 - 1
    assert "means over 3 seeds" in page
    assert "preset &lt;gradual&gt;" in page
    assert "<gradual>" not in page
    assert "<li>no &lt;flops&gt;</li>" in page
    assert "src=" not in page


def test_controls_are_told_from_what_they_are_there_for() -> None:
    rows = compared.outcomes(ROWS).rows
    assert [row[:2] for row in rows] == list(zip(NAMES, ("control", "", "control", "control"), strict=True))
    assert rows[1][2:] == ("96.0 % ± 1.2", "10.0 %", "100", "-", "4.00 MB", "2.00 MB", "12.0 s")
