"""A report worth sending: one file that needs no other, and the same figures as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedprune.errors import LocalError
from fedprune.report import FlopsReport, LayerReport, RunReport, TrialReport, document
from fedprune_lab import cli, figures
from fedprune_lab.reporting import files, html, text
from fedprune_lab.reporting.tables import BESIDE, tables

MakeRun = Callable[..., RunReport]


class Page(HTMLParser):
    """What a browser would read: open tags, text, and what it would fetch."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.fetched: list[str] = []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "rect", "line", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def pruned(make_pruned: MakeRun) -> RunReport:
    """A pruned run whose second round says what it did to two layers."""
    run = make_pruned()
    layers = (
        LayerReport(name="small", size=8, alive=4, before=8, score="magnitude"),
        LayerReport(name="large<b>", size=64, alive=5, before=64, score="magnitude", floor_trimmed=2),
    )
    rows = [replace(row, layers=layers if row.mask_changed else ()) for row in run.rounds]
    return replace(run, rounds=tuple(rows), config={"run": {"name": "x", "init": None}}, environment={"cores": "2"})


def test_one_file_needs_no_other(make_dense: MakeRun, pruned: RunReport) -> None:
    page = Page(html.document([make_dense(), pruned], {"pruned": {"small": b"png"}}))
    assert page.fetched == ["data:image/png;base64,cG5n"]
    content = html.document([pruned], {})
    assert "<script" not in content
    assert "url(" not in content
    assert "//" not in re.sub(r"<pre>.*?</pre>", "", content, flags=re.DOTALL)


def test_every_table_is_in_both_documents(make_dense: MakeRun, pruned: RunReport) -> None:
    runs = [make_dense(), pruned]
    page, marked = Page(html.document(runs, {})), text.markdown(runs)
    found = tables(runs)
    assert len(found) >= 6
    for table in found:
        assert table.title in page.text
        assert table.title in marked
        for row in table.rows:
            for cell in row:
                assert cell in page.text
                assert cell in marked


def test_the_run_file_and_the_machine_are_told(pruned: RunReport) -> None:
    for content in (html.document([pruned], {}), text.markdown([pruned])):
        assert "[run]\nname = " in content
        assert "cores" in content


def test_decisions_say_what_was_cut(pruned: RunReport) -> None:
    (decisions,) = [table for table in tables([pruned]) if "decisions" in table.title]
    assert decisions.rows == (("2", "100.0 % to 12.5 %", "63", "0", "90.2 %"),)


def test_operations_are_told_for_the_model_and_each_layer(pruned: RunReport) -> None:
    counted = replace(pruned, flops=FlopsReport(dense=1440.0, left=180.0, per_weight={"small": 20.0, "large<b>": 20.0}))
    (layers,) = [table for table in tables([counted]) if table.title.endswith("layers")]
    column = layers.head.index("operations")
    assert [row[column] for row in layers.rows] == ["80", "100"]
    assert "for an example, 12.5 % of 1,440 dense" in Page(html.document([counted], {})).text
    assert "| operations for an example | 180 |" in text.markdown([counted])


def test_operations_that_nobody_counted_are_explained(pruned: RunReport) -> None:
    page = Page(html.document([replace(pruned, flops_unavailable="there is no example")], {}))
    assert "operations are not counted: there is no example" in page.text


def test_a_run_alone_names_its_controls(pruned: RunReport) -> None:
    (controls,) = [table for table in tables([pruned]) if "controls" in table.title]
    ratio = pruned.totals.socket_ratio
    assert ratio is not None
    assert controls.rows[0] == ("whole run, raw dense", *(figures.times(r) for r in (ratio.up, ratio.down, ratio.both)))
    assert [row[0] for row in controls.rows][1:] == ["steady state, raw dense", BESIDE]


def test_beside_a_dense_run_both_controls_are_held_against(make_dense: MakeRun, pruned: RunReport) -> None:
    (controls,) = [table for table in tables([make_dense(), pruned]) if "control" in table.title]
    assert [row[0] for row in controls.rows][:2] == ["whole run, raw dense", "whole run, dense, same codec"]


