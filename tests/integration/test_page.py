"""The live page beside a run over real sockets: what it tells is what the report says, also after a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from fedprune.report import RoundReport
from fedprune_server.extras import open_page

from .federation import Federation, holding, run_file, task_file, until

NAMES = ("a", "b", "c")
PRUNED = ("pruning.density=0.5", "pruning.every=1")


class Reader:
    """A page without a browser: the events it was told, in order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.events: list[tuple[str, Any]] = []
        self.last_id = ""

    async def read(self) -> None:
        """Read one stream until it ends."""
        headers = {"last-event-id": self.last_id} if self.last_id else {}
        async with httpx.AsyncClient(timeout=None) as client, client.stream("GET", self.url, headers=headers) as answer:
            event = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "event":
                    event = value
                elif name == "data":
                    self.events.append((event, json.loads(value)))

    def of(self, event: str) -> list[Any]:
        return [value for name, value in self.events if name == event]


def federation(folder: Path, *overrides: str) -> tuple[Federation, str]:
    made = Federation(folder=folder, task=task_file(folder), configs=[run_file(*overrides)])
    made.server.page = open_page("127.0.0.1:0", token_file=None, out=folder)
    return made, made.server.page.url


async def test_a_page_is_told_what_the_report_says(tmp_path: Path) -> None:
    made, url = federation(tmp_path, *PRUNED)
    reader = Reader(f"{url}events")

    async def scrape() -> dict[str, float]:
        async with httpx.AsyncClient() as client:
            families = text_string_to_metric_families((await client.get(f"{url}metrics")).text)
        samples = [sample for family in families for sample in family.samples]
        return {sample.name + sample.labels.get("direction", ""): sample.value for sample in samples}

    async with made.serving() as serving:
        reading = asyncio.create_task(reader.read())
        await until(lambda: bool(reader.of("story")), serving)
        for name in NAMES:
            made.start(name)
        await until(lambda: bool(reader.of("round")), serving)
        scraped = await scrape()
        assert await made.end(serving)
        await reading
    report = made.report.to_dict()
    assert reader.of("round") == report["rounds"]
    assert reader.of("end") == [{"outcome": "finished", "warnings": []}]
    assert reader.of("run")[0]["config"] == report["config"]
    seen = [client for now in reader.of("now") for client in now["clients"].values()]
    assert {client["name"] for client in seen} == set(NAMES)
    assert "joined" in {note["text"] for note in reader.of("note")}
    done = report["rounds"][: int(scraped["fedprune_round"])]
    for way in ("up", "down"):
        assert scraped[f"fedprune_payload_bytes_total{way}"] == sum(row["payload"][way] for row in done)


async def test_what_each_client_moved_adds_up_to_the_ledger(tmp_path: Path) -> None:
    made, url = federation(tmp_path)
    reader = Reader(f"{url}events")
    async with made.serving() as serving:
        reading = asyncio.create_task(reader.read())
        await until(lambda: bool(reader.of("story")), serving)
        for name in NAMES:
            made.start(name)
        assert await made.end(serving)
        await reading
    last: dict[str, Any] = {}
    for _, value in [e for e in reader.events if e[0] == "now"]:
        for index, client in value["clients"].items():
            last.setdefault(index, {}).update(client)
    ledger = (tmp_path / "runs" / "run" / "ledger.csv").read_text().splitlines()[1:]
    moved = [line.split(",") for line in ledger]
    report = made.report
    for way in ("up", "down"):
        everything = sum(int(n) for _, _, w, kind, n in moved if w == way and kind != "heartbeat")
        assert getattr(report.totals.payload + report.after_last_round, way) == everything
    for index, client in last.items():
        for way in ("up", "down"):
            whole = sum(int(n) for c, _, w, kind, n in moved if (c, w) == (index, way) and kind != "heartbeat")
            # The farewell is said after the ledger is closed.
            assert whole <= client[way] <= whole + 200


async def test_after_a_restart_the_page_has_the_rounds_before_it(tmp_path: Path) -> None:
    first, url = federation(tmp_path, "run.rounds=4")
    reader = Reader(f"{url}events")
    async with first.serving() as serving:
        reading = asyncio.create_task(reader.read())
        for name in NAMES:
            first.start(name, link=holding(asyncio.Event(), free=2))
        await until(lambda: len(reader.of("round")) >= 2, serving)
        first.server._suspended.set()
        await until(serving.done)
        await reading
    before: list[RoundReport] = first.rounds
    second, url = federation(tmp_path, "run.rounds=4")
    reader.url = f"{url}events"
    async with second.serving() as serving:
        reading = asyncio.create_task(reader.read())
        for name in NAMES:
            second.start(name)
        assert await second.end(serving)
        await reading
    story = reader.of("story")[-1]
    told = [*(run for run in story["runs"]), *reader.of("run")[-1:]][-1]
    rounds = told["rounds"] + [row for row in reader.of("round") if row["round"] > len(told["rounds"])]
    assert len(told["rounds"]) >= len(before)
    assert rounds == second.report.to_dict()["rounds"]
    assert "joined" in {note["text"] for note in story["notes"]} | {note["text"] for note in reader.of("note")}


async def test_after_a_restart_the_page_has_the_runs_that_were_over(tmp_path: Path) -> None:
    configs = [run_file("run.name=one"), run_file("run.name=two", "run.rounds=4")]
    first, url = federation(tmp_path)
    first.server.configs = configs
    async with first.serving() as serving:
        for name in NAMES:
            first.start(name)
        await until(lambda: len(first.rounds) >= 4, serving)
        first.server._suspended.set()
        await until(serving.done)
    second, url = federation(tmp_path)
    second.server.configs = configs
    reader = Reader(f"{url}events")
    async with second.serving() as serving:
        reading = asyncio.create_task(reader.read())
        await until(lambda: bool(reader.events), serving)
        for name in NAMES:
            second.start(name)
        assert await second.end(serving)
        await reading
    told = reader.of("story")[0]["runs"] + reader.of("run")
    assert [run["name"] for run in told][:2] == ["one", "two"]
    assert (told[0]["outcome"], told[0]["rounds"]) == ("finished", first.report.to_dict()["rounds"])
