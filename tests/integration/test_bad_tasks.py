"""A client whose own task fails once it has joined: it says so in one sentence, and the others finish."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedprune.errors import TaskError

from .federation import DATA, HEAD, LOSS, MODEL, Federation, refused, run_file, task_file, until

HOPELESS = {
    "it raises": ("def train_data(shard):\n    return open('/nowhere')\n", r"`train_data` failed at bad\.py line \d+: FileNotFound"),
    "no examples": ("def train_data(shard):\n    return []\n", "`train_data` returns no examples"),
    "no data": ("def train_data(shard):\n    return None\n", "`train_data` returns no data"),
}  # fmt: skip
LATE = {
    "not a scalar": ("def loss(model, batch):\n    return model(batch[0])\n", "`loss` does not return a"),
    "no gradient": ("def loss(model, batch):\n    return model(batch[0]).mean().detach()\n", "`loss` does not lead back"),
    "it raises": ("def loss(model, batch):\n    return 1 / 0\n", "`loss` failed at bad.py line"),
}  # fmt: skip
TWO_OF_THREE = ("run.rounds=2", "clients.min_clients=2", "clients.grace_s=0.1")


def bad_task(folder: Path, *, data: str = DATA, loss: str = LOSS) -> Path:
    path = folder / "bad.py"
    path.write_text(f"{HEAD}\n{MODEL}\n{data}\n{loss}")
    return path


@pytest.mark.parametrize(("data", "sentence"), HOPELESS.values(), ids=HOPELESS)
async def test_a_client_without_data_goes_home_and_says_why(tmp_path: Path, data: str, sentence: str) -> None:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*TWO_OF_THREE)])
    async with federation.serving() as serving:
        for name in "ab":
            federation.start(name)
        bad = federation.start("bad", task=bad_task(tmp_path, data=data))
        error = await refused(bad)
        federation.sites.remove(bad)
        assert await federation.end(serving)
    assert isinstance(error, TaskError)
    with pytest.raises(TaskError, match=sentence):
        raise error
    assert [row.clients_counted for row in federation.rounds] == [2, 2]


@pytest.mark.parametrize(("loss", "sentence"), LATE.values(), ids=LATE)
async def test_a_client_that_cannot_train_declines_and_says_why(tmp_path: Path, loss: str, sentence: str) -> None:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*TWO_OF_THREE)])
    async with federation.serving() as serving:
        for name in "ab":
            federation.start(name)
        bad = federation.start("bad", task=bad_task(tmp_path, loss=loss))
        await until(lambda: any(sentence in text for text in bad.said), serving)
        assert await federation.end(serving)
    assert [row.clients_counted for row in federation.rounds] == [2, 2]
    assert any(sentence in warning for row in federation.rounds for warning in row.warnings)
