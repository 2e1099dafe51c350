"""What a page is told: everything once, the rest when it comes back, and nothing that has not changed."""

from __future__ import annotations

import json
from typing import Any

from fedprune_server.page.story import KEPT_MESSAGES, Story


def parsed(messages: bytes) -> list[tuple[str, str, Any]]:
    """Id, event and value of server-sent events."""
    *whole, rest = messages.decode().split("\n\n")
    assert rest == ""
    found = []
    for message in whole:
        identifier, event, data = (line.partition(": ")[2] for line in message.split("\n"))
        found.append((identifier, event, json.loads(data)))
    return found


def begun() -> Story:
    story = Story(epoch="e1")
    story.begin({"run_id": "r", "name": "one"}, [{"round": 1}])
    return story


def test_a_new_page_gets_everything() -> None:
    story = begun()
    story.round({"round": 2})
    story.note({"text": "a\nb"})
    ((identifier, event, whole),) = parsed(story.since(""))
    assert (identifier, event) == ("e1.3", "story")
    assert whole["runs"] == [{"run_id": "r", "name": "one", "rounds": [{"round": 1}, {"round": 2}]}]
    assert whole["notes"] == [{"text": "a\nb"}]


def test_a_page_that_comes_back_gets_what_it_missed() -> None:
    story = begun()
    story.round({"round": 2})
    story.round({"round": 3})
    story.end({"outcome": "finished"})
    assert parsed(story.since("e1.2")) == [("e1.3", "round", {"round": 3}), ("e1.4", "end", {"outcome": "finished"})]
    assert story.since("e1.4") == b""


def test_a_page_of_another_process_or_of_long_ago_gets_everything() -> None:
    story = begun()
    for number in range(2, KEPT_MESSAGES + 3):
        story.round({"round": number})
    for last in ("e0.5", "e1.1", "e1.x", "e1.99999", "nonsense"):
        assert [event for _, event, _ in parsed(story.since(last))] == ["story"]
    assert len(parsed(story.since("e1.2"))) == KEPT_MESSAGES


def test_an_end_joins_the_facts_of_the_run() -> None:
    story = begun()
    story.end({"outcome": "finished"})
    assert story.to_dict()["runs"][0]["outcome"] == "finished"


def test_a_run_that_goes_on_takes_its_own_place() -> None:
    story = begun()
    story.begin({"run_id": "r", "name": "one"}, [])
    assert [run["rounds"] for run in story.to_dict()["runs"]] == [[]]


def test_only_clients_that_changed_travel_and_nothing_where_nothing_did() -> None:
    story = begun()
    first = {"time": 1.0, "phase": "training", "clients": {"0": {"step": 1}, "1": {"step": 1}}}
    story.change(first)
    assert story.last == 2
    story.change({**first, "time": 2.0})
    assert story.last == 2
    story.change({**first, "time": 3.0, "clients": {"0": {"step": 1}, "1": {"step": 2}}})
    ((_, _, told),) = parsed(story.since("e1.2"))
    assert told["clients"] == {"1": {"step": 2}}
    assert story.to_dict()["now"]["clients"] == {"0": {"step": 1}, "1": {"step": 2}}
    story.change({**first, "phase": "folding", "clients": story.now["clients"]})
    assert story.last == 4


def test_what_was_told_does_not_change_with_what_follows() -> None:
    story = begun()
    story.round({"round": 2})
    story.end({"outcome": "finished"})
    assert parsed(story.since("e1.0"))[0][2] == {"run_id": "r", "name": "one", "rounds": [{"round": 1}]}
