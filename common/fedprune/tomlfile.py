"""From a TOML file to a checked value, with errors a person can act on.

`tomllib` says nothing about lines and pydantic nothing about files; a user wants both. This module joins them: the
first thing wrong in a file is reported with the file, the line, the key and, for a misspelt key, the nearest right
one. It knows no particular file: the model is an argument.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedprune.errors import ConfigError, LocalError, StoreError, TaskError

Model = TypeVar("Model", bound=BaseModel)
Path = tuple[str, ...]

_NAME = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_DOTTED = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_HEADER = re.compile(rf"^\s*\[\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"^\s*({_DOTTED})\s*=")

# pydantic speaks of dictionaries; a TOML file has sections.
_WORDS = {"model_type": "a section with keys"}


class KeyProblem(ValueError):
    """What a model's validator raises about one key: "key" of its section, or "section.key" of the file."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


def parse(text: str, model: type[Model], *, name: str, overrides: Sequence[str] = ()) -> Model:
    """Read TOML `text` as a `model` of sections and keys. `overrides` are "section.key=value", applied last.

    Raises `ConfigError` naming the place: `name` with the line, or the override.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}") from None
    places = {path: f"{name} line {line}" for path, line in key_lines(text).items()}
    for override in overrides:
        path, value = parse_override(override)
        _put(data, path, value, override)
        places[path] = f"--set {override}"
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: _order(e, list(places)))
        _explain(first, model, places, name)


def key_lines(text: str) -> dict[Path, int]:
    """Where each section and key stands: dotted path -> line, counted from 1. The first mention counts."""
    lines: dict[Path, int] = {}
    section: Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = _split(header[1])
            lines.setdefault(section, number)
        elif key := _KEY.match(line):
            lines.setdefault(section + _split(key[1]), number)
    return lines


@contextmanager
def naming_lines(files: Sequence[FilePath]) -> Iterator[None]:
    """What is raised inside about a "section.key" of one of `files` names its line too, as `parse` does. For problems
    that only show against the model."""
    try:
        yield
    except LocalError as error:
        places = [place for file in files if (place := _place(str(error), file))]
        if not places or isinstance(error, (StoreError, TaskError)):
            raise
        raise ConfigError(f"{places[0]}: {error}") from error


def _place(said: str, file: FilePath) -> str | None:
    """Where the first section and key that `said` mentions stands in `file`."""
    lines = key_lines(file.read_text(encoding="utf-8"))
    for section, key in re.findall(r"\b([a-z]+)\.([a-z_]+)", said):
        if line := lines.get((section, key)):
            return f"{file} line {line}"
    return None


def parse_override(override: str) -> tuple[Path, object]:
    """("pruning", "density"), 0.1 from "pruning.density=0.1". What is no TOML value is taken as text, because
    a shell eats quotes."""
    dotted, equals, text = override.partition("=")
    path = tuple(part.strip() for part in dotted.split("."))
    if not equals or len(path) != 2 or not all(path):
        raise ConfigError(
            f"--set {override} cannot be read", expected="section.key=value", next_step="Example: pruning.density=0.1"
        )
    try:
        return path, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return path, text.strip()


def _put(data: dict[str, Any], path: Path, value: object, override: str) -> None:
    section, key = path
    inside = data.setdefault(section, {})
    if not isinstance(inside, dict):
        raise ConfigError(f"--set {override} cannot be applied: [{section}] is no section of the file")
    inside[key] = value


def _split(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_NAME, dotted))


def _named(error: ErrorDetails) -> Path:
    """The section and key an error is about; positions inside a list are left out."""
    path = tuple(part for part in error["loc"] if isinstance(part, str))[:2]
    problem = error.get("ctx", {}).get("error")
    return (*path, *problem.key.split("."))[:2] if isinstance(problem, KeyProblem) else path


def _order(error: ErrorDetails, places: list[Path]) -> int:
    path = _named(error)
    return places.index(path) if path in places else len(places)


def _explain(error: ErrorDetails, model: type[BaseModel], places: Mapping[Path, str], name: str) -> NoReturn:
    path = _named(error)
    place = places.get(path) or places.get(path[:1]) or name
    if error["type"] == "extra_forbidden":
        raise ConfigError(f"{place}: {_unknown(path, model)}")
    what = f"[{path[0]}] {path[1]}" if len(path) == 2 else f"[{path[0]}]" if path else "the file"
    if error["type"] == "value_error":
        raise ConfigError(f"{place}: {what}: {error['msg'].removeprefix('Value error, ')}")
    wanted = _WORDS.get(error["type"]) or error["msg"].removeprefix("Input should be ")
    raise ConfigError(f"{place}: {what} is not usable", seen=repr(error["input"]), expected=wanted)


def _unknown(path: Path, model: type[BaseModel]) -> str:
    known = list(model.model_fields)
    if len(path) == 1:
        return f"[{path[0]}] is not a section; {_suggest(path[0], known)}"
    inner = model.model_fields[path[0]].annotation
    keys = list(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []
    return f"[{path[0]}] {path[1]} is not a key; {_suggest(path[1], keys)}"


def _suggest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there is {', '.join(known) or 'none here'}"
