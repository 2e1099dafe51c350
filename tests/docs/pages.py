"""What the pages show: their fenced blocks, and the commands in them, in the order in which a reader meets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The template's page is what `fedprune new` puts into a user's folder.
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("bench/*.md"),
        ROOT / "lab/fedprune_lab/template/README.md",
    ]
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:fedprune|python|make|\.ci/run) [^`\n]+|\.ci/run)`(?!`)")


def name_of(page: Path) -> str:
    """A page as people call it."""
    return page.relative_to(ROOT).as_posix()


def blocks(language: str, page: Path | None = None) -> list[tuple[str, str]]:
    """(page, content) of every fenced block in that language, on one page or on all."""
    return [
        (name_of(one), content)
        for one in ([page] if page else PAGES)
        for kind, content in BLOCK.findall(one.read_text(encoding="utf-8"))
        if kind == language
    ]


def shown_commands(page: Path) -> Iterator[str]:
    """Every command after a `$` in a console block, continuation lines joined."""
    for _, content in blocks("console", page):
        for line in content.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield line.removeprefix("$ ").partition("  #")[0].strip()


def inline_commands() -> Iterator[tuple[str, str]]:
    """(page, command) of every command within a sentence."""
    for page in PAGES:
        for line in INLINE.findall(page.read_text(encoding="utf-8")):
            yield name_of(page), line


def help_examples() -> list[str]:
    """The examples that the page of commands shows with each verb."""
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    return [
        line.removeprefix("Example: ") for line in re.findall(r"^ +((?:Example: )?fedprune .+)$", text, re.MULTILINE)
    ]
