"""The event log is JSON whatever is said, and leaves logging as it found it."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fedprune_server.logs import LINES_AT_ONCE, LINES_PER_S, LOG_FILE, Floods, JsonLines, event_log

log = logging.getLogger("fedprune.test")
FACTS = {"run": "digits-1", "round": 3}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]


def test_a_line_says_what_where_and_who(tmp_path: Path) -> None:
    with event_log(tmp_path, lambda: FACTS):
        log.info("update of %d bytes", 42, extra={"client": 2})
    (line,) = lines(tmp_path)
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "level": "info",
        "logger": "fedprune.test",
        "event": "update of 42 bytes",
        "run": "digits-1",
        "round": 3,
        "client": 2,
    }


def test_facts_are_those_of_the_moment(tmp_path: Path) -> None:
    facts = {"round": 1}
    with event_log(tmp_path, lambda: facts):
        log.info("one")
        facts["round"] = 2
        log.warning("two")
    assert [(line["event"], line["round"], line["level"]) for line in lines(tmp_path)] == [
        ("one", 1, "info"),
        ("two", 2, "warning"),
    ]


def test_a_trace_is_one_line(tmp_path: Path) -> None:
    with event_log(tmp_path, dict):
        try:
            raise ValueError("no\nsuch\ncolumn")
        except ValueError as error:
            log.error("broke", exc_info=error)
    (line,) = lines(tmp_path)
    assert "ValueError: no\nsuch\ncolumn" in line["trace"]


def test_it_hears_only_fedprune_and_only_while_it_is_open(tmp_path: Path) -> None:
    before = logging.getLogger("fedprune").level
    with event_log(tmp_path, dict):
        logging.getLogger("grpc").warning("not ours")
        log.debug("too fine")
        log.info("ours")
    log.warning("too late")
    assert [line["event"] for line in lines(tmp_path)] == ["ours"]
    assert logging.getLogger("fedprune").level == before
    assert logging.getLogger("fedprune").handlers == []


def test_a_run_that_is_taken_up_goes_on_in_its_log(tmp_path: Path) -> None:
    for event in ("begun", "taken up"):
        with event_log(tmp_path, dict):
            log.info(event)
    assert [line["event"] for line in lines(tmp_path)] == ["begun", "taken up"]


@given(st.text(), st.text())
def test_whatever_a_client_says_stays_in_its_line(reason: str, identity: str) -> None:
    record = logging.LogRecord("fedprune.x", logging.INFO, "", 0, "failed: %s", (reason,), None)
    record.identity = identity
    text = JsonLines(dict).format(record)
    assert "\n" not in text
    assert json.loads(text)["event"] == f"failed: {reason}"
    assert json.loads(text)["identity"] == identity


def test_a_flood_of_one_kind_is_cut_short_and_said_to_be() -> None:
    now_s = 0.0
    floods = Floods(lambda: now_s)

    def passes(line: int, level: int = logging.INFO) -> str | None:
        record = logging.LogRecord("fedprune.test", level, "file.py", line, "refused %s", ("one",), None)
        return record.getMessage() if floods.filter(record) else None

    at_once = int(LINES_AT_ONCE)
    assert [passes(1) for _ in range(at_once + 5)][at_once - 1 :] == ["refused one", *[None] * 5]
    assert passes(2) == "refused one"
    assert passes(1, logging.WARNING) == "refused one"
    now_s = 1 / LINES_PER_S
    assert passes(1) == "refused one (5 more like this are left out)"
