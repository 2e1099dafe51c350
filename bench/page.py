"""What watching costs: the rounds of one run, with no live page open and with twenty, in turn.

Within one run the pages are closed, open, open and closed for so many rounds each, again and again: two runs after each
other differ by more than what is looked for, and so do the first and the last rounds of one. A page is a stream that is
read as it comes, by another process on the same cores, so the reading is in the figures; the coordinator's own processor
time is given beside them.

Example: python bench/page.py --pages 20 --turns 6
         python bench/page.py --round demo --turns 10 --length 10 --pool
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from fedprune.report import RoundReport
from fedprune_lab.bench.watched import ROUNDS, WARMING, made
from fedprune_lab.benching import OUT, keep
from fedprune_lab.view import LineView

# Rounds that a stretch gives away: a glance sees a round up to a tenth of a second late, and pages take time to open.
SETTLING = 4


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
        "seconds": [without.rounds, watched.rounds],
    }
    print(
        f"{kind}: a round takes {before:.1f} ms without pages, {after:.1f} ms with {pages} "
        f"({found['slower_percent']:+.1f} %, 90 % of resamples between {low:+.1f} and {high:+.1f} %; medians of "
        f"{len(without.rounds)} and {len(watched.rounds)} rounds); "
        f"a page costs the coordinator {found['coordinator_us_per_page_and_round']:.0f} us a round"
    )
    return found


def pooled(sittings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several sittings as one: the rounds of each in terms of its own median without pages, because machines are not as
    fast at one time as at another."""
    both: tuple[list[float], list[float]] = ([], [])
    for sitting in sittings:
        base = statistics.median(sitting["seconds"][0])
        for rounds, seconds in zip(both, sitting["seconds"], strict=True):
            rounds += [second / base for second in seconds]
    without, watched = both
    low, high = interval(without, watched)
    slower = 100 * (statistics.median(watched) / statistics.median(without) - 1)
    print(
        f"  {len(sittings)} sittings: {slower:+.1f} %, 90 % of resamples between {low:+.1f} and {high:+.1f} %; medians of "
        f"{len(without)} and {len(watched)} rounds"
    )
    return {"sittings": list(sittings), "slower_percent": slower, "slower_percent_90": [low, high]}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--turns", type=int, default=6, help="stretches of each sort")
    parser.add_argument("--length", type=int, default=16, help="rounds of a stretch")
    parser.add_argument("--round", choices=sorted(ROUNDS), action="append", help="which rounds; all without it")
    parser.add_argument("--pool", action="store_true", help="with the sittings that were kept before")
    options = parser.parse_args()
    before = OUT / "page.json"
    result: dict[str, Any] = json.loads(before.read_text()) if options.pool and before.is_file() else {}
    result["pages"] = options.pages
    for kind in options.round or sorted(ROUNDS):
        sittings = result.get(kind, {}).get("sittings", [])
        result[kind] = pooled([*sittings, in_turn(kind, options.pages, options.turns, options.length)])
    print(f"kept in {keep('page', result)}")


if __name__ == "__main__":
    main()
