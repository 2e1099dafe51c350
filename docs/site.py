"""A hook of mkdocs: pages that live outside docs/, in the places where a reader of the repository looks for them, are pages of the
site too, and links between the two kinds lead there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md", "examples/README.md")
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)((?:#[^)]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside docs/. The repository's first page is the site's."""
    pages = [*OUTSIDE, *(p.relative_to(ROOT).as_posix() for p in sorted(ROOT.glob("examples/*/README.md")))]
    for place in pages:
        content = (ROOT / place).read_text(encoding="utf-8")
        files.append(File.generated(config, in_site(place), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links, which are right in the repository, into links that are right in the site; what is no page of it, such
    as a folder or a program, keeps its words and loses its link."""
    here = in_repository(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        there = in_site(posixpath.normpath(posixpath.join(posixpath.dirname(here), match[2])))
        known = next((uri for uri in (there, f"{there}/README.md") if files.get_file_from_path(uri)), None)
        if known is None:
            return f"]{UNLINKED}"
        return match[1] + posixpath.relpath(known, posixpath.dirname(page.file.src_uri) or ".") + match[3]

    return re.sub(r"\[([^\]]*)\]" + re.escape(UNLINKED), r"\1", LINK.sub(turned, markdown))


UNLINKED = "(nowhere)"


def in_site(place: str) -> str:
    """Where a file of the repository lies in the site."""
    return "index.md" if place == "README.md" else place.removeprefix("docs/")


def in_repository(uri: str) -> str:
    """Where a page of the site lies in the repository."""
    if uri == "index.md":
        return "README.md"
    return uri if (ROOT / uri).is_file() and not (ROOT / "docs" / uri).is_file() else f"docs/{uri}"
