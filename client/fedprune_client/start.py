"""Starting a client: the task is loaded and checked before anything is dialled, and two never share a folder."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fedprune.pki.credentials import Credentials
from fedprune.task import load_task
from fedprune.torch import build_model, signature
from fedprune_client.config import ClientConfig
from fedprune_client.enrolling import enrolled
from fedprune_client.outbox import Outbox
from fedprune_client.places import take_place
from fedprune_client.renewing import keep_current
from fedprune_client.residual import ResidualFile
from fedprune_client.runner import Runner
from fedprune_client.transport import Link


def run_client(config: ClientConfig) -> dict[str, Any]:
    """Join a coordinator and work until its runs are over; gives who this was, and how each run ended, as plain values.

    Without TLS, clients of one name in one state folder take places in it: `name`, `name-1` and so on, each with its own
    identity, and the same ones again after a restart. With TLS the certificate says who a client is.
    """
    if config.insecure:
        print("fedprune: --insecure: whoever is in between can read and change what is sent", file=sys.stderr)
    if config.threads:
        torch.set_num_threads(config.threads)
    loaded = load_task(config.task)
    model = build_model(loaded)
    with ExitStack() as held:
        credentials = _credentials(config, held)
        name = config.name if credentials is None else credentials.subject.name
        identity, folder = take_place(config.state, name, held, alone=credentials is not None)

        def say(text: str) -> None:
            print(f"{identity}: {text}", file=sys.stderr, flush=True)

        async def work() -> list[dict[str, str]]:
            link = Link(config.server, identity, say=say, credentials=credentials, patience_s=config.patience_s)
            runner = Runner(
                link=link,
                task=loaded,
                model=model,
                schema=signature(model),
                data=config.data,
                outbox=Outbox(folder / "outbox"),
                residual=ResidualFile(folder=folder, say=say),
                say=say,
            )
            async with _kept_current(link, credentials, config.credentials, say):
                await runner.run()
            return [{"run_id": end.run_id, "summary": end.summary} for end in runner.ends]

        return {"client": identity, "coordinator": config.server, "runs": asyncio.run(work())}


def _credentials(config: ClientConfig, held: ExitStack) -> Credentials | None:
    """What this client shows, enrolled with first where it comes by an invitation."""
    if config.credentials is None:
        return None
    if config.join is not None:
        take_place(config.credentials.parent, config.credentials.name, held, alone=True)
        mine = enrolled(config.credentials, config.join, say=_say_plainly, patience_s=config.patience_s)
    else:
        mine = Credentials.load(config.credentials)
    mine.check_current(datetime.now(UTC), next_step="Ask the coordinator's operator for an invitation")
    return mine


def _say_plainly(text: str) -> None:
    print(f"fedprune: {text}", file=sys.stderr, flush=True)


@asynccontextmanager
async def _kept_current(
    link: Link, credentials: Credentials | None, folder: Path | None, say: Callable[[str], None]
) -> AsyncIterator[None]:
    if credentials is None or folder is None:
        yield
        return
    renewing = asyncio.create_task(keep_current(link, credentials, folder, say))
    try:
        yield
    finally:
        renewing.cancel()
