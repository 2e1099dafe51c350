"""Starting a client: the task is loaded and checked before anything is dialled, and two never share a folder."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from datetime import UTC, datetime

import torch

from fedprune.pki.credentials import Credentials
from fedprune.task import load_task
from fedprune.torch import build_model, signature
from fedprune_client.config import ClientConfig
from fedprune_client.outbox import Outbox
from fedprune_client.places import take_place
from fedprune_client.residual import ResidualFile
from fedprune_client.runner import Runner
from fedprune_client.transport import Link


def run_client(config: ClientConfig) -> int:
    """Join a coordinator and work until its runs are over; gives the exit code.

    Without TLS, clients of one name in one state folder take places in it: `name`, `name-1` and so on, each with its own
    identity, and the same ones again after a restart. With TLS the certificate says who a client is.
    """
    credentials = _credentials(config)
    if config.insecure:
        print("fedprune: --insecure: whoever is in between can read and change what is sent", file=sys.stderr)
    if config.threads:
        torch.set_num_threads(config.threads)
    loaded = load_task(config.task)
    model = build_model(loaded)
    with ExitStack() as held:
        name = config.name if credentials is None else credentials.subject.name
        identity, folder = take_place(config.state, name, held, alone=credentials is not None)

        def say(text: str) -> None:
            print(f"{identity}: {text}", file=sys.stderr, flush=True)

        async def work() -> None:
            runner = Runner(
                link=Link(config.server, identity, say=say, credentials=credentials, patience_s=config.patience_s),
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


def _credentials(config: ClientConfig) -> Credentials | None:
    if config.credentials is None:
        return None
    held = Credentials.load(config.credentials)
    held.check_current(datetime.now(UTC), next_step="Ask the coordinator's operator for an invitation")
    return held
