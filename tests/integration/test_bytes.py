"""Three counts of the same bytes: what was packed, what the kernel carried, what a relay in between saw."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from fedprune.ledger import Kind
from fedprune.traffic import Traffic
from fedprune_lab.relay import Relay

from .federation import Federation, run_file, task_file, until

WIDE = """
def model():
    return nn.Sequential(nn.Linear(6, 600), nn.ReLU(), nn.Linear(600, 300), nn.ReLU(), nn.Linear(300, 3))
"""
# Join, one work stream, and in each round a pull and a submission.
CLIENTS, ROUNDS = 3, 6
RPCS_A_ROUND = 2 * CLIENTS
SLACK_BYTES = 512

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the bytes of a connection")


async def measured(folder: Path, *overrides: str) -> tuple[Federation, Relay]:
    """A run through a relay."""
    config = run_file(f"run.rounds={ROUNDS}", *overrides)
    federation = Federation(folder, task_file(folder, model=WIDE), [config])
    async with federation.serving() as serving, Relay("127.0.0.1", federation.server.port) as relay:
        for name in "abc":
            site = federation.start(name, address=f"127.0.0.1:{relay.port}")
            await until(lambda: any(s.startswith("joined") for s in site.said), serving)  # noqa: B023  # awaited here
        assert await federation.end(serving)
        await asyncio.gather(*(site.end() for site in federation.sites))
    return federation, relay


def close(one: int, other: int, *, rpcs: int) -> bool:
    return abs(one - other) <= 0.01 * max(one, other) + SLACK_BYTES * rpcs


@linux_only
@pytest.mark.parametrize(
    "overrides",
    [(), ("pruning.density=0.1", "pruning.every=1", "pruning.end=0.5"), ("compression.up='int8'",)],
    ids=["dense", "pruned", "int8"],
)
async def test_payload_and_socket_agree_in_every_round(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    federation, _ = await measured(tmp_path, *overrides)
    for row in federation.rounds:
        assert row.socket is not None
        # The first round also carries what came before it: joins and streams.
        rpcs = RPCS_A_ROUND + (2 * CLIENTS if row.round == 1 else 0)
        assert close(row.payload.up, row.socket.up, rpcs=rpcs), row
        assert close(row.payload.down, row.socket.down, rpcs=rpcs), row
        assert row.payload.up > SLACK_BYTES * rpcs, "too little moved for the comparison to mean anything"


@linux_only
async def test_kernel_and_relay_agree(tmp_path: Path) -> None:
    federation, relay = await measured(tmp_path)
    kernel = Traffic.total_if_known(row.socket for row in federation.rounds)
    assert kernel is not None
    seen = relay.total
    # After the last commit only goodbyes were said: some hundred bytes for each client.
    assert abs(seen.up - kernel.up) <= 0.001 * seen.up + SLACK_BYTES * CLIENTS
    assert abs(seen.down - kernel.down) <= 0.001 * seen.down + SLACK_BYTES * CLIENTS


async def test_heartbeats_are_no_payload(tmp_path: Path) -> None:
    slow = "\nimport time\n\ndef train(model, data, ctx):\n    time.sleep(0.3)\n    return len(data)\n"
    config = run_file("run.rounds=1", "network.heartbeat_s=0.05")
    federation = Federation(tmp_path, task_file(tmp_path, more=slow), [config])
    assert await federation.run()
    (row,) = federation.rounds
    beats = row.ledger[Kind.HEARTBEAT.value]
    assert beats.up > 0
    assert row.payload.up == sum(t.up for kind, t in row.ledger.items() if kind != Kind.HEARTBEAT.value)
    assert row.payload.down == sum(t.down for kind, t in row.ledger.items() if kind != Kind.HEARTBEAT.value)


async def test_dense_equivalents_count_each_model_once(tmp_path: Path) -> None:
    federation, _ = await measured(tmp_path)
    dense = federation.server.workshop.schema.dense_bytes
    first, *later = [row.dense_equivalent for row in federation.rounds]
    # The first model is drawn at both ends: nothing is sent, so nothing is claimed to be saved.
    assert first == Traffic(up=3 * dense)
    assert later == [Traffic(up=3 * dense, down=3 * dense)] * (ROUNDS - 1)
