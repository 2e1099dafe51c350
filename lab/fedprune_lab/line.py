"""A bad line as a program of its own, between clients and a coordinator: `python -m fedprune_lab.line`.

What the relay does behind a port; for containers and for hosts of a bench. It ends when it is told to, and then says
what it carried.

Example: python -m fedprune_lab.line --listen 127.0.0.1:7500 --to 127.0.0.1:7400 --rate 10mbit --delay 40ms
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence

from fedprune.errors import FedpruneError
from fedprune_lab.link import Link, bit_per_s, seconds
from fedprune_lab.relay import Relay


def main(argv: Sequence[str] | None = None) -> int:
    """Carry until a signal; prints the bytes of both directions as one JSON object."""
    asked = _arguments().parse_args(argv)
    try:
        link = Link(
            rate_bit_per_s=bit_per_s(asked.rate),
            delay_s=seconds(asked.delay),
            jitter_s=seconds(asked.jitter),
            reset_every_s=seconds(asked.reset_every),
            cut_every_s=seconds(asked.cut_every),
            cut_s=seconds(asked.cut_for),
        )
    except FedpruneError as error:
        print(f"fedprune: {error}", file=sys.stderr)
        return 2
    asyncio.run(_carry(asked.listen, asked.to, link))
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--rate", default="0bit", help="each way, for each connection; 0bit is no limit")
    parser.add_argument("--delay", default="0ms", help="one way")
    parser.add_argument("--jitter", default="0ms")
    parser.add_argument("--reset-every", default="0s", help="reset all connections so often, on average; 0s never")
    parser.add_argument("--cut-every", default="0s", help="fall silent so often, on average, for --cut-for; 0s never")
    parser.add_argument("--cut-for", default="2s")
    return parser


async def _carry(listen: str, to: str, link: Link) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    far_host, _, far_port = to.rpartition(":")
    relay = Relay(far_host, int(far_port), link)
    relay.host, _, near_port = listen.rpartition(":")
    relay.port = int(near_port)
    async with relay:
        print(f"carrying {relay.host}:{relay.port} to {to}", file=sys.stderr, flush=True)
        await ended.wait()
    print(json.dumps({"up": relay.total.up, "down": relay.total.down}))


if __name__ == "__main__":
    sys.exit(main())
