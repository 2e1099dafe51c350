"""Every command that the pages show is carried out, by real processes; those that cannot be are listed with the reason."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedprune_lab import new

from ..examples.made_up import write_pictures  # noqa: TID252 - tests are no package that has a name
from . import pages
from .reader import Reader
from .shell import Shell

# What no test can do for a reader, and who does it. An entry that matches nothing is an error.
NOT_HERE = {
    r"make \w+": "makes a virtual environment and the whole suite in it; CI does all of them in a clean clone",
    r"source \S+": "a shell's own",
    r"pip install .+": "needs a package index; test_pages holds the extras against pyproject.toml",
    r"(RATE=\S+ DELAY=\S+ )?docker .+": "needs a container engine; CI builds the images and runs the compose file",
    r"(export|openssl) .+": "goes before docker compose on machines with an engine each",
    r"(kubectl|helm) .+": "needs a cluster; CI renders the chart and holds it against Kubernetes' schemas",
    r"fedprune bench \w+.*": "takes minutes; tests/lab has the parts of each bench",
}
# This page is walked step by step, and what comes out is looked at, by tests/integration/test_quickstart.py.
WALKED = "docs/quickstart.md"


def is_run(line: str) -> bool:
    return not any(re.fullmatch(pattern, line) for pattern in NOT_HERE)


def shown() -> Iterator[str]:
    for page in pages.PAGES:
        yield from pages.shown_commands(page)
    yield from pages.help_examples()


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with Shell() as started:
        yield started


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data: what the first page's task reads."""
    folder: Path = tmp_path_factory.mktemp("owner")
    torch.save((torch.zeros(64, 784), torch.arange(64) % 10), folder / "train.pt")
    return folder


@pytest.fixture(scope="module")
def finished(shell: Shell, owner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is over."""
    folder: Path = tmp_path_factory.mktemp("before")
    new.create(folder / "digits")
    reader = Reader(shell=shell, folder=folder / "digits", run=folder, data=owner)
    reader.serve(["run.toml", "--set", "pruning.every=1", "--set", "run.keep_updates=true"])
    reader.leaves()
    assert reader.wrong == []
    (made,) = (folder / "digits").glob("served-*/digits")
    return made


@pytest.fixture
def reader(shell: Shell, finished: Path, owner: Path, tmp_path: Path) -> Reader:
    """A reader in a folder with a task and a run file, as `fedprune new` makes them."""
    new.create(tmp_path / "mine")
    return Reader(shell=shell, folder=tmp_path / "mine", run=finished, data=owner)


def test_each_reason_is_needed_and_most_commands_are_run() -> None:
    lines = list(shown())
    unused = [pattern for pattern in NOT_HERE if not any(re.fullmatch(pattern, line) for line in lines)]
    assert unused == []
    run = [line for line in lines if is_run(line)]
    assert len(run) > 60
    assert {line.split()[0] for line in run} == {"fedprune"}


WITH_COMMANDS = [
    page for page in pages.PAGES if pages.name_of(page) != WALKED and any(map(is_run, pages.shown_commands(page)))
]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=pages.name_of)
def test_the_commands_of_a_page(page: Path, reader: Reader) -> None:
    for _, text in pages.blocks("python", page):
        if all(f"def {name}(" in text for name in ("model", "train_data", "loss")):
            (reader.folder / "task.py").write_text(text)
    if page.parent.parent.name == "examples":
        shutil.copytree(page.parent, folder := reader.folder / "examples" / page.parent.name)
        if folder.name == "own_images":
            write_pictures(folder / "data")
    for line in filter(is_run, pages.shown_commands(page)):
        reader.does(line.replace("NAME", reader.folder.name))
        assert reader.wrong == []
    reader.leaves()
    assert reader.wrong == []


ON_PAGES = {line for page in WITH_COMMANDS for line in pages.shown_commands(page)}


@pytest.mark.parametrize("line", [line for line in pages.help_examples() if is_run(line) and line not in ON_PAGES])
def test_the_other_examples_in_the_help(line: str, reader: Reader) -> None:
    reader.does(line)
    reader.leaves()
    assert reader.wrong == []
