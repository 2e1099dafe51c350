"""Who got what: counted from the task itself, whatever form its data has."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from fedprune.errors import TaskError
from fedprune_lab import cli, shares
from fedprune_lab.shares import Shares

MODEL = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def model():
    return nn.Linear(4, 3)

def loss(model, batch):
    return model(batch[0]).mean()

def train_data(shard):
"""
FORMS = {
    "tensors": "    return TensorDataset(torch.ones(3, 4), torch.tensor([2, 0, 2]))",
    "tuples": "    return [(torch.ones(4), 2), (torch.ones(4), torch.tensor(0)), (torch.ones(4), 2)]",
    "dicts": "    return [{'x': torch.ones(4), 'label': n} for n in (2, 0, 2)]",
    "labels apart": ("    class Apart(list):\n        labels = [2, 0, 2]\n    return Apart([torch.ones(4)] * 3)"),
}
UNLABELLED = {
    "a number to predict": "    return TensorDataset(torch.ones(3, 4), torch.rand(3))",
    "no label": "    return [torch.ones(4)] * 3",
    "as many labels as examples": "    return TensorDataset(torch.ones(60, 4), torch.arange(60))",
}


def task(folder: Path, train_data: str) -> Path:
    path = folder / "task.py"
    path.write_text(MODEL + train_data + "\n")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_found(tmp_path: Path, form: str) -> None:
    found = shares.count(task(tmp_path, FORMS[form]), clients=2)
    assert found == Shares(labels=("0", "2"), counts=((1, 2), (1, 2)))


@pytest.mark.parametrize("form", UNLABELLED)
def test_without_labels_the_examples_count(tmp_path: Path, form: str) -> None:
    found = shares.count(task(tmp_path, UNLABELLED[form]), clients=2)
    assert found.labels == ("examples",)
    assert found.sizes in {(3, 3), (60, 60)}


def test_each_client_is_asked_for_its_own(tmp_path: Path) -> None:
    found = shares.count(
        task(tmp_path, "    return [(torch.ones(4), shard.index)] * (shard.index + shard.count)"), clients=3
    )
    assert found.counts == ((3, 0, 0), (0, 4, 0), (0, 0, 5))


def test_what_cannot_be_counted_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="`train_data` returns data that cannot be counted"):
        shares.count(task(tmp_path, "    return {0: torch.ones(2, 4)}.values()"), clients=1)
    with pytest.raises(TaskError, match=r"reading `train_data` failed at task\.py line .*ZeroDivisionError"):
        shares.count(
            task(
                tmp_path,
                "    class Bad(list):\n        def __getitem__(self, i):\n            1 / 0\n    return Bad([1])",
            ),
            clients=1,
        )


@pytest.mark.parametrize(
    ("counts", "skew"), [(((5, 5), (1, 1)), 0.0), (((5, 0), (0, 5)), 0.5), (((9, 0, 0), (0, 9, 0), (0, 0, 9)), 2 / 3)]
)
def test_skew(counts: tuple[tuple[int, ...], ...], skew: float) -> None:
    labels = tuple("abc"[: len(counts[0])])
    assert Shares(labels=labels, counts=counts).skew == pytest.approx(skew)


def test_the_picture_is_to_scale() -> None:
    drawn = ET.fromstring(shares.svg(Shares(labels=("a", "<b>"), counts=((10, 30), (5, 0))), "cut & dealt"))
    ns = "{http://www.w3.org/2000/svg}"
    bars = [r for r in drawn.iter(f"{ns}rect") if r.get("height") == "20"]
    assert [(r[0].text, float(r.get("width", ""))) for r in bars] == [
        ("a: 10", 140.0), ("<b>: 30", 420.0), ("a: 5", 70.0), ("<b>: 0", 0.0)
    ]  # fmt: skip
    assert float(bars[1].get("x", "")) == float(bars[0].get("x", "")) + 140.0
    assert [t.text for t in drawn.iter(f"{ns}text")][:3] == ["cut & dealt", "a", "<b>"]


def test_many_labels_keep_apart() -> None:
    paints = {shares._paint(place) for place in range(shares.MOST_LABELS)}
    assert len(paints) == shares.MOST_LABELS


def test_the_table_shows_each_client() -> None:
    console = Console(width=80)
    with console.capture() as seen:
        console.print(shares.table(Shares(labels=("a", "b"), counts=((1000, 0), (3, 4)))))
    text = seen.get()
    assert "1,000" in text
    assert "skew 0.29" in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = task(tmp_path, FORMS["tensors"])
    picture = tmp_path / "shares.svg"
    assert cli.run(["shares", str(path), "--count", "2", "--svg", str(picture)]) == 0
    assert str(picture) in capsys.readouterr().out
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert cli.run(["shares", str(path), "--count", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"labels": ["0", "2"], "counts": [[1, 2], [1, 2]], "sizes": [3, 3], "skew": 0.0}
