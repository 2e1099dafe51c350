"""The documentation builds as a site, without a warning, without another host, and with every link led on."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a browser would fetch by itself; a link that a reader may follow is none.
FETCHED = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^\"]*\"")
INNER = re.compile(r'href="(?!https?:|#|mailto:)([^"#]+)')

pytestmark = pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def pages(site: Path) -> list[Path]:
    return [page for page in site.rglob("*.html") if page.name != "404.html"]


def test_every_page_of_the_repository_is_there(site: Path) -> None:
    written = [*ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/README.md"), *ROOT.glob("*.md")]
    assert len(pages(site)) >= len(written) >= 20
    assert "your own model" in (site / "index.html").read_text().lower()


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    assert {page.name: found for page in pages(site) if (found := FETCHED.findall(page.read_text()))} == {}


def test_links_lead_to_pages(site: Path) -> None:
    dead = [
        f"{page.relative_to(site)} -> {link}"
        for page in pages(site)
        for link in INNER.findall(page.read_text())
        if not (target := (page.parent / link).resolve()).exists() and not target.with_suffix(".html").exists()
    ]
    assert dead == []


def test_the_pictures_are_shown(site: Path) -> None:
    assert re.search(r'<img [^>]*src="\.\./images/round\.svg"', (site / "concepts" / "index.html").read_text())
    assert (site / "images" / "round.svg").is_file()


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {page.name for page in ROOT.glob("docs/*.md")} <= set(listed)
