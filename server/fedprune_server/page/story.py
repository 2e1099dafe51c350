"""What has happened, as messages for a page: all of it for one that has just come, the rest for one that comes back.

Each message is one server-sent event, encoded when a page asks for it: a run that nobody watches pays nothing. A page
that was away names the last message it has; while that is still among the latest, it gets what followed, else the
whole story. Pure: no clock, no sockets.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

KEPT_MESSAGES = 256
KEPT_NOTES = 200

Facts = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Told:
    """One run of the process: its facts, its rounds, and its outcome once it is over."""

    facts: dict[str, Any]
    rounds: list[Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.facts, "rounds": list(self.rounds)}


@dataclass(slots=True, kw_only=True)
class Story:
    """The runs of one process and the events beside them. `epoch` tells this process from the one before it; `last` is
    the number of the latest message."""

    epoch: str
    runs: list[Told] = field(default_factory=list)
    notes: deque[Facts] = field(default_factory=lambda: deque(maxlen=KEPT_NOTES))
    now: dict[str, Any] = field(default_factory=dict)
    last: int = 0
    _messages: deque[tuple[int, str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT_MESSAGES))

    def begin(self, facts: Facts, rounds: list[Any]) -> None:
        """A run begins, or goes on after `rounds`."""
        told = Told(facts=dict(facts), rounds=rounds)
        self.runs = [run for run in self.runs if run.facts["run_id"] != facts["run_id"]]
        self.runs.append(told)
        self._add("run", told.to_dict())

    def round(self, row: Any) -> None:
        """A round of the latest run is complete."""
        self.runs[-1].rounds.append(row)
        self._add("round", row)

    def end(self, outcome: Facts) -> None:
        """The latest run is over; `outcome` joins its facts."""
        self.runs[-1].facts.update(outcome)
        self._add("end", outcome)

    def note(self, note: Facts) -> None:
        """Something happened that has no figures."""
        self.notes.append(note)
        self._add("note", note)

    def change(self, now: dict[str, Any]) -> None:
        """How things stand now; no message where nothing differs from the last time.

        Only clients that changed travel, and `now` lists all of them under "clients" by their index."""
        clients, before = now["clients"], self.now.get("clients", {})
        changed = {index: client for index, client in clients.items() if before.get(index) != client}
        rest = {key: value for key, value in now.items() if key not in ("clients", "time")}
        same = all(self.now.get(key) == value for key, value in rest.items())
        if same and not changed and before.keys() == clients.keys():
            return
        self.now = now
        self._add("now", {**now, "clients": changed})

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        runs = [told.to_dict() for told in self.runs]
        return {"epoch": self.epoch, "runs": runs, "notes": list(self.notes), "now": self.now}

    def since(self, last_id: str) -> bytes:
        """What a page needs that has got everything up to the message `last_id`; "" is a page that is new."""
        epoch, _, number = last_id.rpartition(".")
        known = epoch == self.epoch and number.isdecimal() and int(number) <= self.last
        return self.after(int(number)) if known else self._whole()

    def after(self, number: int) -> bytes:
        """The messages that followed `number`; all in one where those are no longer kept."""
        if self.last - number > len(self._messages):
            return self._whole()
        missed = islice(self._messages, len(self._messages) - (self.last - number), None)
        return b"".join(self._encode(*message) for message in missed)

    def _whole(self) -> bytes:
        return self._encode(self.last, "story", self.to_dict())

    def _add(self, event: str, value: Any) -> None:
        self.last += 1
        self._messages.append((self.last, event, value))

    def _encode(self, number: int, event: str, value: Any) -> bytes:
        # JSON has no bare line break, which would end the field.
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        return f"id: {self.epoch}.{number}\nevent: {event}\ndata: {text}\n\n".encode()
