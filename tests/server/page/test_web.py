"""The page over HTTP: what is there, for whom, and that nothing of it comes from anywhere else."""

from __future__ import annotations

import io
import re

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.types import ASGIApp

from fedprune_server.page.watching import Watch
from fedprune_server.page.web import COOKIE, STATIC, application

TOKEN = "a-token-of-some-length"
PATHS = ("/", "/state.json", "/metrics", "/static/page.js", "/mask.png", "/events")


def browser(site: ASGIApp, *, host: str = "127.0.0.1:7401") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url=f"http://{host}")


async def test_the_page_and_its_files_are_there(watch: Watch) -> None:
    async with browser(application(watch, token=None)) as visitor:
        page = await visitor.get("/")
        assert page.status_code == 200
        named = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        assert {"static/page.js", "static/page.css", "static/uplot.js", "metrics", "state.json"} <= set(named)
        for path in named:
            assert (await visitor.get(f"/{path}")).status_code == 200, path


def test_no_other_host_is_named() -> None:
    for file in STATIC.iterdir():
        if file.name not in ("uplot.js", "uplot.LICENSE"):
            text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
            assert "//" not in re.sub(r"^\s*//.*$|\s// .*$", "", text, flags=re.MULTILINE), file.name


def test_the_chart_library_lies_there_with_its_licence() -> None:
    assert "MIT License" in (STATIC / "uplot.LICENSE").read_text()
    assert "uPlot" in (STATIC / "uplot.js").read_text(encoding="utf-8")[:400]


async def test_every_answer_keeps_the_browser_here(watch: Watch) -> None:
    async with browser(application(watch, token=None)) as visitor:
        for path in ("/", "/state.json", "/nothing"):
            headers = (await visitor.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"


async def test_without_a_token_only_loopback_names_are_served(watch: Watch) -> None:
    site = application(watch, token=None)
    for host, status in (("localhost:7401", 200), ("[::1]:7401", 200), ("evil.example", 400)):
        async with browser(site, host=host) as visitor:
            assert (await visitor.get("/state.json")).status_code == status, host


async def test_with_a_token_nobody_gets_in_without_it(watch: Watch) -> None:
    async with browser(application(watch, token=TOKEN), host="far.example") as visitor:
        for path in PATHS:
            assert (await visitor.get(path)).status_code == 401
            assert (await visitor.get(path, params={"token": TOKEN + "x"})).status_code == 401
            wrong = await visitor.get(path, headers={"authorization": "Bearer nonsense"})
            assert wrong.status_code == 401


async def test_a_program_shows_the_token_as_a_bearer(watch: Watch) -> None:
    async with browser(application(watch, token=TOKEN), host="far.example") as visitor:
        answer = await visitor.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        assert "fedprune_round" in answer.text


async def test_the_first_visit_puts_the_token_into_a_cookie_and_out_of_the_address(watch: Watch) -> None:
    async with browser(application(watch, token=TOKEN), host="far.example") as visitor:
        answer = await visitor.get("/", params={"token": TOKEN})
        assert answer.status_code == 303
        assert answer.headers["location"] == "http://far.example/"
        assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))
        assert visitor.cookies[COOKIE] == TOKEN
        assert (await visitor.get("/")).status_code == 200


async def test_the_state_is_what_the_story_says(watch: Watch) -> None:
    async with browser(application(watch, token=None)) as visitor:
        told = (await visitor.get("/state.json")).json()
    assert told == watch.story.to_dict()
    assert [client["state"] for client in told["now"]["clients"].values()] == ["waiting", "away"]


async def test_a_mask_is_a_picture(watch: Watch) -> None:
    async with browser(application(watch, token=None)) as visitor:
        answer = await visitor.get("/mask.png", params={"run": "one-1", "layer": "w", "version": 1})
    seen = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))[..., 3]
    assert (seen == np.repeat([[255], [255], [0], [0]], 6, axis=1)).all()


@pytest.mark.parametrize(
    "wrong",
    [{"run": "other"}, {"layer": "v"}, {"version": "7"}, {"version": "../1"}, {"version": ""}, {"version": "²"}],
)
async def test_a_mask_that_is_not_there_is_not_found(watch: Watch, wrong: dict[str, str]) -> None:
    right = {"run": "one-1", "layer": "w", "version": "1"}
    async with browser(application(watch, token=None)) as visitor:
        assert (await visitor.get("/mask.png", params=right | wrong)).status_code == 404


async def test_a_mask_that_is_broken_says_so(watch: Watch) -> None:
    assert watch.latest is not None
    (watch.latest.folder / "masks" / "v1.mask").write_bytes(b"nonsense")
    async with browser(application(watch, token=None)) as visitor:
        answer = await visitor.get("/mask.png", params={"run": "one-1", "layer": "w", "version": 1})
    assert answer.status_code == 500


async def test_too_many_pages_are_told_so(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedprune_server.page.feed.MAX_PAGES", 0)
    async with browser(application(watch, token=None)) as visitor:
        assert (await visitor.get("/events")).status_code == 503
