"""The live page in a real browser: it follows a run, outlives the coordinator, and shows the report's numbers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedprune_lab import figures
from fedprune_lab.lines import moved
from fedprune_lab.ports import Ports
from fedprune_server.extras import open_page

from .federation import Federation, holding, run_file, task_file, until

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt install chromium)")

KEYS = ("run.rounds=40", "pruning.density=0.5", "pruning.every=3", "clients.grace_s=120")
WHILE_AWAY = re.compile(
    "ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET"
)


@dataclass
class Visitor:
    """One open page, and everything that went wrong in it."""

    page: Any
    url: str
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def sees(self, condition: str) -> None:
        """Wait until a JavaScript expression holds. (The page lets nobody wait inside it by evaluated strings.)"""
        async with asyncio.timeout(200):
            while not await self.page.evaluate(condition):
                await asyncio.sleep(0.02)

    async def text(self, name: str) -> str:
        return str(await self.page.inner_text(f"#{name}"))

    async def knows(self, expression: str) -> Any:
        return await self.page.evaluate(expression)


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    async with playwright.async_playwright() as driver:
        ports = Ports()
        # A root user, as in a container, has no sandbox.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = await browser.new_page(viewport={"width": 1366, "height": 900})
        made = Visitor(page=page, url=f"http://127.0.0.1:{ports.take()}/")
        page.on("console", lambda m: made.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: made.errors.append(str(error)))
        page.on("request", lambda request: made.asked.append(request.url))
        yield made
        await browser.close()
        ports.close()


def federation(folder: Path, url: str) -> Federation:
    made = Federation(folder=folder, task=task_file(folder), configs=[run_file(*KEYS)])
    made.server.page = open_page(url.removeprefix("http://").rstrip("/"), token_file=None, out=folder)
    return made


async def test_it_shows_a_run_live_and_survives_the_coordinator(tmp_path: Path, visitor: Visitor) -> None:
    first = federation(tmp_path, visitor.url)
    async with first.serving() as serving:
        await visitor.page.goto(visitor.url)
        await visitor.sees("document.getElementById('link').textContent === 'live'")
        for name in "abc":
            first.start(name, link=holding(asyncio.Event(), free=4))
        await visitor.sees("fedprune.runs[0]?.rounds.length >= 2")
        assert await visitor.text("name") == "run"
        first.server._suspended.set()
        await until(serving.done)
    await visitor.sees("document.getElementById('link').textContent.startsWith('connection lost')")
    before = await visitor.knows("fedprune.runs[0].rounds.length")

    second = federation(tmp_path, visitor.url)
    async with second.serving() as serving:
        for name in "ab":
            second.start(name)
        await visitor.sees("document.getElementById('link').textContent === 'live'")
        await visitor.sees("document.querySelectorAll('#clients .row').length === 3")
        assert await visitor.knows("fedprune.runs[0].rounds.length") >= before
        second.start("c")
        await visitor.sees("document.getElementById('mask').naturalWidth > 0")
        assert await second.end(serving)
    await visitor.sees("document.getElementById('t-eta').textContent === 'finished'")
    await shows_the_report(visitor, second)
    assert {error for error in visitor.errors if not WHILE_AWAY.search(error)} == set()
    assert {url for url in visitor.asked if not url.startswith(visitor.url)} == set()


async def shows_the_report(visitor: Visitor, federation: Federation) -> None:
    report = federation.report
    assert await visitor.knows("fedprune.runs[0].rounds") == report.to_dict()["rounds"]
    assert await visitor.text("t-accuracy") == figures.percent(report.final.accuracy)
    assert await visitor.text("t-density") == figures.percent(report.final.density)
    bytes_moved = sum(moved(row).both for row in report.rounds)
    assert await visitor.text("t-bytes") == figures.size(bytes_moved)
    fewer = figures.times(report.totals.dense_equivalent.both / bytes_moved)
    assert f"; {fewer} over the run" in await visitor.text("t-saving-more")
    changes = sum(row.mask_changed for row in report.rounds)
    assert changes > 1
    assert await visitor.knows("document.querySelectorAll('#decisions li').length") == changes


async def test_a_phone_scrolls_in_one_direction_only(tmp_path: Path, visitor: Visitor) -> None:
    await visitor.page.set_viewport_size({"width": 360, "height": 740})
    made = federation(tmp_path, visitor.url)
    async with made.serving() as serving:
        await visitor.page.goto(visitor.url)
        for name in "abc":
            made.start(name)
        assert await made.end(serving)
    await visitor.sees("document.getElementById('t-eta').textContent === 'finished'")
    assert await visitor.knows("document.documentElement.scrollWidth") == 360
