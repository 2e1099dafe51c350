"""The dashboard asks for figures that the coordinator gives, and the files about it agree with each other."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "observability" / "dashboard.json"
METRIC = re.compile(r"\b(?:fedprune|process)_\w+")


def test_every_figure_on_the_dashboard_is_in_the_list_of_metrics() -> None:
    known = set(METRIC.findall((ROOT / "docs" / "metrics.md").read_text()))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name for p in panels for t in p["targets"] for name in METRIC.findall(t["expr"])}
    assert asked
    assert {name for name in asked if not name.startswith("process_")} <= known


def test_panels_lie_side_by_side() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len(places) == len({p["id"] for p in panels})


def test_the_dashboard_stands_on_the_data_source_that_is_provisioned() -> None:
    source = (DASHBOARD.parent / "grafana" / "datasources" / "prometheus.yaml").read_text()
    uids = {p["datasource"]["uid"] for p in json.loads(DASHBOARD.read_text())["panels"]}
    assert uids == {"prometheus"}
    assert "uid: prometheus" in source
