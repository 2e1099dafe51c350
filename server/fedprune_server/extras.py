"""What is installed and imported only where somebody asks for it: the live page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedprune.errors import MissingExtraError
from fedprune.report import RunReport
from fedprune_server.coordinator import Coordinator
from fedprune_server.onlookers import Begun, Onlooker


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page whose port is open: `url` for people, `serve` for the process that serves it, with the runs that were over
    before it."""

    url: str
    serve: Callable[[Coordinator, Sequence[tuple[Begun, RunReport]]], AbstractAsyncContextManager[Onlooker]]


def open_page(address: str, *, token_file: Path | None, out: Path) -> Page:
    """Open the page's port at HOST:PORT. Raises `MissingExtraError` without the libraries, `ConfigError` without the
    port or the token."""
    try:
        from fedprune_server.page.serving import Place, served
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the live page needs {error.name}", next_step="Install it: pip install 'fedprune[page]'"
        ) from error
    place = Place.open(address, token_file=token_file, out=out)
    return Page(url=place.url, serve=partial(served, place))
