"""What the network bench makes of reports: medians, the line's share, time to an accuracy."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from fedprune.errors import LocalError
from fedprune.report import RoundReport, RunReport
from fedprune.traffic import Traffic
from fedprune_lab.bench import network
from fedprune_lab.bench.network_plot import plot


def round_(number: int, *, up: int, accuracy: float | None = None, socket: bool = True) -> RoundReport:
    moved = Traffic(up=up, down=2 * up)
    return RoundReport(
        round=number,
        accuracy=accuracy,
        density=0.1,
        density_of_all=0.1,
        seconds=2.0,
        payload=moved,
        socket=moved if socket else None,
        dense_equivalent=Traffic(up=4000, down=4000),
    )


def report(*rounds: RoundReport, name: str = "dense") -> RunReport:
    return RunReport.of(name=name, outcome="finished", rounds=rounds, clients=2)


def test_a_row_is_the_median_round_of_one_client_after_density_has_settled() -> None:
    rounds = [round_(n, up=9999) for n in range(1, 7)] + [round_(n, up=up) for n, up in ((7, 500), (8, 520), (9, 80))]
    row = network.row(report(*rounds), rate_bit_per_s=1000.0, delay_s=0.04, target=0.9)
    assert (row.up_bytes, row.down_bytes, row.round_s) == (250, 500, 2.0)
    assert row.line_s == pytest.approx(8 * 750 / 1000)
    assert row.link_share == pytest.approx(row.line_s / 2.0)
    assert row.raw_line_s == pytest.approx(8 * 4000 / 1000)
    assert row.run_s == 18.0


def test_payload_stands_in_where_the_kernel_does_not_tell() -> None:
    assert network.moved(round_(1, up=7, socket=False)) == Traffic(up=7, down=14)


def test_time_to_an_accuracy_ends_with_the_round_that_reached_it() -> None:
    rounds = [round_(1, up=1), round_(2, up=1, accuracy=0.8), round_(3, up=1, accuracy=0.9), round_(4, up=1)]
    assert network.seconds_to(rounds, 0.85) == 6.0
    assert network.seconds_to(rounds, 0.8) == 4.0
    assert network.seconds_to(rounds, 0.95) is None


def test_the_table_has_a_line_for_each_run_and_the_csv_a_column_for_each_key(tmp_path: Path) -> None:
    rows = [
        network.row(report(round_(1, up=4, accuracy=0.5)), rate_bit_per_s=1e6, delay_s=0.0, target=goal)
        for goal in (0.4, 0.6)
    ]
    head, reached, missed = network.table(rows)
    assert head.split()[0] == "link"
    assert reached.startswith("1mbit")
    assert reached.split()[-3:] != missed.split()[-3:]
    network.write_csv(rows, tmp_path / "deep" / "rows.csv")
    with (tmp_path / "deep" / "rows.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["up_bytes"], first["to_accuracy_s"], second["to_accuracy_s"]) == ("2.0", "2.0", "")


def test_the_runs_differ_in_pruning_and_compression_only() -> None:
    dense, pruned, compressed = network.configs(rounds=5, clients=3, density=0.1)
    assert tuple(c.run.name for c in (dense, pruned, compressed)) == network.MODES
    assert set(dense.differences(pruned)) == {"run.name", "pruning.density", "pruning.every"}
    assert set(pruned.differences(compressed)) == {"run.name", "compression.up", "compression.down"}


def test_a_run_that_did_not_finish_is_no_result() -> None:
    runs = [report(round_(1, up=1), name=name) for name in network.MODES]
    network.check_modes(runs)
    with pytest.raises(LocalError, match="three runs"):
        network.check_modes([*runs[:2], replace(runs[2], outcome="failed")])
    with pytest.raises(LocalError, match="three runs"):
        network.check_modes(runs[:2])


def test_draws_a_panel_for_each_link(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib, which nothing else does")
    run = report(round_(1, up=1, accuracy=0.5), round_(2, up=1, accuracy=0.7))
    assert plot({1e6: [run], 1e7: [run]}, tmp_path / "network.png").endswith("network.png")
    assert (tmp_path / "network.png").read_bytes().startswith(b"\x89PNG")