def test_what_each_client_holds_is_told_where_they_differ(pruned: RunReport) -> None:
    assert not [table for table in tables([pruned]) if "client holds" in table.title]
    (held,) = [
        t for t in tables([replace(pruned, client_densities={"0": 0.25, "1": 1.0})]) if "client holds" in t.title
    ]
    assert held.rows == (("0", "25.0 %"), ("1", "100.0 %"))


def test_a_step_on_approval_says_what_it_cost(pruned: RunReport) -> None:
    tried = TrialReport(
        round=2, density_before=1.0, density_tried=0.5, decision="rejected", drop=0.02, low=0.01, high=0.03, pairs=4
    )
    rows = [replace(row, trial=tried if row.round == 4 else None) for row in pruned.rounds]
    (steps,) = [table for table in tables([replace(pruned, rounds=tuple(rows))]) if "approval" in table.title]
    assert steps.rows == (("4", "100.0 % to 50.0 %", "rejected", "+2.00", "+1.00 to +3.00", "4"),)


def test_layers_keep_their_density_until_they_are_pruned(pruned: RunReport) -> None:
    found = dict(html.layer_densities(pruned))
    assert found["small"][:3] == [1.0, 0.5, 0.5]
    assert len(found["small"]) == len(pruned.rounds)


def test_the_csv_has_the_rounds_of_the_report(make_dense: MakeRun, pruned: RunReport) -> None:
    dense = make_dense(socket=False)
    rows = list(csv.DictReader(io.StringIO(text.rounds_csv([dense, pruned]))))
    assert len(rows) == len(dense.rounds) + len(pruned.rounds)
    first, last = rows[0], rows[-1]
    assert (first["run"], first["socket_up"], first["payload_up"]) == ("dense", "", "490")
    assert (last["run"], last["socket_up"], last["density"]) == ("pruned", "40", "0.125")
    assert (
        sum(int(row["dense_equivalent_up"]) for row in rows[len(dense.rounds) :]) == pruned.totals.dense_equivalent.up
    )


def kept(folder: Path, *runs: RunReport) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(document(runs)))
    return folder


def test_a_report_lies_beside_the_run_with_pictures_of_its_masks(tmp_path: Path, pruned: RunReport) -> None:
    folder = kept(tmp_path / "one", pruned)
    save_file({"small": np.eye(4, 2, dtype=np.float32), "large<b>": np.ones((8, 8), np.float32)}, folder / files.MODEL)
    runs, written = files.write([folder], None)
    assert runs == (pruned,)
    assert [path.name for path in written] == ["report.html", "report.md", "rounds.csv"]
    page = Page((folder / "report.html").read_text())
    assert len(page.fetched) == 2
    assert list(files.masks(folder, pruned)) == ["large<b>", "small"]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, make_dense: MakeRun) -> None:
    runs, _ = files.write([kept(tmp_path / "a", make_dense()), kept(tmp_path / "b", make_dense())], tmp_path / "out")
    assert [run.name for run in runs] == ["a", "b"]
    with pytest.raises(LocalError, match="one name"):
        files.write([tmp_path / "a", tmp_path / "a"], tmp_path / "out")


def test_a_model_that_is_none_is_named(tmp_path: Path, pruned: RunReport) -> None:
    folder = kept(tmp_path / "one", pruned)
    (folder / files.MODEL).write_bytes(b"nonsense")
    with pytest.raises(LocalError, match="cannot read"):
        files.write([folder], None)


def test_the_command_writes_and_prints(tmp_path: Path, make_dense: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept(tmp_path / "one", make_dense())
    assert cli.run(["report", str(folder), "--out", str(tmp_path / "there")]) == 0
    assert figures.percent(make_dense().final.accuracy) in capsys.readouterr().out
    assert (tmp_path / "there" / "report.html").is_file()
    assert cli.run(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "report.json").read_text())
    assert not (folder / "report.html").exists()
    assert cli.run(["report", str(folder), str(folder), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 2


def test_runs_of_one_machine_say_once_what_it_is(make_dense: MakeRun, pruned: RunReport) -> None:
    same, other = (
        replace(make_dense(), environment={"cores": "2"}),
        replace(make_dense(), name="far", environment={"cores": "8"}),
    )
    found = text.environments([same, pruned, other])
    assert [(table.title, table.rows) for table in found] == [
        ("dense, pruned: environment", (("cores", "2"),)),
        ("far: environment", (("cores", "8"),)),
    ]
