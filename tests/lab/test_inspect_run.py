"""A run's layers, from the report it left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedprune.report import FlopsReport, LayerReport, RoundReport, RunReport, TrialReport, document
from fedprune.traffic import Traffic
from fedprune_lab import cli, inspect_run


def changed(number: int, first: int, second: int) -> RoundReport:
    layers = (LayerReport(name="a", size=1000, alive=first), LayerReport(name="long.name", size=50, alive=second))
    moved = Traffic(up=1, down=1)
    return RoundReport(
        round=number,
        density=0.25,
        density_of_all=0.3,
        seconds=1.0,
        payload=moved,
        dense_equivalent=moved,
        mask_version=number,
        mask_changed=True,
        layers=layers,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    quiet = replace(changed(2, 500, 50), mask_changed=False, layers=())
    rounds = [changed(1, 500, 50), quiet, changed(3, 125, 25)]
    report = RunReport.of(name="ward", outcome="finished", rounds=rounds)
    (tmp_path / "report.json").write_text(json.dumps(document([report])))
    return tmp_path


def test_a_column_for_each_change(folder: Path) -> None:
    assert list(inspect_run.lines(inspect_run.run(folder))) == [
        "ward: 2 changes of the mask, density 25.0% in the end",
        "layer         weights   round 1   round 3",
        "a               1,000     50.0%     12.5%",
        "long.name          50    100.0%     50.0%",
    ]


def test_operations_follow_the_layers(tmp_path: Path) -> None:
    flops = FlopsReport(dense=2_100.0, left=300.0, per_weight={"a": 2.0, "long.name": 2.0})
    report = RunReport.of(name="ward", outcome="finished", rounds=[changed(3, 125, 25)], flops=flops)
    (tmp_path / "report.json").write_text(json.dumps(document([report])))
    assert list(inspect_run.lines(inspect_run.run(tmp_path)))[-3:] == [
        "operations for an example: 300 of 2,100, 14.3%",
        "  a                   250 of 2,000",
        "  long.name            50 of 100",
    ]
    assert inspect_run.run(tmp_path)["flops"]["left"] == 300.0


def test_steps_on_approval_are_told(tmp_path: Path) -> None:
    trial = TrialReport(
        round=2, density_before=1.0, density_tried=0.5, decision="rejected", drop=0.125, low=0.1, high=0.15, pairs=3
    )
    rounds = [replace(changed(3, 500, 50), trial=trial)]
    report = RunReport.of(name="ward", outcome="finished", rounds=rounds, pruning_outcome="nothing could be pruned")
    (tmp_path / "report.json").write_text(json.dumps(document([report])))
    assert list(inspect_run.lines(inspect_run.run(tmp_path)))[-2:] == [
        "density 0.5 tried with round 2: rejected after round 3, 12.50 points lost over 3 clients",
        "nothing could be pruned",
    ]


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(folder), "--json"]) == 0
    masks = json.loads(capsys.readouterr().out)["masks"]
    assert [(m["version"], m["round"], m["layers"]["a"]) for m in masks] == [
        (1, 1, {"alive": 500, "size": 1000}),
        (3, 3, {"alive": 125, "size": 1000}),
    ]


def test_a_dense_run_has_no_layers_to_show(tmp_path: Path) -> None:
    report = RunReport.of(name="ward", outcome="finished", rounds=[])
    (tmp_path / "report.json").write_text(json.dumps(document([report])))
    assert list(inspect_run.lines(inspect_run.run(tmp_path))) == [
        "ward: 0 changes of the mask, density 100.0% in the end"
    ]
