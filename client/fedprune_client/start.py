"""Starting a client: the task is loaded and checked before anything is dialled, and two never share a folder."""

from __future__ import annotations

import asyncio
import fcntl
import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from fedprune.errors import StoreError
from fedprune.task import load_task
from fedprune.torch import build_model, signature
from fedprune_client.config import ClientConfig
from fedprune_client.outbox import Outbox
from fedprune_client.residual import ResidualFile
from fedprune_client.runner import Runner
from fedprune_client.transport import Link

MAX_CLIENTS_PER_FOLDER = 1024


def run_client(config: ClientConfig) -> int:
    """Join a coordinator and work until its runs are over; gives the exit code.

    Clients of one name in one state folder take places in it: `name`, `name-1` and so on, each with its own identity,
    and the same ones again after a restart.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    loaded = load_task(config.task)
    model = build_model(loaded)
    with ExitStack() as held:
        identity, folder = take_place(config.state, config.name, held)

        def say(text: str) -> None:
            print(f"{identity}: {text}", file=sys.stderr, flush=True)

        async def work() -> None:
            runner = Runner(
                link=Link(config.server, identity, say=say),
                task=loaded,
                model=model,
                schema=signature(model),
                data=config.data,
                outbox=Outbox(folder / "outbox"),
                residual=ResidualFile(folder=folder, say=say),
                say=say,
            )
            await runner.run()

        asyncio.run(work())
    return 0


def take_place(state: Path, name: str, held: ExitStack) -> tuple[str, Path]:
    """The first free place of this name below `state`, locked until `held` closes: its identity and folder."""
    for number in range(MAX_CLIENTS_PER_FOLDER):
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
    raise StoreError("too many clients of this name", seen=name, expected=f"at most {MAX_CLIENTS_PER_FOLDER}")
