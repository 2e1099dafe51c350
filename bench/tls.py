"""What TLS costs: bytes a second through one connection on the loopback, in plaintext and with certificates of both ends.

The same gRPC stack, chunk size and options as a run, without codec or disk: frames of random bytes (they do not
compress) go up and down in messages of 512 KiB. Pairs of both kinds take turns, so that a busy machine slows both.

Example: python bench/tls.py --mib 256 --pairs 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from fedprune.pki.credentials import Credentials
from fedprune_client.channels import CHANNEL_OPTIONS
from fedprune_server.authority.folder import OPERATOR, SERVER
from fedprune_server.authority.office import Office
from fedprune_server.listening import SERVER_OPTIONS
from fedprune_server.tls import Presented

CHUNK = os.urandom(1 << 19)
METHODS = ("/bench/Up", "/bench/Down")


class Moving(grpc.GenericRpcHandler):
    """Takes all it gets, or gives as many chunks as it is asked for."""

    def service(self, details: Any) -> Any:
        async def up(requests: AsyncIterator[bytes], context: Any) -> bytes:
            async for _ in requests:
                pass
            return b""

        async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
            for _ in range(int(request)):
                yield CHUNK

        if details.method == METHODS[0]:
            return grpc.stream_unary_rpc_method_handler(up)
        return grpc.unary_stream_rpc_method_handler(down)


async def seconds(channel: grpc.aio.Channel, method: str, chunks: int) -> float:
    """How long so many chunks take."""

    async def sent() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            yield CHUNK

    began = time.perf_counter()
    if method == METHODS[0]:
        up: Any = channel.stream_unary(method)
        await up(sent())
    else:
        down: Any = channel.unary_stream(method)
        async for _ in down(str(chunks).encode()):
            pass
    return time.perf_counter() - began


async def measured(folder: Path, mib: int, pairs: int) -> dict[str, dict[str, float]]:
    """MiB a second by direction, plain and TLS; the medians of all pairs and of their ratios."""
    office = Office.found(folder / "certs", federation="bench", hosts=["127.0.0.1"], now=datetime.now(UTC))
    mine = Credentials.load(office.folder / OPERATOR)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((Moving(),))
    plain_port = server.add_insecure_port("127.0.0.1:0")
    presented = Presented(office.folder / SERVER)
    tls_port = server.add_secure_port("127.0.0.1:0", presented.port_credentials(require_certificate=True))
    await server.start()
    shown = grpc.ssl_channel_credentials(mine.trust_pem, mine.key_pem, mine.chain_pem)
    plain = grpc.aio.insecure_channel(f"127.0.0.1:{plain_port}", options=CHANNEL_OPTIONS)
    tls = grpc.aio.secure_channel(f"127.0.0.1:{tls_port}", shown, options=CHANNEL_OPTIONS)
    chunks = mib * 2
    found = {}
    for method in METHODS:
        for channel in (plain, tls):
            await seconds(channel, method, 16)
        taken = [(await seconds(plain, method, chunks), await seconds(tls, method, chunks)) for _ in range(pairs)]
        found[method.rpartition("/")[2].lower()] = {
            "plain_mib_per_s": mib / statistics.median(p for p, _ in taken),
            "tls_mib_per_s": mib / statistics.median(t for _, t in taken),
            "tls_costs": 1 - statistics.median(p / t for p, t in taken),
        }
    await plain.close()
    await tls.close()
    await server.stop(None)
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="MiB moved each time")
    parser.add_argument("--pairs", type=int, default=5, help="times for each direction, plaintext and TLS in turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(Path(folder), arguments.mib, arguments.pairs))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'':6}{'plain':>12}{'TLS':>12}{'cost':>8}")
    for name, row in found.items():
        print(
            f"{name:6}{row['plain_mib_per_s']:>8,.0f} MiB/s{row['tls_mib_per_s']:>6,.0f} MiB/s{row['tls_costs']:>8.1%}"
        )


if __name__ == "__main__":
    main()
