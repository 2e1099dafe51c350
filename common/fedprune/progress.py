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


@dataclass(slots=True, kw_only=True)
class Progress:
    """When each client began what it works on, by its index: the round, the step and the time it was first seen at."""

    _began: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    def left_s(self, index: str, now: Mapping[str, Any]) -> float | None:
        """Seconds until a client has done its steps, at the pace seen so far; None where there is none to see yet."""
        client, time_s = now["clients"][index], now["time"]
        if client["state"] != "working" or not client["steps"]:
            self._began.pop(index, None)
            return None
        began = self._began.get(index)
        if began is None or began[0] != now["round"] or began[1] > client["step"]:
            self._began[index] = now["round"], client["step"], time_s
            return None
        done = client["step"] - began[1]
        return (client["steps"] - client["step"]) * (time_s - began[2]) / done if done else None

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
    """Whole seconds, minutes or hours; empty where it is not known."""
    if value is None:
        return ""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
