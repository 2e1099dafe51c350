"""What watching costs: the rounds of one run, with no live page open and with twenty, in turn; and how soon a browser
shows a round.

Within one run the pages are closed, open, open and closed for so many rounds each, again and again: two runs after each
other differ by more than what is looked for, and so do the first and the last rounds of one. A page is a stream that is read as it comes, by another process on the same
cores, so the reading is in the figures; the coordinator's own processor time is given beside them. With Chromium and
Playwright here a real page is timed too: from the moment a round's line stands in `rounds.jsonl` to the change in the page.

Example: python bench/page.py --pages 20 --turns 6
         python bench/page.py --only browser
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from fedprune.config import ClientsSection, RunConfig, RunSection, TrainingSection
from fedprune.report import RoundReport
from fedprune_lab.benching import keep
from fedprune_lab.demo import Plan
from fedprune_lab.federation import Federation, free_port
from fedprune_lab.view import LineView

TASK = Path(__file__).parent / "tasks" / "mlp50k.py"
CLIENTS = 8
# Rounds that a stretch gives away: a glance sees a round up to a tenth of a second late, and pages take time to open.
SETTLING = 4
# The first rounds import and warm up.
WARMING = 8
LOOK_S = 0.002


def short(rounds: int) -> tuple[RunConfig, Path, int, bool]:
    """Rounds as short as they get: eight clients that do not train, dense, without evaluation."""
    config = RunConfig(
        run=RunSection(name="bench", rounds=rounds, evaluate_every=0),
        clients=ClientsSection(expect=CLIENTS, min_clients=CLIENTS),
        training=TrainingSection(steps=1, held_out=0.0),
    )
    return config, TASK, CLIENTS, True


def demo(rounds: int) -> tuple[RunConfig, Path, int, bool]:
    """The demo's pruned run, with its four clients that train."""
    plan = Plan(out=Path(), rounds=rounds)
    return plan.config("bench", plan.density), plan.task, plan.clients, False


ROUNDS = {"short": short, "demo": demo}


@dataclass
class Stretch:
    """Rounds under one condition: their seconds; and the coordinator's processor time over `clock_s` of them."""

    pages: int
    rounds: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    clock_s: float = 0.0

    @property
    def cpu_share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.clock_s


class Turns(LineView):
    """A view that opens and closes pages as the rounds go by; the last of `pids` is the coordinator."""

    def __init__(self, readers: Readers, pages: int, length: int, pids: list[int]) -> None:
        super().__init__(Console(quiet=True))
        self._readers, self._pages, self._length, self._pids = readers, pages, length, pids
        self.stretches: list[Stretch] = []
        self._since = (0.0, 0.0)

    def round(self, row: RoundReport) -> None:
        turn, at = divmod(row.round - WARMING, self._length)
        if turn < 0:
            return
        if at == 0:
            self._close()
            self.stretches.append(Stretch(pages=self._pages if turn % 4 in (1, 2) else 0))
            self._readers.want(self.stretches[-1].pages)
        elif at >= SETTLING:
            if at == SETTLING:
                self._since = (cpu_s(self._pids[-1]), time.monotonic())
            self.stretches[-1].rounds.append(row.seconds)

    def _close(self) -> None:
        if self.stretches:
            cpu, clock = self._since
            self.stretches[-1].cpu_s, self.stretches[-1].clock_s = cpu_s(self._pids[-1]) - cpu, time.monotonic() - clock

    def whole(self) -> list[Stretch]:
        """All but the last, which the end of the run cuts."""
        return self.stretches[:-1]


