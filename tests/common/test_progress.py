"""How far clients are: steps as a share, what is left at the pace seen, and those at work first."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from fedprune.progress import MOST_CLIENTS, Progress, duration, run_left_s, share_done


def moment(time: float, step: int, *, state: str = "working", round_: int = 1, steps: int = 100) -> dict[str, Any]:
    client = {"name": "alice", "state": state, "step": step, "steps": steps}
    return {"time": time, "round": round_, "clients": {"0": client}}


def test_what_is_left_follows_from_the_pace_since_it_was_first_seen() -> None:
    progress = Progress()
    assert progress.left_s("0", moment(10.0, 20)) is None
    assert progress.left_s("0", moment(12.0, 20)) is None
    assert progress.left_s("0", moment(14.0, 60)) == pytest.approx(4.0)


def test_a_new_round_begins_at_the_pace_of_the_one_before() -> None:
    progress = Progress()
    progress.left_s("0", moment(10.0, 20))
    # 80 steps in 8 seconds.
    assert progress.left_s("0", moment(18.0, 40, round_=2)) == pytest.approx(6.0)
    assert progress.left_s("0", moment(20.0, 50, round_=2)) == pytest.approx(10.0)


def test_rounds_too_short_to_watch_show_their_pace_when_they_are_over() -> None:
    progress = Progress()
    assert progress.left_s("0", moment(1.0, 0)) is None
    assert progress.left_s("0", moment(3.0, 100, state="done")) is None
    assert progress.left_s("0", moment(4.0, 0, round_=2)) == pytest.approx(2.0)


def test_work_that_tells_no_steps_takes_as_long_as_it_did_before() -> None:
    progress = Progress()
    assert progress.left_s("0", moment(1.0, 0, steps=0)) is None
    assert progress.left_s("0", moment(4.0, 0, steps=0, round_=2)) == pytest.approx(3.0)
    assert progress.left_s("0", moment(5.0, 0, steps=0, round_=2)) == pytest.approx(2.0)
    assert progress.left_s("0", moment(9.0, 0, steps=0, round_=2)) == 0.0
    assert progress.left_s("0", moment(9.5, 0, steps=0, round_=2, state="done")) is None


def test_the_share_that_is_done() -> None:
    for state, step, share in (("working", 25, 0.25), ("done", 0, 1.0), ("waiting", 50, 0.0), ("away", 50, 0.0)):
        assert share_done({"state": state, "step": step, "steps": 100}) == share
    assert share_done({"state": "working", "step": 3, "steps": 0}) == 0.0


def test_a_run_goes_on_as_fast_as_of_late() -> None:
    assert run_left_s([100.0, 1.0, 1.0, 1.0, 2.0, 2.0], planned=10, done=6) == pytest.approx(4 * 1.4)
    assert run_left_s([], planned=10, done=0) is None


def test_durations() -> None:
    assert [duration(value) for value in (None, 0.4, 59.4, 61.0, 3725.0)] == [
        "",
        "1 s",
        "59 s",
        "1 min 1 s",
        "1 h 2 min",
    ]


def test_those_at_work_stand_first_and_the_rest_is_counted() -> None:
    states = {str(n): "done" for n in range(MOST_CLIENTS + 3)} | {"7": "working"}
    clients = {i: {"name": f"c{i}", "state": state, "step": 0, "steps": 4} for i, state in states.items()}
    text = io.StringIO()
    Console(file=text, width=80).print(Progress().table({"time": 0.0, "round": 1, "clients": clients}))
    lines = text.getvalue().splitlines()
    assert lines[1].split()[:2] == ["c7", "working"]
    assert lines[-1].strip() == "and 3 more"
    assert len(lines) == 1 + MOST_CLIENTS + 1
