"""Clients on hosts of their own, behind 10 Mbit/s and 40 ms each way: what of a round is the network's. Needs root.

An 11-million-parameter model at density 0.1 from the first round on, three clients, one coordinator at 1 Gbit/s, each
in a network namespace (`lab/fedprune_lab/bench/hosts.py`). The network's part of a round is read from the frames: the
seconds in which one was on its way to or from a client, waiting for its turn included (`bursts.py`). Beside it stands the same
with all pauses of up to two round trips, in which programs are at work. The counting relay stands on the coordinator's
host; kernel, relay, interface and ledger have to agree.

Example: python bench/hosts.py
         python bench/hosts.py --rate 2mbit --delay 100ms --rounds 4
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fedprune.config import ClientsSection, RunConfig, RunSection, TrainingSection
from fedprune.errors import FedpruneError, LocalError
from fedprune.network_section import NetworkSection
from fedprune.pruning_section import PruningSection
from fedprune.report import RunReport
from fedprune_lab.bench.bursts import TIMERS_S, Busy, busy
from fedprune_lab.bench.hosts import HEADER_BYTES, Count, Hosts
from fedprune_lab.benching import keep
from fedprune_lab.federation import Tail
from fedprune_lab.link import Link, bit_per_s, seconds
from fedprune_lab.reading import REPORT, read

TASK = Path(__file__).parent / "tasks" / "resnet18_judged.py"
COORDINATOR = Link(rate_bit_per_s=1e9)
PORT, BEHIND_RELAY = 7400, 7401
POLL_S = 0.02
OVER_BYTES, ROUND_TRIPS, TIMES_RAW, APART = 1.05, 8, 9.0, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one bench saw: `commits_s` by the switch's clock, `relay` and `interface` in bytes up and down."""

    report: RunReport
    commits_s: list[float]
    relay: dict[str, int]
    interface: Count
    frames: np.ndarray


def config(rounds: int, clients: int, density: float) -> RunConfig:
    """The run: pruned before round 1, one local step a round."""
    return RunConfig(
        run=RunSection(name="hosts", rounds=rounds, evaluate_every=0),
        clients=ClientsSection(expect=clients, min_clients=clients, deadline_s=600.0),
        training=TrainingSection(steps=1, batch_size=8, held_out=0.0),
        pruning=PruningSection(density=density, schedule="init"),
        network=NetworkSection(heartbeat_s=30.0),
    )


def play(link: Link, asked: argparse.Namespace, folder: Path) -> Seen:
    """One run over such links."""
    run = config(asked.rounds, asked.clients, asked.density)
    (folder / "run.toml").write_text(run.to_toml())
    server = ["serve", str(folder / "run.toml"), "--task", str(TASK), "--out", str(folder)]
    server += ["--address", f"127.0.0.1:{BEHIND_RELAY}"]
    client = ["run", "--server", f"{Hosts.address(0)}:{PORT}", "--insecure", "--task", str(TASK)]
    with Hosts(links=[COORDINATOR, *[link] * asked.clients], folder=folder) as hosts:
        line = ["--listen", f"0.0.0.0:{PORT}", "--to", f"127.0.0.1:{BEHIND_RELAY}"]
        relay = hosts.start(0, [sys.executable, "-m", "fedprune_lab.line", *line], folder / "relay.log")
        coordinator = hosts.start(0, [sys.executable, "-m", "fedprune_server", *server], folder / "coordinator.log")
        for n in range(1, asked.clients + 1):
            own = ["--threads", "1", "--name", f"client-{n}", "--state", str(folder / f"client-{n}")]
            command = [sys.executable, "-m", "fedprune_client", *client, *own]
            hosts.start(n, command, folder / f"client-{n}.log")
        commits, tail = [], Tail(folder / "hosts" / "rounds.jsonl")
        while coordinator.poll() is None:
            commits += [time.monotonic() for _ in tail.rows()]
            time.sleep(POLL_S)
        if coordinator.returncode:
            raise LocalError(f"the coordinator failed:\n{(folder / 'coordinator.log').read_text()[-2000:]}")
        relay.terminate()
        relay.wait()
        interface = hosts.count(0)
        hosts.still()
        frames = np.load(hosts.trace)
    _, (report,) = read(folder / "hosts" / REPORT)
    crossed = json.loads((folder / "relay.log").read_text().splitlines()[-1])
    return Seen(report=report, commits_s=commits, relay=crossed, interface=interface, frames=frames)


