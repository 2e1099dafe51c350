"""What has happened, as messages for a page: all of it for one that has just come, the rest for one that comes back.

Each message is one server-sent event, encoded once for all pages. A page that was away names the last message it
has; while that is still among the latest, it gets what followed, else the whole story. Pure: no clock, no sockets.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        return {**self.facts, "rounds": self.rounds}


@dataclass(slots=True, kw_only=True)
class Story:
    """The runs of one process and the events beside them. `epoch` tells this process from the one before it."""

    epoch: str
    runs: list[Told] = field(default_factory=list)
    notes: deque[Facts] = field(default_factory=lambda: deque(maxlen=KEPT_NOTES))
    now: dict[str, Any] = field(default_factory=dict)
    _messages: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=KEPT_MESSAGES))
    _last: int = 0

    def begin(self, facts: Facts, rounds: list[Any]) -> bytes:
        """A run begins, or goes on after `rounds`."""
        told = Told(facts=dict(facts), rounds=rounds)
        self.runs = [run for run in self.runs if run.facts["run_id"] != facts["run_id"]]
        self.runs.append(told)
        return self._message("run", told.to_dict())

    def round(self, row: Any) -> bytes:
        """A round of the latest run is complete."""
        self.runs[-1].rounds.append(row)
        return self._message("round", row)

    def end(self, outcome: Facts) -> bytes:
        """The latest run is over; `outcome` joins its facts."""
        self.runs[-1].facts.update(outcome)
        return self._message("end", outcome)

    def note(self, note: Facts) -> bytes:
        """An event in words."""
        self.notes.append(note)
        return self._message("note", note)

    def change(self, now: dict[str, Any]) -> bytes | None:
        """How things stand now; None where nothing differs from the last time.

        Only clients that changed travel, and `now` lists all of them under "clients" by their index."""
        clients, before = now["clients"], self.now.get("clients", {})
        changed = {index: client for index, client in clients.items() if before.get(index) != client}
        rest = {key: value for key, value in now.items() if key not in ("clients", "time")}
        same = all(self.now.get(key) == value for key, value in rest.items())
        if same and not changed and before.keys() == clients.keys():
            return None
        self.now = now
        return self._message("now", {**now, "clients": changed})

    def whole(self) -> bytes:
        """Everything, as one message."""
        return self._encode("story", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        runs = [told.to_dict() for told in self.runs]
        return {"epoch": self.epoch, "runs": runs, "notes": list(self.notes), "now": self.now}

    def since(self, last_id: str) -> list[bytes]:
        """What a page needs that has got everything up to the message `last_id`; "" is a page that is new."""
        epoch, _, number = last_id.rpartition(".")
        if epoch != self.epoch or not number.isdecimal():
            return [self.whole()]
        first = self._messages[0][0] if self._messages else self._last + 1
        if not first - 1 <= int(number) <= self._last:
            return [self.whole()]
        return [message for n, message in self._messages if n > int(number)]

    def _message(self, event: str, value: Any) -> bytes:
        self._last += 1
        message = self._encode(event, value)
        self._messages.append((self._last, message))
        return message

    def _encode(self, event: str, value: Any) -> bytes:
        # JSON has no bare line break, which would end the field.
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        return f"id: {self.epoch}.{self._last}\nevent: {event}\ndata: {text}\n\n".encode()
