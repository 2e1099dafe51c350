"""Named places where a program can be made to fail, so that its promises are tried on the program that users run.

Each program has one closed table of points (name -> what has just happened there) and calls `reach(name)` at each.
Nothing happens unless the point was armed when the program started, by a line such as
`commit-version-before-commit=kill@3, blob-before-sync=enospc`: the third pass kills the process, the first sync fails
as it does on a full disk. An unknown name is refused, so that a test cannot pass because of a misspelling.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from fedprune.errors import ConfigError, LocalError

ARM = re.compile(r"(?P<name>[a-z-]+)=(?P<action>[a-z]+)(@(?P<hit>[1-9][0-9]{0,8}))?")


class Action(Enum):
    """What happens at an armed point."""

    KILL = "kill"
    STOP = "stop"
    ENOSPC = "enospc"
    EIO = "eio"


ERRORS = {Action.ENOSPC: errno.ENOSPC, Action.EIO: errno.EIO}
SIGNALS = {Action.KILL: signal.SIGKILL, Action.STOP: signal.SIGSTOP}
assert set(ERRORS) | set(SIGNALS) == set(Action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What has happened when the point is reached; `fails` where the disk may refuse there, so that an error can be
    injected and not only a signal."""

    meaning: str
    fails: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """`action` at the pass number `hit`, the first being 1. `passes` counts them, over all threads."""

    action: Action
    hit: int = 1
    passes: Iterator[int] = field(default_factory=lambda: itertools.count(1), compare=False)


class Failpoints:
    """The points of one program, and what was armed. Without arms a call costs one look into an empty table."""

    def __init__(self, table: Mapping[str, Point], arms: Mapping[str, Arm] | None = None) -> None:
        self._table = table
        self._arms = dict(arms or {})

    @classmethod
    def parse(cls, text: str, table: Mapping[str, Point]) -> Failpoints:
        """Read `name=action@hit, ...`; `@hit` left out means the first pass. Raises `ConfigError`."""
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        return cls(table, dict(_arm(entry, table) for entry in entries))

    @property
    def armed(self) -> tuple[str, ...]:
        """What was armed, as it was written."""
        return tuple(f"{name}={arm.action.value}@{arm.hit}" for name, arm in self._arms.items())

    def reach(self, name: str) -> None:
        """Say that the program has come to this point. Raises `OSError` when an error is armed for this pass."""
        if not self._arms:
            return
        if name not in self._table:
            raise LocalError("a failpoint that is not in the table", seen=name)
        arm = self._arms.get(name)
        if arm is None or next(arm.passes) != arm.hit:
            return
        if arm.action in SIGNALS:
            os.kill(os.getpid(), SIGNALS[arm.action])
            return
        number = ERRORS[arm.action]
        raise OSError(number, f"{os.strerror(number)} (injected at {name})")


def _arm(entry: str, table: Mapping[str, Point]) -> tuple[str, Arm]:
    found = ARM.fullmatch(entry)
    if found is None or found["action"] not in {action.value for action in Action}:
        actions = " | ".join(action.value for action in Action)
        raise ConfigError("a failpoint cannot be read", seen=entry, expected=f"NAME={actions}, then @PASS if not 1")
    point = table.get(found["name"])
    if point is None:
        raise ConfigError("there is no such failpoint", seen=found["name"], next_step="See docs/reliability.md")
    action = Action(found["action"])
    if action in ERRORS and not point.fails:
        raise ConfigError("no disk is touched at this failpoint", seen=entry, expected="kill or stop")
    return found["name"], Arm(action=action, hit=int(found["hit"] or 1))
