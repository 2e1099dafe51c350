"""One training behind slow links: dense, pruned, pruned and compressed: `python bench/network.py`.

The digits of the demo, four clients, each behind a line of its own (the lab's relay: rate, delay, jitter, resets,
cuts). For each rate and way of sending: bytes and seconds of a round, how much of the link was used, and how long it
took to an accuracy. With --hosts, as root, each of them has a network namespace of its own instead: a rate and a delay, and TCP
from end to end. The defaults take about ten minutes, most of them the dense run at 1 Mbit/s.

Example: fedprune bench network --rate 1mbit,10mbit --delay 40ms
         fedprune bench network --rate 10mbit --delay 40ms --jitter 10ms --reset-every 20s
         fedprune bench network --rate 10mbit --delay 40ms --hosts
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
from fedprune_lab.bench.hosted import trained
from fedprune_lab.bench.network_plot import plot
from fedprune_lab.benching import OUT, keep
from fedprune_lab.federation import Federation
from fedprune_lab.link import Link, bit_per_s, rate_text, seconds
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
    parser.add_argument("--hosts", action="store_true", help="between network namespaces, as root")
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


def behind(link: Link, asked: argparse.Namespace, console: Console) -> tuple[list[RunReport], int]:
    """The three runs behind this link, and the bytes that crossed it as somebody saw them who is neither of both ends."""
    configs = network.configs(rounds=asked.rounds, clients=asked.clients, density=asked.density)
    console.print(f"behind {rate_text(link.rate_bit_per_s)} a client, {1000 * link.delay_s:g} ms each way")
    with tempfile.TemporaryDirectory() as folder:
        if asked.hosts:
            runs, carried = trained(configs, task=TASK, link=link, clients=asked.clients, folder=Path(folder))
        else:
            federation = Federation(
                configs=configs, task=TASK, clients=asked.clients, out=Path(folder) / "runs", relay=True, link=link
            )
            runs, crossed = federation.run(LineView(console))
            assert crossed is not None
            carried = crossed.up + crossed.down
    network.check_modes(runs)
    return runs, carried


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
    name = "network-hosts" if asked.hosts else "network"
    network.write_csv(rows, OUT / f"{name}.csv")
    apart = {rate_text(rate): _apart(runs, carried) for rate, (runs, carried) in found.items()}
    print(f"{'frames less headers' if asked.hosts else 'relay'} and kernel apart, as a share: {apart}")
    print(plot({rate: runs for rate, (runs, _) in found.items()}, OUT / f"{name}.png"))
    print(f"kept in {keep(name, {'rows': [asdict(r) for r in rows], 'apart': apart})}, {OUT}/{name}.csv")
    return 0


def _apart(runs: list[RunReport], carried: int) -> float | None:
    """How far the witness and the kernel are apart; None where the kernel does not tell."""
    socket = Traffic.total_if_known(run.totals.socket for run in runs)
    return None if socket is None else round(abs(carried - socket.both) / socket.both, 6)


if __name__ == "__main__":
    sys.exit(main())
