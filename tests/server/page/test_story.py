"""What a page is told: everything once, the rest when it comes back, and nothing that has not changed."""

from __future__ import annotations

import json
from typing import Any

from fedprune_server.page.story import KEPT_MESSAGES, Story


def parsed(message: bytes) -> tuple[str, str, Any]:
    """Id, event and value of one server-sent event."""
    lines = message.decode().split("\n")
    assert lines[-2:] == ["", ""]
    identifier, event, data = (line.partition(": ")[2] for line in lines[:3])
    return identifier, event, json.loads(data)


def begun() -> Story:
    story = Story(epoch="e1")
    story.begin({"run_id": "r", "name": "one"}, [{"round": 1}])
    return story


def test_a_new_page_gets_everything() -> None:
    story = begun()
    story.round({"round": 2})
    story.note({"text": "a\nb"})
    (message,) = story.since("")
    identifier, event, whole = parsed(message)
    assert (identifier, event) == ("e1.3", "story")
    assert whole["runs"] == [{"run_id": "r", "name": "one", "rounds": [{"round": 1}, {"round": 2}]}]
    assert whole["notes"] == [{"text": "a\nb"}]


def test_a_page_that_comes_back_gets_what_it_missed() -> None:
    story = begun()
    identifier, _, _ = parsed(story.round({"round": 2}))
    story.round({"round": 3})
    story.end({"outcome": "finished"})
    assert [parsed(m)[1:] for m in story.since(identifier)] == [
        ("round", {"round": 3}),
        ("end", {"outcome": "finished"}),
    ]
    assert story.since("e1.4") == []


def test_a_page_of_another_process_or_of_long_ago_gets_everything() -> None:
    story = begun()
    for number in range(2, KEPT_MESSAGES + 3):
        story.round({"round": number})
    for last in ("e0.5", "e1.1", "e1.x", "e1.99999", "nonsense"):
        assert [parsed(m)[1] for m in story.since(last)] == ["story"]
    assert len(story.since("e1.2")) == KEPT_MESSAGES


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
    assert story.change(first) is not None
    assert story.change({**first, "time": 2.0}) is None
    message = story.change({**first, "time": 3.0, "clients": {"0": {"step": 1}, "1": {"step": 2}}})
    assert message is not None
    assert parsed(message)[2]["clients"] == {"1": {"step": 2}}
    assert story.to_dict()["now"]["clients"] == {"0": {"step": 1}, "1": {"step": 2}}
    assert story.change({**first, "phase": "folding", "clients": story.now["clients"]}) is not None
