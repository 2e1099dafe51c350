"""How far each client is and how long it has to go, for a terminal: the coordinator's own, and the demo's.

What is shown comes as plain values, the ones the live page gets; when a client began is remembered here, because a
moment does not say it. No clock is read: the moment names its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.progress_bar import ProgressBar
from rich.table import Table

# More clients than this do not fit on a screen beside the rounds.
MOST_CLIENTS = 16
BAR_WIDTH = 20
RECENT_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """A piece of work as it was first seen: its round, the step it was at, of how many, and when."""

    round: int
    step: int
    steps: int
    time_s: float


@dataclass(slots=True, kw_only=True)
class Progress:
    """What each client works on since when, and of late how long it took for a step and for all of it, by its index."""

    _began: dict[str, Began] = field(default_factory=dict)
    _step_s: dict[str, float] = field(default_factory=dict)
    _work_s: dict[str, float] = field(default_factory=dict)

    def left_s(self, index: str, now: Mapping[str, Any]) -> float | None:
        """Seconds until a client has done its steps, at the pace of this round or the one before; where it does not tell
        its steps, because they take less than a heartbeat, as long as its work took before. None where nothing is
        known yet."""
        client, time_s = now["clients"][index], now["time"]
        at_work = client["state"] == "working"
        began = self._began.get(index)
        if began and (not at_work or began.round != now["round"] or began.step > client["step"]):
            self._work_s[index] = time_s - began.time_s
            self._learn(index, began, began.steps, time_s)
            del self._began[index]
            began = None
        if not at_work:
            return None
        if began is None:
            began = Began(round=now["round"], step=client["step"], steps=client["steps"], time_s=time_s)
            self._began[index] = began
        self._learn(index, began, client["step"], time_s)
        if client["steps"] and index in self._step_s:
            return float((client["steps"] - client["step"]) * self._step_s[index])
        work_s = self._work_s.get(index)
        return None if work_s is None else max(0.0, work_s - (time_s - began.time_s))

    def _learn(self, index: str, began: Began, step: int, time_s: float) -> None:
        if step > began.step:
            self._step_s[index] = (time_s - began.time_s) / (step - began.step)

    def table(self, now: Mapping[str, Any]) -> Table:
        """A line for each client, those at work first."""
        table = Table(box=None, pad_edge=False, highlight=False, show_edge=False)
        for heading in ("client", "state", "progress", "left"):
            table.add_column(heading, justify="right" if heading == "left" else "left", no_wrap=True)
        clients = sorted(now["clients"].items(), key=lambda entry: (entry[1]["state"] != "working", int(entry[0])))
        left = {index: self.left_s(index, now) for index, _ in clients}
        for index, client in clients[:MOST_CLIENTS]:
            bar = ProgressBar(total=1.0, completed=share_done(client), width=BAR_WIDTH)
            table.add_row(client["name"], client["state"], bar, duration(left[index]))
        if len(clients) > MOST_CLIENTS:
            table.add_row(f"and {len(clients) - MOST_CLIENTS} more", "", "", "")
        return table


def share_done(client: Mapping[str, Any]) -> float:
    """Of a client's local steps in this round, from 0 to 1."""
    if client["state"] == "done":
        return 1.0
    return client["step"] / client["steps"] if client["state"] == "working" and client["steps"] else 0.0


def run_left_s(seconds: Sequence[float], *, planned: int, done: int) -> float | None:
    """Seconds until a run of `planned` rounds is over, as fast as the latest of its rounds, which took `seconds`."""
    recent = seconds[-RECENT_ROUNDS:]
    return (planned - done) * sum(recent) / len(recent) if recent else None


def duration(value: float | None) -> str:
    """Whole seconds, at least one, minutes or hours; empty where it is not known."""
    if value is None:
        return ""
    minutes, rest = divmod(max(1, round(value)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
