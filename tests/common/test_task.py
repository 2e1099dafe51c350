"""A task file is loaded once, whole, and whatever is wrong with it names the function and the line."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedprune.errors import LocalError, TaskError
from fedprune.task import Shard, UserCode, load_task

WriteTask = Callable[..., Path]


def test_a_good_file_gives_its_functions(write_task: WriteTask) -> None:
    path = write_task(metrics="def metrics(model, batch):\n    return {'one': 1.0}\n")
    task = load_task(path)
    assert task.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert task.path == path.resolve()
    assert type(task.model()).__name__ == "Sequential"
    assert len(task.train_data(Shard(index=0, count=1, path=path.parent, seed=1))) == 20
    assert task.metrics is not None
    assert task.metrics(task.model(), None) == {"one": 1.0}
    assert (task.test_data, task.optimizer, task.train) == (None, None, None)


def test_shards_are_counted_from_zero(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no such shard"):
        Shard(index=2, count=2, path=tmp_path, seed=0)


@pytest.mark.parametrize("name", ["model", "train_data", "loss"])
def test_a_missing_function_is_named(write_task: WriteTask, name: str) -> None:
    with pytest.raises(TaskError, match=f"task.py: task file has no `{name}`. Add `def {name}"):
        load_task(write_task(**{name: ""}))


def test_a_wrong_number_of_arguments_is_named(write_task: WriteTask) -> None:
    with pytest.raises(TaskError, match=r"`train_data` takes 0 arguments.*def train_data\(shard\)"):
        load_task(write_task(train_data="def train_data():\n    return []\n"))
    with pytest.raises(TaskError, match=r"`test_data` takes 1 arguments \(expected none\)"):
        load_task(write_task(extra="def test_data(path):\n    return []\n"))


def test_defaults_and_star_arguments_are_fine(write_task: WriteTask) -> None:
    task = load_task(write_task(model="def model(width=8, *rest):\n    return nn.Linear(4, width)\n"))
    assert task.model().out_features == 8


def test_a_value_in_place_of_a_function_is_named(write_task: WriteTask) -> None:
    with pytest.raises(TaskError, match=r"`model` is not a function \(got int, expected def model\(\)\)"):
        load_task(write_task(model="model = 3\n"))


def test_no_file_and_a_folder_are_no_task(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(TaskError, match="no task file"):
            load_task(path)


def test_a_syntax_error_gives_its_line(write_task: WriteTask) -> None:
    with pytest.raises(TaskError, match=r"the file failed at task.py line 1: SyntaxError"):
        load_task(write_task(head="def (\n"))


def test_what_fails_on_import_gives_its_line(write_task: WriteTask) -> None:
    with pytest.raises(TaskError, match=r"the file failed at task.py line 1: ModuleNotFoundError: .*no_such_module"):
        load_task(write_task(head="import no_such_module\n"))


def test_what_a_function_raises_keeps_its_line_and_cause(write_task: WriteTask) -> None:
    task = load_task(write_task(head="\n\nimport math\n", model="def model():\n    return math.sqrt(-1)\n"))
    with pytest.raises(TaskError, match=r"`model` failed at task.py line 7: ValueError") as caught:
        task.model()
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_failure_deep_in_a_library_is_shown_where_the_task_called_it(write_task: WriteTask) -> None:
    task = load_task(write_task(head="import json", model="def model():\n    return json.loads('{')\n"))
    with pytest.raises(TaskError, match=r"`model` failed at task.py line 4: JSONDecodeError"):
        task.model()


def test_interrupts_and_our_own_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), UserCode(tmp_path, "`model`"):
        raise KeyboardInterrupt
    with pytest.raises(LocalError, match=r"^ours$"), UserCode(tmp_path, "`model`"):
        raise LocalError("ours")


def test_neighbours_can_be_imported_and_do_not_leak(write_task: WriteTask, tmp_path: Path) -> None:
    paths = []
    for folder, width in (("a", 5), ("b", 7)):
        paths.append(write_task(f"{folder}/task.py", model="from net import model\n"))
        (tmp_path / folder / "net.py").write_text(
            f"from torch import nn\ndef model():\n    return nn.Linear(4, {width})\n"
        )
    before = list(sys.path)
    widths = [load_task(path).model().out_features for path in paths]
    assert widths == [5, 7]
    assert "net" not in sys.modules
    assert sys.path == before


def test_loading_twice_leaves_one_module(write_task: WriteTask) -> None:
    path = write_task()
    load_task(path)
    count = len(sys.modules)
    path.write_text(path.read_text() + "\n# changed\n")
    assert load_task(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(sys.modules) == count


def test_dataclasses_in_a_task_file_work(write_task: WriteTask) -> None:
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
    made = "@dataclass\nclass Width:\n    value: int = 9\n\ndef model():\n    return nn.Linear(4, Width().value)\n"
    assert load_task(write_task(head=head, model=made)).model().out_features == 9


def test_importing_fedprune_and_loading_need_no_torch(write_task: WriteTask) -> None:
    path = write_task(head="", model="def model():\n    return 1\n")
    code = f"import sys, fedprune; from fedprune.task import load_task; load_task({str(path)!r}); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
