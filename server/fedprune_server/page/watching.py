"""The page's ears: an onlooker of runs, a handler of the log, and a look at the coordinator a few times a second.

What a run says of one client again and again (its receipts) shows in that client's row; the list of events has what
joins and leaves, what ends and what goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedprune.report import RoundReport, RunReport
from fedprune_server.coordinator import Coordinator
from fedprune_server.logs import LOG_FILE, OURS
from fedprune_server.now import now
from fedprune_server.onlookers import Begun
from fedprune_server.page.feed import Feed
from fedprune_server.page.story import Facts, Story

# What happens goes to the pages at once, in one piece, but never sooner than this after the piece before it: each
# write to each page costs the coordinator.
APART_S = 0.05
# Where nothing happens, how the clients stand is looked at so often.
GLANCE_S = 0.2
# With more pages than this both are further apart, up to so far: each piece goes to all of them.
FEW_PAGES = 8
RARE_GLANCE_S = 1.0
MOST_APART_S = 0.15
# A silent stream gets a sign of life so often.
IDLE_S = 15.0
# The end of an earlier process's event log that is read again, in bytes.
REMEMBERED_BYTES = 1 << 16
NARRATOR = "fedprune.run"


@dataclass(slots=True, kw_only=True)
class Watch:
    """One process's page, without HTTP. `runs` are those that have begun, by their id; `latest` is the last of them."""

    coordinator: Coordinator
    feed: Feed
    runs: dict[str, Begun] = field(default_factory=dict)
    latest: Begun | None = None
    rows: list[RoundReport] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def story(self) -> Story:
        """What has happened so far."""
        return self.feed.story

    def begin(self, run: Begun) -> None:
        """See `Onlooker`."""
        self.latest, self.rows, self.runs[run.run_id] = run, list(run.done), run
        if run.done:
            self.story.notes.extend(remembered(run.folder / LOG_FILE))
        self.story.begin(facts(run), [json.loads(row.to_json()) for row in run.done])
        self._news.set()

    def round(self, row: RoundReport) -> None:
        """See `Onlooker`."""
        self.rows.append(row)
        self.story.round(json.loads(row.to_json()))
        self._news.set()

    def end(self, report: RunReport) -> None:
        """See `Onlooker`."""
        self.glance()
        self.story.end({"outcome": report.outcome, "warnings": list(report.warnings)})
        self._news.set()

    def glance(self) -> None:
        """Look at the coordinator, and add what has changed to the story."""
        self.story.change(now(self.coordinator, monotonic_s=time.monotonic(), time_s=time.time()))

    def hear(self, note: Facts) -> None:
        """An event in words; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._note, note)

    def _note(self, note: Facts) -> None:
        self.story.note(note)
        self._news.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hear and look until the block ends, then end the pages' streams."""
        self._loop = asyncio.get_running_loop()
        handler = Notes(self)
        logger = logging.getLogger(OURS)
        logger.addHandler(handler)
        ticks = asyncio.create_task(self._ticks())
        try:
            yield
        finally:
            logger.removeHandler(handler)
            ticks.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticks
            self.glance()
            self.feed.close()

    async def _ticks(self) -> None:
        told_s = time.monotonic()
        while True:
            # Nobody looks: nothing is looked at, and who comes gets the whole story.
            if self.feed.pages:
                self.glance()
                if self.feed.tell(anyway=time.monotonic() - told_s >= IDLE_S):
                    told_s = time.monotonic()
            apart = apart_s(self.feed.pages)
            await asyncio.sleep(apart)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(glance_s(self.feed.pages) - apart):
                    await self._news.wait()
            self._news.clear()


class Notes(logging.Handler):
    """Passes on what belongs in the list of events."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.INFO)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        # Before the first run there is only who comes too early, and comes again.
        early = self._watch.latest is None and record.levelno < logging.WARNING
        if worth_a_note(record.name, record.levelno) and not early:
            note = {"time": round(record.created, 3), "level": record.levelname.lower(), "text": record.getMessage()}
            self._watch.hear(note | ({"client": record.identity} if hasattr(record, "identity") else {}))


def apart_s(pages: int) -> float:
    """How far apart pieces are at least, for so many open pages."""
    return max(APART_S, min(MOST_APART_S, APART_S * pages / FEW_PAGES))


def glance_s(pages: int) -> float:
    """How often clients are looked at where nothing happens, for so many open pages."""
    return max(GLANCE_S, min(RARE_GLANCE_S, GLANCE_S * pages / FEW_PAGES))


def worth_a_note(logger: str, level: int) -> bool:
    """Whether an event is listed: warnings always, and what is not a run's running commentary."""
    return level >= logging.WARNING or (level >= logging.INFO and logger != NARRATOR)


def facts(run: Begun) -> dict[str, Any]:
    """What a page needs to know of a run that does not change."""
    prunable = run.schema.prunable
    return {
        "run_id": run.run_id,
        "name": run.config.run.name,
        "planned": run.config.run.rounds,
        "parameters": run.schema.parameters,
        "prunable": sum(spec.size for spec in prunable),
        "dense_bytes": run.schema.dense_bytes,
        "layers": [{"name": spec.name, "shape": list(spec.shape), "size": spec.size} for spec in prunable],
        "config": run.config.model_dump(mode="json"),
        "outcome": "running",
    }


def remembered(log: Path) -> Iterable[Facts]:
    """The notes at the end of an event log that an earlier process wrote."""
    if not log.is_file():
        return
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - REMEMBERED_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    for line in lines:
        # The first line is cut, and the last may be.
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(line)
            if worth_a_note(event["logger"], getattr(logging, event["level"].upper())):
                client = {"client": event["identity"]} if "identity" in event else {}
                yield {"time": _seconds(event["time"]), "level": event["level"], "text": event["event"], **client}


def _seconds(stamp: str) -> float:
    return round(datetime.fromisoformat(stamp).timestamp(), 3)
