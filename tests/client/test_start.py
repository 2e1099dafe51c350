"""Starting a client: what is wrong with the task is one sentence that names the function, before anything is dialled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedprune_client import app

WriteTask = Callable[..., Path]

MISTAKES = {
    "no such function": ({"loss": ""}, "task file has no `loss`"),
    "too few arguments": ({"train_data": "def train_data():\n    return []\n"}, "`train_data` takes 0 arguments"),
    "not a function": ({"loss": "loss = 3\n"}, "`loss` is not a function"),
    "not a module": ({"model": "def model():\n    return [nn.Linear(4, 3)]\n"}, "`model` does not return a module"),
    "it raises": ({"model": "def model():\n    return nn.Linear(4, '3')\n"}, "`model` failed at task.py line"),
    "no Python": ({"head": "import torch from nn\n"}, "the file failed at task.py line 1: SyntaxError"),
}


@pytest.mark.parametrize(("parts", "sentence"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_mistake_is_one_sentence_on_both_ways_in(
    verb: str,
    parts: dict[str, str],
    sentence: str,
    write_task: WriteTask,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_task(**parts)
    state = tmp_path / "state"
    # Nobody listens on port 1: a client that dialled first would say that it looks for its coordinator.
    words = {"check": ["check", str(path)], "run": ["run", "--server", "127.0.0.1:1", "--task", str(path)]}[verb]
    assert app.main([*words, *(["--state", str(state)] if verb == "run" else [])]) == 4
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1
    assert not state.exists()
