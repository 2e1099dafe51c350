"""How soon a browser shows a round: from the moment its line stands in `rounds.jsonl` to the change in a real page.

Needs Chromium and Playwright.

Example: python bench/browser.py --rounds 200
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from fedprune_lab.bench.watched import ROUNDS, made
from fedprune_lab.benching import keep
from fedprune_lab.view import LineView

LOOK_S = 0.002


class Lines(threading.Thread):
    """When each line of a growing file was there, to `LOOK_S`."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path, self._over = path, threading.Event()
        self.times: list[float] = []

    def run(self) -> None:
        size = 0
        while not self._over.wait(LOOK_S):
            with suppress(FileNotFoundError):
                if os.stat(self._path).st_size != size:
                    seen, text = time.time(), self._path.read_bytes()
                    size = len(text)
                    self.times += [seen] * (text.count(b"\n") - len(self.times))

    def end(self) -> None:
        self._over.set()
        self.join()


DRAWN = """addEventListener("DOMContentLoaded", () => {
    window.drawn = [];
    const round = () => fedprune.runs.at(-1)?.rounds.at(-1)?.round ?? 0;
    new MutationObserver(() => drawn.push([round(), Date.now() / 1000]))
        .observe(document.getElementById("progress"), { attributes: true });
});"""


class Browser(threading.Thread):
    """A real page, opened as soon as it is served; `drawn` has the rounds it showed and when, once the run is over."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.ready, self.over = threading.Event(), threading.Event()
        self.drawn: list[tuple[int, float]] = []

    def run(self) -> None:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as driver:
            flags = ["--no-sandbox"] if os.geteuid() == 0 else []
            page = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags).new_page()
            page.add_init_script(DRAWN)
            self.ready.set()
            # A browser that is refused draws a page about it, for seconds: first see whether somebody serves.
            while not self.over.wait(LOOK_S):
                with suppress(OSError):
                    urllib.request.urlopen(self._url).close()
                    page.goto(self._url, wait_until="commit")
                    break
            self.over.wait()
            self.drawn = page.evaluate("drawn")


def in_browser(kind: str, rounds: int) -> dict[str, Any]:
    """One run with a real page open: for each round how long after its line it was drawn."""
    with made(kind, rounds) as (federation, address):
        browser = Browser(f"http://{address}/")
        lines = Lines(federation.out / "bench" / "rounds.jsonl")
        browser.start()
        # A browser takes seconds to start: before the run.
        browser.ready.wait()
        lines.start()
        federation.run(LineView(Console(quiet=True)))
        browser.over.set()
        browser.join()
        lines.end()
    # The first is the story of what was before.
    late = [1000 * (seen - lines.times[number - 1]) for number, seen in browser.drawn[1:] if number]
    if not late:
        raise SystemExit("the run was over before the page was open: give it more --rounds")
    found = {"rounds": len(late), "median_ms": statistics.median(late), "longest_ms": max(late)}
    print(
        f"{kind}: a browser shows a round {found['median_ms']:.0f} ms after it, at the longest {max(late):.0f} ms, "
        f"over {len(late)} rounds"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--round", choices=sorted(ROUNDS), action="append", help="which rounds; all without it")
    options = parser.parse_args()
    result = {kind: in_browser(kind, options.rounds) for kind in options.round or sorted(ROUNDS)}
    print(f"kept in {keep('browser', result)}")


if __name__ == "__main__":
    main()
