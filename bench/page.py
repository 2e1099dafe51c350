"""What watching costs: rounds with no live page open and with twenty, in turn; and how soon a browser shows a round.

The pages are streams that are read as they come, from another process; with Chromium and Playwright here, one real page
is timed too: from the coordinator's glance when a round is committed to the change in the page.

Example: python bench/page.py --pages 20 --pairs 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from fedprune.config import ClientsSection, RunConfig, RunSection, TrainingSection
from fedprune_lab.benching import keep
from fedprune_lab.federation import Federation, free_port
from fedprune_lab.view import LineView

TASK = Path(__file__).parent / "tasks" / "mlp50k.py"
CLIENTS = 8
# The first rounds import and warm up.
SKIPPED = 5


@dataclass
class Seen:
    """One run: seconds of each round, CPU seconds of the coordinator, bytes that pages read."""

    rounds: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    read: int = 0


def run(pages: int, rounds: int, visit: Callable[[str], None] | None = None) -> Seen:
    """A run of light clients with so many pages open."""
    config = RunConfig(
        run=RunSection(name="bench", rounds=rounds, evaluate_every=0),
        clients=ClientsSection(expect=CLIENTS, min_clients=CLIENTS),
        training=TrainingSection(steps=1, held_out=0.0),
    )
    seen, address = Seen(), f"127.0.0.1:{free_port()}"
    readers = Readers(address, pages, seen)

    def look(pid: int) -> None:
        # It may end between a look at it and this one.
        with contextlib.suppress(FileNotFoundError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seen.cpu_s = sum(int(ticks) for ticks in stat[11:13]) / os.sysconf("SC_CLK_TCK")

    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(
            configs=[config],
            task=TASK,
            clients=CLIENTS,
            out=Path(folder) / "run",
            page=address,
            light=True,
            look=look,
        )
        watching = [threading.Thread(target=readers.read, daemon=True)] if pages else []
        watching += [threading.Thread(target=visit, args=(f"http://{address}/",), daemon=True)] if visit else []
        for thread in watching:
            thread.start()
        (report,), _ = federation.run(LineView(Console(quiet=True)))
        for thread in watching:
            thread.join()
    seen.rounds = [row.seconds for row in report.rounds[SKIPPED:]]
    return seen


@dataclass
class Readers:
    """Open streams, read until the coordinator ends."""

    address: str
    pages: int
    seen: Seen

    def read(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        host, _, port = self.address.rpartition(":")
        while True:
            try:
                _, first = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.1)
            else:
                first.close()
                break
        await asyncio.gather(*(self._one(host, int(port)) for _ in range(self.pages)))

    async def _one(self, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET /events HTTP/1.1\r\nHost: {self.address}\r\n\r\n".encode())
        while chunk := await reader.read(1 << 16):
            self.seen.read += len(chunk)
        writer.close()


def latencies_ms(url: str, found: list[float]) -> None:
    """Open a real page; when the run is over, add for each round how long after the glance it was drawn."""
    from playwright.sync_api import Error, sync_playwright

    script = """addEventListener("DOMContentLoaded", () => {
        window.drawn = [];
        new MutationObserver(() => window.drawn.push(Date.now() - 1000 * fedprune.now.time))
            .observe(document.getElementById("progress"), { attributes: true });
    });"""
    with sync_playwright() as driver:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        page = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags).new_page()
        page.add_init_script(script)
        while True:
            try:
                page.goto(url)
                break
            except Error:
                time.sleep(0.2)
        while page.evaluate("(fedprune.runs[0]?.outcome ?? 'running') === 'running'"):
            time.sleep(0.2)
        # The first is the story of what was before.
        found += page.evaluate("drawn.slice(1)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", choices=["pages", "browser"])
    options = parser.parse_args()
    result: dict[str, Any] = {"pages": options.pages, "rounds": options.rounds, "clients": CLIENTS}
    if options.only != "browser":
        result |= compared(options.pages, options.pairs, options.rounds)
        slower, medians = result["slower_percent"], (result["without"]["round_ms"], result["watched"]["round_ms"])
        print(
            f"a round takes {medians[0]:.1f} ms without pages, {medians[1]:.1f} ms with {options.pages}: {slower:+.1f} %"
        )
    if options.only != "pages" and shutil.which("chromium"):
        drawn: list[float] = []
        run(0, options.rounds, lambda url: latencies_ms(url, drawn))
        quick, slow = statistics.median(drawn), max(drawn)
        result["browser_ms"] = {"rounds": len(drawn), "median": quick, "longest": slow}
        print(f"a browser shows a round after {quick:.0f} ms, at the longest {slow:.0f} ms, over {len(drawn)} rounds")
    print(f"kept in {keep('page', result)}")


def compared(pages: int, pairs: int, rounds: int) -> dict[str, Any]:
    """Medians over all rounds without and with pages, the two in turn."""
    runs: dict[str, list[Seen]] = {"without": [], "watched": []}
    for _ in range(pairs):
        runs["without"].append(run(0, rounds))
        runs["watched"].append(run(pages, rounds))
    found: dict[str, Any] = {
        name: {
            "round_ms": 1000 * statistics.median(s for seen in several for s in seen.rounds),
            "coordinator_cpu_s": statistics.median(seen.cpu_s for seen in several),
            "bytes_read": sum(seen.read for seen in several),
        }
        for name, several in runs.items()
    }
    return found | {"slower_percent": 100 * (found["watched"]["round_ms"] / found["without"]["round_ms"] - 1)}


if __name__ == "__main__":
    main()
