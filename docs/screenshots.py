"""Take the pictures of the live page and of the report under images/: the demo's pruned run in a headless Chromium.

All processes of the demo stand still while the live page is pictured, so that each picture shows the same moment of a
run that is going on. Needs Debian's chromium, Playwright and Pillow. The figures in the pictures are those of the moment; nothing compares them.

Example: python docs/screenshots.py
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO, Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from fedprune_lab.reporting import files

IMAGES = Path(__file__).resolve().parent / "images"
DEMO = [sys.executable, "-c", "from fedprune_lab.cli import main; raise SystemExit(main())", "demo", "--page", "--out"]
Window = tuple[int, int]
Scheme = Literal["light", "dark"]
Picture = tuple[str, Window, Scheme]

LAPTOP: Window = (1366, 900)
PHONE: Window = (390, 844)
# Each picture: its name, the window, light or dark.
LIVE: tuple[Picture, ...] = (
    ("live-laptop", LAPTOP, "light"),
    ("live-dark", LAPTOP, "dark"),
    ("live-phone", PHONE, "light"),
)
REPORT: tuple[Picture, ...] = (
    ("report", LAPTOP, "light"),
    ("report-dark", LAPTOP, "dark"),
    ("report-phone", PHONE, "light"),
)
# Late enough that there is something to see.
SHOWN_ROUND = 33
AS_FAR = f"window.fedprune?.runs.length > 1 && fedprune.runs[1].rounds.length >= {SHOWN_ROUND}"
LOOK_MS = 20


def main() -> None:
    """Run the demo, take the pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        # A root user, as in a container, has no sandbox.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        with subprocess.Popen([*DEMO, folder], stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            url = address(running.stdout)
            served(url, running)
            pages = {name: opened(browser, url, window, scheme) for name, window, scheme in LIVE}
            as_far(*pages.values())
            everyone = family(running.pid)
            for pid in everyone:
                os.kill(pid, signal.SIGSTOP)
            for name, page in pages.items():
                taken(name, page)
            for pid in everyone:
                os.kill(pid, signal.SIGCONT)
            running.communicate()
        _, (html, *_) = files.write([Path(folder) / "demo"], Path(folder))
        for name, window, scheme in REPORT:
            taken(name, opened(browser, html.as_uri(), window, scheme))
        browser.close()


def address(said: IO[str]) -> str:
    """Where the demo says its page is."""
    return next(found[1] for line in said if (found := re.search(r"live page: (\S+)", line)))


def served(url: str, by: subprocess.Popen[str]) -> None:
    """Wait until somebody answers there."""
    while by.poll() is None:
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(LOOK_MS / 1000)
        else:
            return
    raise SystemExit("the demo ended before its page was served")


def opened(browser: Browser, url: str, window: Window, scheme: Scheme) -> Page:
    """A window of that size at `url`."""
    page = browser.new_page(viewport={"width": window[0], "height": window[1]}, color_scheme=scheme)
    # Not until all is drawn: the run goes on meanwhile.
    page.goto(url, wait_until="commit")
    return page


def as_far(*pages: Page) -> None:
    """Wait until all of them show enough."""
    # The page's own rules let nobody wait inside it by a string of code.
    while not all(page.evaluate(AS_FAR) for page in pages):
        pages[0].wait_for_timeout(LOOK_MS)


def family(pid: int) -> list[int]:
    """A process and all that it has started, as Linux tells it."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(one for child in children for one in family(child))]


def taken(name: str, page: Page) -> None:
    """Keep a picture of the whole page, in the 256 colours that suit it best: less than half the bytes."""
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    few = whole.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    few.save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
