"""Sealed results on their way to a receipt, which decides what the next update carries.

A result is submitted until the coordinator has answered for it, by this process or by one that comes after it. Only then
the residual moves, and the sealed file goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedprune.errors import FedpruneError
from fedprune.framing import MAX_CHUNK_BYTES
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.outbox import Outbox
from fedprune_client.residual import ResidualFile
from fedprune_client.transport import Link, begin_message


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitting:
    """What one client has sealed, and whom it is for."""

    link: Link
    outbox: Outbox
    residual: ResidualFile
    say: Callable[[str], None]

    async def submit(self, run_id: str, assignment_id: int) -> bool:
        """Submit a sealed result until it has its receipt; True when it counts."""
        sealed = self.outbox.get(run_id, assignment_id)
        if sealed is None:
            return False
        result, frame = sealed
        receipt = await self.link.submit(begin_message(result), frame, chunk_bytes=MAX_CHUNK_BYTES)
        accepted = bool(receipt.verdict == pb.VERDICT_ACCEPTED)
        if not accepted:
            self.say(f"assignment {assignment_id}: {receipt.reason}")
        return accepted

    async def submit_what_is_left(self, run_id: str) -> None:
        """Results that an earlier process sealed: whether they counted decides what the next one carries."""
        for assignment_id in self.outbox.waiting(run_id):
            try:
                accepted = await self.submit(run_id, assignment_id)
            except FedpruneError as error:
                self.say(f"assignment {assignment_id}: {error}")
                accepted = False
            self.settle(run_id, assignment_id, accepted=accepted)

    def settle(self, run_id: str, assignment_id: int, *, accepted: bool) -> None:
        """The answer is here: the residual moves if the update counts, and the file goes."""
        self.residual.settle(assignment_id, accepted=accepted)
        self.outbox.drop(run_id, assignment_id)
