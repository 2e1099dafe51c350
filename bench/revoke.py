"""How soon a revoked client is cut off: `python bench/revoke.py`.

A coordinator with TLS, a hundred clients that stop in the middle of their uploads, and one that does not. The hundred are
revoked as `fedprune certs revoke` does it, at moments without a rhythm; counted are the seconds from there to the end of
both the client's work stream and its upload. Each then tries to upload again. The one goes on at last, and the
run's audit may show updates of nobody else.

Example: python bench/revoke.py --clients 20
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from fedprune.assignment import Assignment
from fedprune.errors import FedpruneError, LocalError
from fedprune.pki.credentials import Credentials
from fedprune.pki.subject import Role, Subject
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.channels import Channels
from fedprune_lab.benching import keep
from fedprune_lab.light import Crowd, LightClient
from fedprune_lab.ports import HOST, Ports
from fedprune_server import audit
from fedprune_server.authority import listing
from fedprune_server.authority.office import Office

TASK = Path(__file__).parent / "tasks" / "mlp50k.py"
MOST_S, SPREAD_S, PATIENCE_S = 5.0, 10.0, 60.0
RUN = """
[run]
name = "revoke"
rounds = 2
evaluate_every = 0
[clients]
expect = {clients}
quorum = 0.001
grace_s = 0.5
[training]
held_out = 0.0
[network]
enrol_port = 0
max_uploads = 1024
"""


class Lost(LightClient):
    """A client that is revoked in the middle of its upload, which has a connection of its own."""

    def __init__(self, crowd: Crowd, server: str, credentials: Credentials) -> None:
        super().__init__(crowd, server, credentials.subject.name, credentials)
        self.name = credentials.subject.name
        self.uploading = asyncio.Event()
        self.statuses: list[str] = []
        self._upload = Channels(server, credentials)

    async def answer(self, assignment: Assignment) -> None:
        """Half an upload, and then nothing."""
        begin, frame = await self.prepared(assignment)
        begin.eager = False
        self._upload.sign(begin)
        call = await self._begun(begin, frame[: len(frame) // 2])
        self.uploading.set()
        self.statuses.append((await call.code()).name)

    async def again(self) -> str:
        """What a call of this key gets now."""
        call: Any = self._upload.stub.Submit(timeout=PATIENCE_S)
        return str((await call.code()).name)

    async def _begun(self, begin: pb.Begin, data: bytes) -> Any:
        call: Any = self._upload.stub.Submit()
        await call.write(pb.SubmitRequest(begin=begin))
        await call.read()
        await call.write(pb.SubmitRequest(chunk=data))
        return call


class Kept(LightClient):
    """The one that is not revoked; it sends its first update when it is told to."""

    def __init__(self, crowd: Crowd, server: str, credentials: Credentials) -> None:
        super().__init__(crowd, server, credentials.subject.name, credentials)
        self.go = asyncio.Event()

    async def answer(self, assignment: Assignment) -> None:
        """As every light client, but not at once."""
        await self.go.wait()
        await super().answer(assignment)


async def seconds_until_cut(lost: Lost, living: asyncio.Task[None], certs: Path) -> float:
    """Revoke this client at some moment; seconds until nothing of it is open."""
    await asyncio.sleep(random.uniform(0, SPREAD_S))

    def revoke() -> float:
        listing.revoke(certs, lost.name, "bench", datetime.now(UTC))
        return time.perf_counter()

    began_s = await asyncio.to_thread(revoke)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([living])
    return time.perf_counter() - began_s


async def played(
    server: str, office: Office, folder: Path, clients: int
) -> tuple[list[float], list[Lost], Counter[str]]:
    """Seconds to the cut of each, and what they were told when they came again."""
    crowd, now = Crowd.of(TASK), datetime.now(UTC)

    def somebody(name: str) -> Credentials:
        return office.provide(folder / name, Subject(federation="bench", role=Role.TRAINER, name=name), now)

    kept = Kept(crowd, server, somebody("kept"))
    staying = asyncio.create_task(kept.run())
    lost = [Lost(crowd, server, somebody(f"lost-{number}")) for number in range(clients)]
    living = [asyncio.create_task(one.run()) for one in lost]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(one.uploading.wait() for one in lost))
    cut_s = await asyncio.gather(
        *(seconds_until_cut(one, task, office.folder) for one, task in zip(lost, living, strict=True))
    )
    said = [task.exception() for task in living]
    if not all(isinstance(error, FedpruneError) and "the key was revoked" in str(error) for error in said):
        raise LocalError("a revoked client was not told so", seen=str(said[:3]))
    again = Counter([await one.again() for one in lost])
    kept.go.set()
    await staying
    return cut_s, lost, again


@contextmanager
def coordinator(folder: Path, certs: Path, clients: int) -> Iterator[str]:
    """A coordinator with TLS, at the address that it gives; it is over at the end of the block."""
    (folder / "run.toml").write_text(RUN.format(clients=clients))
    command = [sys.executable, "-m", "fedprune_server", "serve", str(folder / "run.toml"), "--task", str(TASK)]
    with Ports() as ports, (folder / "log").open("w") as log:
        address = f"{HOST}:{ports.take()}"
        command += ["--certs", str(certs), "--address", address, "--out", str(folder / "runs")]
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                yield address
                process.wait(PATIENCE_S)
            finally:
                process.terminate()


def main() -> int:
    """The bench; 1 when somebody was cut too late or got an update in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100, help="to revoke")
    clients = parser.parse_args().clients
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        office = Office.found(folder / "certs", federation="bench", hosts=["127.0.0.1"], now=datetime.now(UTC))
        with coordinator(folder, office.folder, clients + 1) as server:
            cut_s, lost, again = asyncio.run(played(server, office, folder, clients))
        found = audit.read(folder / "runs" / "revoke")
    happened = Counter((e["what"], e.get("name", "") == "kept") for e in found.events)
    accepted = happened["update", False]
    print(f"{clients} revoked in the middle of an upload: cut after {median(cut_s):.2f} s, at most {max(cut_s):.2f} s")
    print(f"uploads ended with {dict(Counter(s for one in lost for s in one.statuses))}; tried again: {dict(again)}")
    print(f"audit: {happened['revoked', False]} revoked, {happened['update', True]} updates of the one that was kept,")
    print(f"       {accepted} of the others, problems: {found.problems or 'none'}")
    seen = {"cut_s": cut_s, "again": again, "accepted": accepted}
    print(f"kept in {keep('revoke', seen)}")
    return int(max(cut_s) > MOST_S or accepted > 0 or "OK" in again or bool(found.problems))


if __name__ == "__main__":
    sys.exit(main())
