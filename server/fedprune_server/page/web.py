"""The page over HTTP: its files, the stream of events, pictures of masks, the state as JSON, and `/metrics`.

Everything is read only and comes from this process: no other host is named anywhere, so that the page works where
there is no other host. Beyond loopback every request shows a token: as a cookie that the first visit sets, or as a
bearer token.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedprune.codec import decode_mask_set
from fedprune.errors import RemoteError
from fedprune.picture import mask_png
from fedprune_server.page.metrics import CONTENT_TYPE, Exposition
from fedprune_server.page.watching import Watch

STATIC = Path(__file__).with_name("static")
COOKIE = "fedprune"
LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TURNED_AWAY = "This page asks for a token: open the address that the coordinator printed when it started.\n"


@dataclass(slots=True, kw_only=True)
class Pages:
    """The routes."""

    watch: Watch
    exposition: Exposition

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return FileResponse(STATIC / "index.html")

    async def events(self, request: Request) -> Response:
        """The stream of server-sent events; a page that comes back names the last one it got."""
        if self.watch.feed.full:
            return PlainTextResponse("Too many pages are open; close one.\n", status_code=503)
        self.watch.glance()
        last_id = request.headers.get("last-event-id", "")
        return StreamingResponse(self.watch.feed.listen(last_id), media_type="text/event-stream")

    async def state(self, request: Request) -> Response:
        """All that a page knows, as one JSON object."""
        self.watch.glance()
        return JSONResponse(self.watch.story.to_dict())

    async def metrics(self, request: Request) -> Response:
        """What Prometheus scrapes."""
        return Response(self.exposition.text(), media_type=CONTENT_TYPE)

    async def mask(self, request: Request) -> Response:
        """A picture of one layer in one version of a run's mask."""
        run, layer = self.watch.runs.get(request.query_params.get("run", "")), request.query_params.get("layer", "")
        version = request.query_params.get("version", "")
        if run is None or not version.isdecimal():
            return PlainTextResponse("There is no such run here.\n", status_code=404)
        file = run.folder / "masks" / f"v{int(version)}.mask"
        if not file.is_file():
            return PlainTextResponse("There is no such mask.\n", status_code=404)
        try:
            found = await asyncio.to_thread(lambda: decode_mask_set(file.read_bytes(), schema=run.schema).alive)
        except RemoteError as error:
            return PlainTextResponse(f"{error}\n", status_code=500)
        if layer not in found:
            return PlainTextResponse("There is no such layer.\n", status_code=404)
        picture = await asyncio.to_thread(mask_png, found[layer])
        return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})


def application(watch: Watch, *, token: str | None) -> ASGIApp:
    """The whole site; `token` None is for loopback only, and then the Host header must name loopback too: another
    site's name that was made to lead here reads nothing."""
    pages = Pages(watch=watch, exposition=Exposition(watch))
    site = Starlette(
        routes=[
            Route("/", pages.index),
            Route("/events", pages.events),
            Route("/state.json", pages.state),
            Route("/mask.png", pages.mask),
            Route("/metrics", pages.metrics),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
    )
    guarded = TrustedHostMiddleware(site, LOOPBACK_NAMES) if token is None else Gate(site, token)
    return with_headers(guarded)


class Gate:
    """Lets in who shows the token."""

    def __init__(self, site: ASGIApp, token: str) -> None:
        self._site = site
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if self._is_it(request.query_params.get("token")):
            # Out of the address line, where it would be copied, and into a cookie.
            answer: ASGIApp = self._welcome(request)
        elif self._is_it(request.cookies.get(COOKIE)) or self._is_it(_bearer(request)):
            answer = self._site
        else:
            answer = PlainTextResponse(TURNED_AWAY, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        await answer(scope, receive, send)

    def _welcome(self, request: Request) -> Response:
        answer = RedirectResponse(request.url.remove_query_params("token"), status_code=303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict", secure=secure)
        return answer

    def _is_it(self, shown: str | None) -> bool:
        return shown is not None and hmac.compare_digest(shown.encode(), self._token.encode())


def _bearer(request: Request) -> str | None:
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else None


def with_headers(site: ASGIApp) -> ASGIApp:
    """The same site, whose answers keep a browser from asking anybody else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await site(scope, receive, send_with_headers)

    return answer
