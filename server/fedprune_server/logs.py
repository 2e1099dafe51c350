"""The event log of a run: `runs/<name>/log.jsonl`, one JSON object a line, for people and for programs that read logs.

Every line says when, how serious, what, and which run and round it was; where an event is about one client, which.
It stands on the standard logging module and hears only what fedprune itself says: no library is told how to log.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fedprune_server.limits import TokenBucket

LOG_FILE = "log.jsonl"
OURS = "fedprune"
# What a log call can add by `extra`.
EXTRAS = ("client", "identity", "peer")

# Lines of one kind: so many a second, and so many at once.
LINES_PER_S, LINES_AT_ONCE = 10.0, 200.0

Facts = Callable[[], Mapping[str, object]]


class JsonLines(logging.Formatter):
    """One JSON object for each record; `facts` are asked at the moment of the event."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        """Keys: time (UTC), level, logger, event, then run and round, then what the call added, then a trace."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._facts(),
        }
        line |= {name: getattr(record, name) for name in EXTRAS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Floods(logging.Filter):
    """Lets events of one kind through at a bounded pace, so that whoever calls without end fills no disk. The first one
    after a gap says how many are missing. Warnings and errors always pass."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._paces: dict[tuple[str, int], TokenBucket] = {}
        self._missing: dict[tuple[str, int], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the event is written."""
        if record.levelno > logging.INFO:
            return True
        kind, now_s = (record.pathname, record.lineno), self._clock()
        pace = self._paces.setdefault(kind, TokenBucket(LINES_PER_S, LINES_AT_ONCE - 1))
        if pace.take(0, now_s) > 0:
            self._missing[kind] = self._missing.get(kind, 0) + 1
            return False
        pace.take(1, now_s)
        if missing := self._missing.pop(kind, 0):
            record.msg, record.args = f"{record.getMessage()} ({missing} more like this are left out)", ()
        return True


@contextmanager
def event_log(folder: Path, facts: Facts) -> Iterator[None]:
    """Write what fedprune logs into the folder's event log, after what is there already, until the block ends."""
    handler = logging.FileHandler(folder / LOG_FILE, encoding="utf-8")
    handler.setFormatter(JsonLines(facts))
    handler.addFilter(Floods())
    logger = logging.getLogger(OURS)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
