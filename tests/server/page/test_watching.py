"""What a page hears: rounds as the report has them, what belongs in a list of events, and what was said before."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedprune.report import RunReport
from fedprune_server.logs import event_log
from fedprune_server.page import watching
from fedprune_server.page.feed import IDLE
from fedprune_server.page.watching import REMEMBERED_BYTES, Watch, remembered, worth_a_note


def told(watch: Watch) -> dict[str, Any]:
    return watch.story.to_dict()


def test_a_round_is_told_as_the_report_has_it(watch: Watch) -> None:
    second = replace(watch.rows[0], round=2, metrics={"loss": float("nan")})
    watch.round(second)
    report = RunReport.of(name="one", outcome="stopped", rounds=watch.rows, warnings=["why"])
    watch.end(report)
    run = told(watch)["runs"][0]
    assert run["rounds"] == report.to_dict()["rounds"]
    assert (run["outcome"], run["warnings"], run["planned"]) == ("stopped", ["why"], 3)
    assert run["layers"] == [{"name": "w", "shape": [4, 6], "size": 24}]


@pytest.mark.parametrize(
    ("logger", "level", "worth"),
    [
        ("fedprune.coordinator", logging.INFO, True),
        ("fedprune.run", logging.INFO, False),
        ("fedprune.run", logging.WARNING, True),
        ("fedprune.coordinator", logging.DEBUG, False),
    ],
)
def test_running_commentary_is_no_event(logger: str, level: int, worth: bool) -> None:
    assert worth_a_note(logger, level) is worth


async def test_the_log_is_heard_while_listening_and_not_after(watch: Watch) -> None:
    log = logging.getLogger("fedprune.coordinator")
    log.warning("before")
    async with watch.listening():
        await asyncio.to_thread(log.warning, "from a thread", extra={"identity": "c1"})
        await asyncio.sleep(0)
    log.warning("after")
    assert [(n["text"], n["client"], n["level"]) for n in told(watch)["notes"]] == [("from a thread", "c1", "warning")]


async def test_who_comes_before_the_first_run_is_no_event(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fedprune.calls")
    log = logging.getLogger("fedprune.calls")
    watch.latest, run = None, watch.latest
    async with watch.listening():
        log.info("refused Join: no run is on yet")
        log.warning("no room left")
        watch.latest = run
        log.info("joined")
        await asyncio.sleep(0)
    assert [note["text"] for note in told(watch)["notes"]] == ["no room left", "joined"]


def test_what_an_earlier_process_logged_is_read_again(tmp_path: Path) -> None:
    with event_log(tmp_path, dict):
        logging.getLogger("fedprune.coordinator").info("joined", extra={"identity": "c1", "client": 0})
        logging.getLogger("fedprune.run").info("round 1: waiting")
    (note,) = remembered(tmp_path / "log.jsonl")
    assert (note["text"], note["client"], note["level"]) == ("joined", "c1", "info")
    assert isinstance(note["time"], float)
    assert list(remembered(tmp_path / "missing")) == []


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    line = {"time": "2026-01-01T00:00:00.000+00:00", "level": "warning", "logger": "fedprune.run", "event": "x" * 1000}
    text = "".join(json.dumps(line | {"event": f"{n}" + "x" * 1000}) + "\n" for n in range(200))
    (tmp_path / "log.jsonl").write_text(text)
    notes = list(remembered(tmp_path / "log.jsonl"))
    assert 0 < len(notes) <= REMEMBERED_BYTES // 1000
    assert notes[-1]["text"].startswith("199")


async def test_a_glance_that_sees_nothing_new_says_nothing(watch: Watch) -> None:
    before = watch.story.last
    watch.glance()
    assert watch.story.last == before
    watch.coordinator.members.of("here").state = "working"
    watch.coordinator.members.of("here").steps = 8
    watch.glance()
    assert b'"clients":{"0":{' in watch.story.after(before)


async def test_what_happens_is_told_without_waiting_for_a_glance(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "GLANCE_S", 1e9)
    page = watch.feed.listen("")
    await anext(page)
    async with watch.listening():
        for number in (2, 3):
            watch.round(replace(watch.rows[0], round=number))
            assert b'event: round\ndata: {"round":%d,' % number in await anext(page)


async def test_pages_are_told_and_shown_that_the_stream_lives(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "IDLE_S", 0.0)
    page = watch.feed.listen("")
    await anext(page)
    async with watch.listening():
        watch.coordinator.members.of("here").steps = 8
        assert b'"steps":8' in await anext(page)
        assert await anext(page) == IDLE


async def test_nobody_is_looked_at_for_nobody(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    glanced = asyncio.Event()
    monkeypatch.setattr(watching, "APART_S", 0.0)
    monkeypatch.setattr(watching, "GLANCE_S", 0.0)
    monkeypatch.setattr(Watch, "glance", lambda _: glanced.set())
    async with watch.listening():
        for _ in range(20):
            await asyncio.sleep(0)
        assert not glanced.is_set()
        page = watch.feed.listen("")
        await anext(page)
        await glanced.wait()


def test_many_pages_are_told_less_often() -> None:
    assert [watching.glance_s(pages) for pages in (1, 8, 20, 200)] == [0.2, 0.2, 0.5, 1.0]
    assert [watching.apart_s(pages) for pages in (1, 8, 20, 200)] == [0.05, 0.05, 0.125, 0.15]