def lines(seen: Seen, link: Link, clients: int) -> list[dict[str, float]]:
    """For each client, over the rounds from the second on: seconds of network a round, and what is allowed."""
    spans = list(zip(seen.commits_s, seen.commits_s[1:], strict=False))
    rows = []
    for client in range(1, clients + 1):
        rounds = [_busy(seen, client, span, TIMERS_S) for span in spans]
        paused = [_busy(seen, client, span, max(4 * link.delay_s, 0.05)) for span in spans]
        line_s = [8 * (b.up_bytes + b.down_bytes) / link.rate_bit_per_s for b in rounds]
        rows.append(
            {
                "client": client,
                "up_bytes": sum(b.up_bytes for b in rounds) / len(rounds),
                "down_bytes": sum(b.down_bytes for b in rounds) / len(rounds),
                "line_s": sum(line_s) / len(rounds),
                "network_s": sum(b.seconds for b in rounds) / len(rounds),
                "longest_s": max(b.seconds for b in rounds),
                "with_pauses_s": sum(b.seconds for b in paused) / len(rounds),
                "allowed_s": OVER_BYTES * sum(line_s) / len(rounds) + ROUND_TRIPS * 2 * link.delay_s,
            }
        )
    return rows


def _busy(seen: Seen, client: int, span: tuple[float, float], pause_s: float) -> Busy:
    return busy(seen.frames, client=client, from_s=span[0], until_s=span[1], pause_s=pause_s)


def counts(seen: Seen) -> dict[str, dict[str, float]]:
    """Bytes up and down over the whole run, each as its own witness saw them, headers taken off the frames."""
    heard = seen.interface
    ways = {way: seen.frames[seen.frames["way"] == number] for number, way in enumerate(("up", "down"))}
    heartbeats = seen.report.totals.ledger.get("heartbeat")
    assert seen.report.totals.socket is not None
    return {
        "interface, as counted": {"up": heard.received, "down": heard.sent},
        "interface, less headers": {
            "up": heard.received - HEADER_BYTES * len(ways["up"]),
            "down": heard.sent - HEADER_BYTES * len(ways["down"]),
        },
        "kernel": asdict(seen.report.totals.socket),
        "relay": seen.relay,
        "ledger": asdict(seen.report.totals.payload + heartbeats if heartbeats else seen.report.totals.payload),
    }


def apart(witnesses: dict[str, dict[str, float]]) -> float:
    """The largest distance of two witnesses, as a share, headers taken off."""
    bare = [w for name, w in witnesses.items() if not name.endswith("as counted")]
    return max(max(w[way] for w in bare) / min(w[way] for w in bare) - 1 for way in ("up", "down"))


def show(rows: list[dict[str, float]], raw_s: float, witnesses: dict[str, dict[str, float]], console: Console) -> None:
    """The two tables."""
    table = Table(title="a round of one client, mean", title_justify="left")
    for heading in (
        "client",
        "up",
        "down",
        "bytes / rate",
        "network",
        "at most",
        "longest",
        "with pauses",
        "raw",
        "fewer",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row['client']:.0f}",
            *(f"{row[key] / 1e6:.3f} MB" for key in ("up_bytes", "down_bytes")),
            *(f"{row[key]:.2f} s" for key in ("line_s", "network_s", "allowed_s", "longest_s", "with_pauses_s")),
            f"{raw_s:.2f} s",
            f"{raw_s / row['network_s']:.1f}x",
        )
    console.print(table)
    for name, one in witnesses.items():
        console.print(f"{name:<26} up {one['up']:>13,.0f}   down {one['down']:>13,.0f}")
    console.print(f"apart: {apart(witnesses):.3%}, at most {APART:.0%}; gates: {TIMES_RAW:g}x fewer than raw dense")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="10mbit", help="of a client's line, each way")
    parser.add_argument("--delay", default="40ms", help="one way")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8, help="the first one is left out")
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--keep-logs", type=Path, metavar="DIR", help="where everything is left, for a look")
    return parser.parse_args()


def main() -> int:
    """The bench; 1 when a gate does not hold."""
    asked = arguments()
    try:
        link = Link(rate_bit_per_s=bit_per_s(asked.rate), delay_s=seconds(asked.delay))
        with tempfile.TemporaryDirectory() as folder:
            seen = play(link, asked, asked.keep_logs or Path(folder))
    except FedpruneError as error:
        print(f"fedprune: {error}", file=sys.stderr)
        return 2
    rows, witnesses = lines(seen, link, asked.clients), counts(seen)
    dense = seen.report.rounds[-1].dense_equivalent
    raw_s = 8 * dense.both / asked.clients / link.rate_bit_per_s
    show(rows, raw_s, witnesses, Console(width=120))
    print(f"kept in {keep('hosts', {'clients': rows, 'raw_s': raw_s, 'bytes': witnesses, 'apart': apart(witnesses)})}")
    holds = all(r["network_s"] <= r["allowed_s"] and raw_s >= TIMES_RAW * r["network_s"] for r in rows)
    return int(not (holds and apart(witnesses) <= APART))


if __name__ == "__main__":
    sys.exit(main())