def cpu_s(pid: int) -> float:
    """Processor seconds of all threads of a process."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # It may end between a look at it and this one.
        with suppress(FileNotFoundError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


class Readers(threading.Thread):
    """Open streams, as many as are wanted at the moment, read until they are closed."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._loop = asyncio.new_event_loop()
        self._open: list[asyncio.Task[None]] = []
        self.read = 0

    def run(self) -> None:
        self._loop.run_forever()

    def want(self, pages: int) -> None:
        """So many from now on; from any thread."""
        self._loop.call_soon_threadsafe(self._set, pages)

    def _set(self, pages: int) -> None:
        while len(self._open) > pages:
            self._open.pop().cancel()
        while len(self._open) < pages:
            self._open.append(self._loop.create_task(self._one()))

    async def _one(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(f"GET /events HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
            while chunk := await reader.read(1 << 16):
                self.read += len(chunk)
        finally:
            writer.close()


@contextmanager
def made(kind: str, rounds: int, look: Callable[[int], None] | None = None) -> Iterator[tuple[Federation, str]]:
    """A federation and the address of its page; `look` as in `Federation`."""
    config, task, clients, light = ROUNDS[kind](rounds)
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        yield (
            Federation(configs=[config], task=task, clients=clients, out=out, page=address, light=light, look=look),
            address,
        )


def in_turn(kind: str, pages: int, turns: int, length: int) -> dict[str, Any]:
    """One run: `turns` stretches without and as many with pages, each of so many rounds."""
    rounds = WARMING + 2 * turns * length + 1
    pids: list[int] = []
    with made(kind, rounds, pids.append) as (federation, address):
        readers = Readers(address)
        readers.start()
        view = Turns(readers, pages, length, pids)
        federation.run(view)
    both = {False: Stretch(pages=0), True: Stretch(pages=pages)}
    for stretch in view.whole():
        whole = both[stretch.pages > 0]
        whole.rounds += stretch.rounds
        whole.cpu_s += stretch.cpu_s
        whole.clock_s += stretch.clock_s
    without, watched = both[False], both[True]
    before, after = (1000 * statistics.median(s.rounds) for s in (without, watched))
    low, high = interval(without.rounds, watched.rounds)
    found = {
        "rounds": [len(without.rounds), len(watched.rounds)],
        "round_ms": [before, after],
        "slower_percent": 100 * (after / before - 1),
        "slower_percent_90": [low, high],
        "coordinator_share_of_a_core": [without.cpu_share, watched.cpu_share],
        "coordinator_us_per_page_and_round": 1e3 * (watched.cpu_share * after - without.cpu_share * before) / pages,
        "bytes_read": readers.read,
    }
    print(
        f"{kind}: a round takes {before:.1f} ms without pages, {after:.1f} ms with {pages} "
        f"({found['slower_percent']:+.1f} %, 90 % of resamples between {low:+.1f} and {high:+.1f} %; medians of "
        f"{len(without.rounds)} and {len(watched.rounds)} rounds); "
        f"a page costs the coordinator {found['coordinator_us_per_page_and_round']:.0f} us a round"
    )
    return found


def interval(without: list[float], watched: list[float]) -> tuple[float, float]:
    """Between which percentages nine tenths of bootstrapped medians say a round is slower."""
    draw = random.Random(0)
    again = [
        100
        * (
            statistics.median(draw.choices(watched, k=len(watched)))
            / statistics.median(draw.choices(without, k=len(without)))
            - 1
        )
        for _ in range(1000)
    ]
    cuts = statistics.quantiles(again, n=20)
    return cuts[0], cuts[-1]


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
        from playwright.sync_api import Error, sync_playwright

        with sync_playwright() as driver:
            flags = ["--no-sandbox"] if os.geteuid() == 0 else []
            page = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags).new_page()
            page.add_init_script(DRAWN)
            self.ready.set()
            while not self.over.wait(LOOK_S):
                with suppress(Error):
                    page.goto(self._url)
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
    found = {"rounds": len(late), "median_ms": statistics.median(late), "longest_ms": max(late)}
    print(
        f"{kind}: a browser shows a round {found['median_ms']:.0f} ms after it, at the longest {max(late):.0f} ms, "
        f"over {len(late)} rounds"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--turns", type=int, default=6, help="stretches of each sort")
    parser.add_argument("--length", type=int, default=16, help="rounds of a stretch")
    parser.add_argument("--round", choices=sorted(ROUNDS), action="append", help="which rounds; all without it")
    parser.add_argument("--only", choices=["pages", "browser"])
    options = parser.parse_args()
    kinds = options.round or sorted(ROUNDS)
    result: dict[str, Any] = {"pages": options.pages}
    if options.only != "browser":
        result |= {kind: in_turn(kind, options.pages, options.turns, options.length) for kind in kinds}
    if options.only != "pages" and shutil.which("chromium"):
        result["browser"] = {kind: in_browser(kind, WARMING + 2 * options.length) for kind in kinds}
    print(f"kept in {keep('page', result)}")


if __name__ == "__main__":
    main()
