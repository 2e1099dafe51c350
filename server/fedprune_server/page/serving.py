"""Where the page listens: on this machine only, unless it is told otherwise, and then with a token.

It runs in the coordinator's own event loop and ends with it. The token is made once and kept, so that a page that is
open finds its way back after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from fedprune.addresses import is_loopback
from fedprune.errors import ConfigError
from fedprune.report import RunReport
from fedprune_server.coordinator import Coordinator
from fedprune_server.onlookers import Begun
from fedprune_server.page.feed import Feed
from fedprune_server.page.story import Story
from fedprune_server.page.watching import Watch
from fedprune_server.page.web import application

TOKEN_FILE = "page-token"
SHORTEST_TOKEN = 16
FAREWELL_S = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An open port for the page, and what to type into a browser."""

    listener: socket.socket
    token: str | None

    @classmethod
    def open(cls, address: str, *, token_file: Path | None, out: Path) -> Place:
        """Listen on HOST:PORT. Raises `ConfigError` when that cannot be, or when a token file holds none."""
        host, _, port = address.rpartition(":")
        token = None if is_loopback(address) else read_token(token_file, out)
        bare = host.strip("[]")
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        try:
            listener = socket.create_server((bare, int(port)), family=family)
        except OSError as error:
            raise ConfigError(
                "the page cannot listen: the port is in use, or the address is not this machine's",
                seen=address,
                next_step="Give another --page-address, or stop the other coordinator",
            ) from error
        return cls(listener=listener, token=token)

    @property
    def url(self) -> str:
        """The page's address, with the token where it needs one."""
        host, port = self.listener.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        if host in ("0.0.0.0", "::"):
            name = socket.gethostname()
        return f"http://{name}:{port}/" + (f"?token={self.token}" if self.token else "")


def read_token(file: Path | None, out: Path) -> str:
    """The token in `file`, or the one kept in `out`, made where there is none."""
    kept = file or out / TOKEN_FILE
    if file is None and not kept.is_file():
        out.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(24) + "\n")
    try:
        token = kept.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the page's token cannot be read: {error}", next_step="Check [page] token_file") from error
    if len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"the page's token in {kept} is too short", expected=f"{SHORTEST_TOKEN} characters or more")
    return token


@asynccontextmanager
async def served(
    place: Place, coordinator: Coordinator, earlier: Sequence[tuple[Begun, RunReport]] = ()
) -> AsyncIterator[Watch]:
    """The page, for as long as the block lasts; gives what has to be told of the runs. It shows `earlier` ones too."""
    watch = Watch(coordinator=coordinator, feed=Feed(story=Story(epoch=uuid.uuid4().hex[:8])))
    for run, report in earlier:
        watch.begin(run)
        watch.end(report)
    config = uvicorn.Config(
        application(watch, token=place.token),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=FAREWELL_S,
    )
    server = _Guest(config)
    async with watch.listening():
        serving = asyncio.create_task(server.serve(sockets=[place.listener]))
        try:
            yield watch
        finally:
            # First the streams: a server that waits for them would wait for ever.
            watch.glance()
            watch.feed.close()
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving


class _Guest(uvicorn.Server):
    """A server in a process that heeds signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
