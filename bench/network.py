"""One training behind slow links: dense, pruned, pruned and compressed: `python bench/network.py`.

The digits of the demo, four clients, each behind a line of its own (the lab's relay: rate, delay, jitter, resets,
cuts). For each rate and way of sending: bytes and seconds of a round, how much of the link was used, and how long it
took to an accuracy. The defaults take about ten minutes, most of them the dense run at 1 Mbit/s.

Example: fedprune bench network --rate 1mbit,10mbit --delay 40ms
         fedprune bench network --rate 10mbit --delay 40ms --jitter 10ms --reset-every 20s
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from fedprune.errors import FedpruneError
from fedprune.report import RunReport
from fedprune.traffic import Traffic
from fedprune_lab.bench import network
from fedprune_lab.bench.network_plot import plot
from fedprune_lab.benching import OUT, keep
from fedprune_lab.federation import Federation
from fedprune_lab.link import Link, bit_per_s, rate_text, seconds
from fedprune_lab.relay import Crossed
from fedprune_lab.view import LineView

TASK = Path(network.__file__).parents[1] / "digits.py"


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="1mbit,10mbit,100mbit", help="rates of a client's line, both ways")
    parser.add_argument("--delay", default="40ms", help="one way; a round trip takes twice as long")
    parser.add_argument("--jitter", default="0ms", help="most that is added to a delay or taken from it")
    parser.add_argument("--reset-every", default="0s", help="reset all connections so often, on average")
    parser.add_argument("--cut-every", default="0s", help="fall silent so often, on average, for --cut-for")
    parser.add_argument("--cut-for", default="2s")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--accuracy", type=float, default=0.95, help="the accuracy to reach, as a share")
    return parser.parse_args()


def link_of(asked: argparse.Namespace) -> Link:
    """The line, but for its rate."""
    return Link(
        delay_s=seconds(asked.delay),
        jitter_s=seconds(asked.jitter),
        reset_every_s=seconds(asked.reset_every),
        cut_every_s=seconds(asked.cut_every),
        cut_s=seconds(asked.cut_for),
    )


def behind(link: Link, asked: argparse.Namespace, console: Console) -> tuple[list[RunReport], Crossed]:
    """The three runs behind this link, and what the relay counted over all of them."""
    configs = network.configs(rounds=asked.rounds, clients=asked.clients, density=asked.density)
    console.print(f"behind {rate_text(link.rate_bit_per_s)} a client, {1000 * link.delay_s:g} ms each way")
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(
            configs=configs, task=TASK, clients=asked.clients, out=Path(folder) / "runs", relay=True, link=link
        )
        runs, crossed = federation.run(LineView(console))
    network.check_modes(runs)
    assert crossed is not None
    return runs, crossed


def main() -> int:
    """The bench; gives the exit code."""
    asked = arguments()
    console = Console(stderr=True)
    try:
        shape = link_of(asked)
        rates = [bit_per_s(text) for text in asked.rate.split(",")]
        found = {rate: behind(replace(shape, rate_bit_per_s=rate), asked, console) for rate in rates}
    except FedpruneError as error:
        print(f"fedprune: {error}", file=sys.stderr)
        return 2
    rows = [
        network.row(run, rate_bit_per_s=rate, delay_s=shape.delay_s, target=asked.accuracy)
        for rate, (runs, _) in found.items()
        for run in runs
    ]
    print(*network.table(rows), sep="\n")
    print(f"to target: seconds of training to {asked.accuracy:.0%}; raw line: 4 bytes a float, both ways, computed")
    network.write_csv(rows, OUT / "network.csv")
    apart = {rate_text(rate): _apart(runs, crossed) for rate, (runs, crossed) in found.items()}
    print(f"relay and kernel apart, as a share: {apart}")
    print(plot({rate: runs for rate, (runs, _) in found.items()}, OUT / "network.png"))
    print(f"kept in {keep('network', {'rows': [asdict(r) for r in rows], 'relay_apart': apart})}, {OUT}/network.csv")
    return 0


def _apart(runs: list[RunReport], crossed: Crossed) -> float | None:
    """How far the relay and the kernel are apart; None where the kernel does not tell."""
    socket = Traffic.total_if_known(run.totals.socket for run in runs)
    return None if socket is None else round(abs(crossed.up + crossed.down - socket.both) / socket.both, 6)


if __name__ == "__main__":
    sys.exit(main())
