"""A sealed result is submitted until there is an answer, and the answer decides what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from fedprune.errors import LimitError
from fedprune.tensor import Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.outbox import Outbox
from fedprune_client.residual import ResidualFile
from fedprune_client.submitting import Submitting
from fedprune_client.transport import Link

RUN = "digits-1"
COUNTS = pb.Receipt(verdict=pb.VERDICT_ACCEPTED)
LATE = pb.Receipt(verdict=pb.VERDICT_STALE, reason="round 3 is closed")
REFUSED = LimitError("too large", party="coordinator")


@dataclass
class Answers:
    """In the place of a link: an answer for each assignment, a receipt or a refusal."""

    given: Mapping[int, pb.Receipt | LimitError]

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        answer = self.given[begin.assignment_id]
        if isinstance(answer, LimitError):
            raise answer
        return answer


@dataclass
class Settled:
    """In the place of a residual: what it was told."""

    told: list[tuple[int, bool]]

    def settle(self, assignment_id: int, *, accepted: bool) -> None:
        self.told.append((assignment_id, accepted))


@dataclass
class Scene:
    submitting: Submitting
    told: list[tuple[int, bool]]
    said: list[str]


def scene(folder: Path, given: Mapping[int, pb.Receipt | LimitError]) -> Scene:
    """A client with a sealed result for each of these assignments, and the answers that it is going to get."""
    outbox, told, said = Outbox(folder), list[tuple[int, bool]](), list[str]()
    for assignment_id in given:
        outbox.put(b"an update", run_id=RUN, assignment_id=assignment_id, examples=3, version=Version(model=1))
    link, residual = cast(Link, Answers(given)), cast(ResidualFile, Settled(told))
    return Scene(Submitting(link=link, outbox=outbox, residual=residual, say=said.append), told, said)


@pytest.mark.parametrize(
    ("receipt", "counts", "said"), [(COUNTS, True, []), (LATE, False, ["assignment 7: " + LATE.reason])]
)
async def test_the_receipt_says_whether_it_counts(
    tmp_path: Path, receipt: pb.Receipt, counts: bool, said: list[str]
) -> None:
    made = scene(tmp_path, {7: receipt})
    assert await made.submitting.submit(RUN, 7) is counts
    assert made.said == said
    assert made.submitting.outbox.waiting(RUN) == [7]


async def test_what_is_not_here_does_not_count(tmp_path: Path) -> None:
    assert await scene(tmp_path, {}).submitting.submit(RUN, 7) is False


async def test_what_is_left_is_answered_for_oldest_first_and_goes(tmp_path: Path) -> None:
    made = scene(tmp_path, {8: COUNTS, 7: REFUSED, 9: LATE})
    await made.submitting.submit_what_is_left(RUN)
    assert made.told == [(7, False), (8, True), (9, False)]
    assert made.submitting.outbox.waiting(RUN) == []
    assert [line.partition(":")[0] for line in made.said] == ["assignment 7", "assignment 9"]
