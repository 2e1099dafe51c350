"""The user's task file: found, run, and held to its promises before anything is connected.

A task is Python that the user owns on both sides: the coordinator never ships code. Whatever goes wrong inside it
comes back as one `TaskError` that names the function and the line, because that is what its author can mend. torch is
not imported here; the bridge to it is `fedprune.torch`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from fedprune.errors import FedpruneError, LocalError, TaskError

if TYPE_CHECKING:
    from torch import Tensor, nn

REQUIRED = {"model": (), "train_data": ("shard",), "loss": ("model", "batch")}
OPTIONAL = {"test_data": (), "metrics": ("model", "batch"), "optimizer": ("model",), "train": ("model", "data", "ctx")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Which share of the data a client reads: its `index` among `count` clients, the `path` its owner gave it (the
    folder of the task file where none was given), and the run's `seed`."""

    index: int
    count: int
    path: Path
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise LocalError("there is no such shard", seen=self.index, expected=f"an index below {self.count}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The functions of a task file, each wrapped so that what it raises becomes a `TaskError`. The optional ones are
    None where the file does not have them. `digest` is the SHA-256 (hex) of the file."""

    path: Path
    digest: str
    model: Callable[[], nn.Module]
    train_data: Callable[[Shard], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    test_data: Callable[[], Any] | None
    metrics: Callable[[nn.Module, Any], dict[str, float]] | None
    optimizer: Callable[[nn.Module], Any] | None
    train: Callable[[nn.Module, Any, Any], int | None] | None


class UserCode:
    """Context manager around the user's own code: any `Exception` leaves it as a `TaskError` that names the function
    (or "the file") and the line of the task file it came through; our own errors and interrupts pass unchanged."""

    __slots__ = ("_path", "_what")

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, FedpruneError):
            raise TaskError(f"{self._what} failed {_where(self._path, error, tb)}: {_brief(error)}") from error


def load_task(path: Path | str) -> Task:
    """Run the task file and check the names and signatures of its functions.

    Modules beside the file can be imported at its top; they belong to this task alone. Loading the same file again
    replaces the first module. Raises `TaskError` naming what is missing or wrong.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise TaskError("there is no task file", seen=path, next_step="Give the path of a Python file with --task")
    source = path.read_bytes()
    module = _run(path, source)
    wanted = REQUIRED | {name: arguments for name, arguments in OPTIONAL.items() if hasattr(module, name)}
    found: dict[str, Any] = dict.fromkeys(OPTIONAL)
    found |= {name: _function(path, module, name, arguments) for name, arguments in wanted.items()}
    return Task(path=path, digest=hashlib.sha256(source).hexdigest(), **found)


def _run(path: Path, source: bytes) -> ModuleType:
    name = f"fedprune_task_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    if spec is None:
        raise TaskError("the task file cannot be made a module", seen=path)
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module  # pickle and dataclasses look their module up by name
    with UserCode(path, "the file"), _siblings(path.parent):
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own file, run at their word
    return module


@contextmanager
def _siblings(folder: Path) -> Iterator[None]:
    """Let the file import its neighbours, and forget them afterwards: another task may have a neighbour of that name."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if _lives_in(folder, name):
                del sys.modules[name]


def _lives_in(folder: Path, name: str) -> bool:
    top = sys.modules.get(name.partition(".")[0])
    origin = getattr(top, "__file__", None) or ""
    beside = name.partition(".")[0]
    return origin in (str(folder / f"{beside}.py"), str(folder / beside / "__init__.py"))


def _function(path: Path, module: ModuleType, name: str, arguments: tuple[str, ...]) -> Callable[..., Any]:
    """The function `name` of the file, checked and wrapped."""
    form = f"def {name}({', '.join(arguments)})"
    function = getattr(module, name, None)
    if function is None:
        raise TaskError(f"task file has no `{name}`", party=path.name, next_step=f"Add `{form}`")
    if not callable(function):
        raise TaskError(f"`{name}` is not a function", party=path.name, seen=type(function).__name__, expected=form)
    _check_arguments(path, name, function, arguments)
    guard = UserCode(path, f"`{name}`")

    def guarded(*values: Any) -> Any:
        with guard:
            return function(*values)

    return guarded


def _check_arguments(path: Path, name: str, function: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments)
    except TypeError:
        raise TaskError(
            f"`{name}` takes {len(signature.parameters)} arguments",
            party=path.name,
            expected=f"{len(arguments)} {arguments}" if arguments else "none",
            next_step=f"Write it as `def {name}({', '.join(arguments)})`",
        ) from None


def _where(path: Path, error: Exception, tb: TracebackType | None) -> str:
    """`at task.py line 12`: the deepest line of the task file that was running, else the deepest line at all."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"at {path.name} line {error.lineno}"
    frames = traceback.extract_tb(tb)
    own = [f for f in frames if f.filename == str(path)]
    last = (own or frames)[-1]
    return f"at {Path(last.filename).name} line {last.lineno}"


def _brief(error: Exception) -> str:
    """Type and first line of the message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
