"""Runs that were over are found by their reports; what cannot be read stands in nobody's way."""

from __future__ import annotations

import json
import os
from pathlib import Path

from fedprune.config import RunConfig
from fedprune.report import Outcome, RunReport, document
from fedprune_server.earlier import earlier_runs
from fedprune_server.workshop import Workshop

TASK = """
from torch import nn
def model(): return nn.Linear(4, 2)
def train_data(shard): raise NotImplementedError
def loss(model, batch): raise NotImplementedError
"""


def test_the_latest_report_of_each_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    workshop = Workshop.open(tmp_path / "task.py", seed=1)
    configs = [RunConfig.loads(f"[run]\nname = '{name}'\n") for name in ("one", "broken", "gone")]
    ended: dict[str, Outcome] = {"one": "finished", "one-2": "stopped", "one-more": "failed"}
    for number, (folder, outcome) in enumerate(ended.items()):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "report.json"
        file.write_text(json.dumps(document([RunReport.of(name="one", outcome=outcome, rounds=[])])))
        os.utime(file, (number, number))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text("{")
    ((begun, report),) = earlier_runs(tmp_path, configs, workshop)
    assert (begun.folder, begun.config, report.outcome) == (tmp_path / "one-2", configs[0], "stopped")
    assert [spec.name for spec in begun.schema.tensors] == ["weight", "bias"]
