"""Where a client keeps what must survive a restart, and under which name: two processes never share a folder."""

from __future__ import annotations

import fcntl
from contextlib import ExitStack
from pathlib import Path

from fedprune.errors import StoreError

MAX_CLIENTS_PER_FOLDER = 1024


def take_place(state: Path, name: str, held: ExitStack, *, alone: bool = False) -> tuple[str, Path]:
    """The first free place of this name below `state`, locked until `held` closes: its identity and folder. With
    `alone` there is one place only: a key belongs to one process."""
    for number in range(1 if alone else MAX_CLIENTS_PER_FOLDER):
        identity = name if number == 0 else f"{name}-{number}"
        folder = state / identity
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = held.enter_context((folder / "lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            raise StoreError(
                "cannot keep the client's state", seen=f"{folder}: {error.strerror}", next_step="Give another --state"
            ) from error
        return identity, folder
    if alone:
        raise StoreError("a client with this certificate runs already", seen=name, next_step="Give each its own")
    raise StoreError("too many clients of this name", seen=name, expected=f"at most {MAX_CLIENTS_PER_FOLDER}")
