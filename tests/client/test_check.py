"""`fedprune check`: a good task is described, and each seeded mistake gives one sentence that names the function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedprune.errors import TaskError
from fedprune_client import app
from fedprune_client.check import bytes_at, check, describe

WriteTask = Callable[..., Path]

MISTAKES = {
    "missing model": ({"model": ""}, "task file has no `model`"),
    "train_data without arguments": (
        {"train_data": "def train_data():\n    return []\n"},
        "`train_data` takes 0 arguments",
    ),
    "loss not scalar": ({"loss": "def loss(model, batch):\n    return model(batch[0])\n"}, "`loss` does not return a"),
    "loss without gradient": (
        {"loss": "def loss(model, batch):\n    return model(batch[0]).mean().detach()\n"},
        "`loss` does not lead back",
    ),
    "no module": ({"model": "def model():\n    return [nn.Linear(4, 3)]\n"}, "`model` does not return a module"),
    "shapes by chance": (
        {"model": "import random\ndef model():\n    return nn.Linear(4, random.randint(3, 10**6))\n"},
        "`model` gives another model each time: model differs at tensor 'weight'",
    ),
    "no data": ({"train_data": "def train_data(shard):\n    return []\n"}, "`train_data` returns no examples"),
    "no test data": ({"test_data": "def test_data():\n    return []\n"}, "`test_data` returns no examples"),
    "raises": ({"loss": "def loss(model, batch):\n    return 1 / 0\n"}, "`loss` failed at task.py line"),
    "metric not finite": (
        {"metrics": "def metrics(model, batch):\n    return {'top': float('nan')}\n"},
        "'top' is not a finite number",
    ),
}


@pytest.mark.parametrize(("parts", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gives_one_sentence(
    write_task: WriteTask, capsys: pytest.CaptureFixture[str], parts: dict[str, str], message: str
) -> None:
    path = write_task(**parts)
    with pytest.raises(TaskError, match=message):
        check(path)
    assert app.main(["check", str(path)]) == 4
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_good_task_is_described(write_task: WriteTask) -> None:
    test_data = "def test_data():\n    return TensorDataset(torch.ones(7, 4), torch.zeros(7).long())\n"
    report = check(write_task(test_data=test_data))
    assert (report.parameters, report.prunable, report.protected) == (139, 96, ("3.weight",))
    assert (report.examples, report.held_out, report.test_examples) == (33, 4, 7)
    assert (report.dense_bytes, dict(report.weighs)) == (556, {0.5: 364, 0.1: 212, 0.05: 192})
    assert report.train_loss == pytest.approx(1.1, abs=0.4)
    text = describe(report)
    assert "139 weights in 6 tensors, 96 can be pruned; protected: 3.weight" in text
    assert "at 0.1    212 bytes, 2.6 times fewer" in text


def test_a_task_with_its_own_loop_and_ready_batches_is_described(write_task: WriteTask) -> None:
    data = "def train_data(shard):\n    return {0: (torch.ones(2, 4), torch.zeros(2).long())}.values()\n"
    own = "def train(model, data, ctx):\n    for batch in ctx.batches(data):\n        loss(model, batch).backward()\n    return 2\n"
    report = check(write_task(train_data=data, train=own))
    assert (report.examples, report.held_out, report.test_examples, report.train_loss) == (None, None, None, None)
    assert "no known number of examples for training" in describe(report)
    assert "your own loop ran" in describe(report)


def test_the_shard_is_that_of_the_flags(write_task: WriteTask, tmp_path: Path) -> None:
    data = "def train_data(shard):\n    raise ValueError(f'{shard.index} {shard.count} {shard.path.name}')\n"
    with pytest.raises(TaskError, match="ValueError: 2 5 here"):
        check(write_task(train_data=data), data=tmp_path / "here", index=2, count=5)


def test_json_is_one_object(write_task: WriteTask, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["check", str(write_task()), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dense_bytes"] == 556
    assert found["weighs"] == {"0.5": 364, "0.1": 212, "0.05": 192}


def test_sizes_count_buffers_and_what_is_never_pruned(write_task: WriteTask) -> None:
    from fedprune.tensor import Role, Schema, TensorSpec

    schema = Schema(
        tensors=(
            TensorSpec(name="w", shape=(10, 10)),
            TensorSpec(name="b", shape=(10,), role=Role.FREE),
            TensorSpec(name="mean", shape=(10,), role=Role.BUFFER),
            TensorSpec(name="n", shape=(), dtype="int64", role=Role.COUNTER),
        )
    )
    assert [bytes_at(schema, d) for d in (1.0, 0.1)] == [4 * 120 + 8, 4 * 30 + 8]
