"""The table of a comparison: means and spreads of what the reports say, and nothing else."""

import csv
import io
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from fedprune.report import RoundReport, RunReport
from fedprune.traffic import Traffic
from fedprune_lab.outcomes import Outcome, outcome, table, to_csv, to_dict
from fedprune_lab.plot import picture


def report(accuracy: float | None, up: int, *, socket: bool = True) -> RunReport:
    row = RoundReport(
        round=1,
        accuracy=accuracy,
        density=0.5,
        density_of_all=0.6,
        seconds=2.0,
        payload=Traffic(up=up - 10, down=up),
        socket=Traffic(up=up, down=2 * up) if socket else None,
        dense_equivalent=Traffic(up=9, down=9),
    )
    return RunReport.of(name="r", outcome="finished", rounds=[row], parameters=1000)


def test_means_over_seeds() -> None:
    row = outcome("snip", [report(0.8, 100), report(0.9, 300)], [10.0, 30.0])
    assert row.accuracy == pytest.approx(0.85)
    assert row.spread == pytest.approx(0.05 * 2**0.5)
    assert (row.bytes_up, row.bytes_down, row.measured_on) == (200, 400, "socket")
    assert (row.weights, row.flops, row.seconds, row.seeds) == (600, 20, 2.0, 2)


def test_one_seed_has_no_spread_and_what_was_not_measured_is_not_guessed() -> None:
    row = outcome("x", [report(None, 100, socket=False)], [None])
    assert (row.accuracy, row.spread, row.flops, row.measured_on, row.bytes_up) == (None, None, None, "payload", 90)
    mixed = outcome("x", [report(0.5, 100), report(0.5, 100, socket=False)], [None, None])
    assert mixed.measured_on == "payload"


def rows() -> list[Outcome]:
    first = outcome("snip <0.1>", [report(0.8, 100), report(0.9, 300)], [10.0, 30.0])
    return [first, replace(first, strategy="dense", accuracy=0.9, spread=None), replace(first, accuracy=None)]


def test_table_csv_and_json_say_the_same() -> None:
    lines = table(rows()).splitlines()
    assert lines[1].startswith("snip <0.1>")
    assert "85.00% +- 7.07%" in lines[1]
    assert "600" in lines[1]
    assert lines[3].split()[2] == "-"
    read = list(csv.DictReader(io.StringIO(to_csv(rows()))))
    assert [r["strategy"] for r in read] == ["snip <0.1>", "dense", "snip <0.1>"]
    assert float(read[0]["bytes_up"]) == to_dict(rows(), [])["outcomes"][0]["bytes_up"] == 200


def test_the_picture_is_an_svg_with_a_point_for_each_that_has_an_accuracy() -> None:
    root = ElementTree.fromstring(picture(rows()))
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == 4
    x, y = (float(circles[0].attrib[k]) for k in ("cx", "cy"))
    assert 60 <= x <= 620
    assert 20 <= y <= 340
    assert "snip <0.1>" in "".join(root.itertext())
    ElementTree.fromstring(picture([]))
