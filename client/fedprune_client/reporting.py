"""How far a training is, told now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from fedprune.v1 import coordinator_pb2 as pb

# Steps are reported at most this often.
PROGRESS_S = 1.0


class StepReport:
    """Called from the training thread after each step; sends a message about once a second."""

    def __init__(self, assignment_id: int, send: Callable[[pb.ClientMessage], object]) -> None:
        self._assignment_id = assignment_id
        self._send = send
        self._next_s = time.monotonic() + PROGRESS_S

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + PROGRESS_S
            progress = pb.Progress(assignment_id=self._assignment_id, step=step, steps=steps)
            self._send(pb.ClientMessage(progress=progress))
