"""What eight clients with an 11-million-parameter model cost the coordinator: `python bench/memory.py`.

Memory is the coordinator's anonymous resident memory (RssAnon), Python, torch and everything included, looked at ten
times a second from its start to its end. Time is a dense round's, less the slowest client's training: both transfers
of 45 MB for each client, coding at both ends, and the fold. Bytes are held against raw float32.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from fedprune.traffic import Ratio, Traffic
from fedprune_lab.benching import dense_run, keep

TASK = Path(__file__).parent / "tasks" / "resnet18.py"
CLIENTS = 8
ROUNDS = 6  # the first one warms up
MOST_BYTES = 600_000_000
MOST_S = 4.0
MOST_OF_RAW = 1.01


class Peak:
    """The most anonymous memory a process was ever seen with, in bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def look(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            return
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        self.bytes = max(self.bytes, 1024 * int(found[1])) if found else self.bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--values", choices=("lossless", "raw"), default="lossless", help="as [compression] up and down"
    )
    values = parser.parse_args().values
    peak = Peak()
    rounds = dense_run(TASK, clients=CLIENTS, rounds=ROUNDS, batch_size=8, values=values, look=peak.look).rounds[1:]
    overhead_s = median(row.overhead_seconds for row in rounds)
    moved = Traffic.total(row.socket or row.payload for row in rounds)
    ratio = Ratio.of(Traffic.total(row.dense_equivalent for row in rounds), moved)
    assert ratio.up
    assert ratio.down
    table = Table(title=f"a dense round of 11.2 M parameters, {CLIENTS} clients", title_justify="left")
    for heading in ("", "seen", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("coordinator's peak memory", f"{peak.bytes / 1e6:.0f} MB", f"{MOST_BYTES / 1e6:.0f} MB")
    table.add_row("network and fold", f"{overhead_s:.2f} s", f"{MOST_S:.2f} s")
    table.add_row("up, share of raw float32", f"{1 / ratio.up:.3f}", f"{MOST_OF_RAW}")
    table.add_row("down, share of raw float32", f"{1 / ratio.down:.3f}", f"{MOST_OF_RAW}")
    Console().print(table)
    result = {
        "peak_bytes": peak.bytes,
        "overhead_s": [row.overhead_seconds for row in rounds],
        "round_s": [row.seconds for row in rounds],
        "of_raw": {"up": 1 / ratio.up, "down": 1 / ratio.down},
    }
    print(f"kept in {keep('memory', result)}")


if __name__ == "__main__":
    main()
