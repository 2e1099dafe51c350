"""`fedprune inspect --codec`: what a frame consists of, and what each choice was made against.

Without its schema a frame still tells its segments, codings and lengths. With a mask to encode, the choice can be made
again here, and every coding that was tried is shown with its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fedprune.codec import Plan, Positions, account
from fedprune.codec.base import Shape
from fedprune.codec.chooser import alternatives, entropy_bytes
from fedprune.codec.container import parse
from fedprune.codec.places import Places
from fedprune.errors import LocalError
from fedprune.mask import Mask

TRIED = (Positions.BITMAP, Positions.RICE, Positions.GAP, Positions.CSR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One segment of a frame; lengths in bytes."""

    segment: int
    tensors: int
    positions: str
    values: str
    count: int
    places: int
    scales: int
    symbols: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One coding of one tensor's mask: its bytes, and that over n H(p). `chosen` by the chooser."""

    tensor: str
    density: float
    positions: str
    size: int
    over_entropy: float | None
    chosen: bool


def segments(frame: bytes) -> list[Row]:
    """The segments of a frame, in order. Raises `RemoteError` when it is none."""
    walked = parse(memoryview(frame))
    return [
        Row(
            segment=number,
            tensors=walked.header.owner.count(number),
            positions=segment.positions.name.lower(),
            values=segment.values.name.lower(),
            count=segment.count,
            places=len(segment.places),
            scales=len(segment.scales),
            symbols=len(segment.body),
        )
        for number, segment in enumerate(walked.segments)
    ]


def choices(mask: Mask, plan: Plan | None = None) -> Iterator[Alternative]:
    """For each tensor of a mask, on its own, all position codings and the one that is chosen."""
    plan = plan or Plan()
    for spec in mask.schema.prunable:
        places, shape = Places.of_bits(np.ascontiguousarray(mask.alive[spec.name]).reshape(-1)), Shape.of(spec)
        tried = alternatives(places, [shape], plan)
        best = min(tried, key=lambda choice: choice.cost_s)
        sizes = {choice.coding: choice.size for choice in tried}
        for coding in TRIED:
            if coding not in sizes:
                (choice,) = alternatives(places, [shape], Plan(positions=coding))
                sizes[coding] = choice.size
        bound = entropy_bytes(places.size, places.count)
        for coding, size in sorted(sizes.items(), key=lambda item: item[1]):
            yield Alternative(
                tensor=spec.name,
                density=places.count / max(places.size, 1),
                positions=coding.name.lower(),
                size=size,
                over_entropy=size / bound if bound else None,
                chosen=coding is best.coding,
            )


def run(path: Path) -> dict[str, object]:
    """What a file with a frame holds, as one JSON-ready object: kind, version, bytes by kind, segments."""
    if not path.is_file():
        raise LocalError("there is no such file", seen=path, next_step="Give a file that holds one frame")
    frame = path.read_bytes()
    header = parse(memoryview(frame)).header
    return {
        "content": header.content.name.lower(),
        "version": str(header.version),
        "bytes": len(frame),
        "kinds": account(frame),
        "segments": [asdict(row) for row in segments(frame)],
    }


def lines(whole: dict[str, object]) -> Iterator[str]:
    """What `run` found, as lines for a terminal."""
    yield f"{whole['content']}, made against {whole['version']}: {whole['bytes']} bytes"
    kinds = whole["kinds"]
    assert isinstance(kinds, dict)
    yield "  " + ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    yield f"{'segment':>8}{'tensors':>8}  {'positions':<13}{'values':<11}{'count':>10}{'places':>9}{'scales':>8}{'symbols':>10}"
    rows = whole["segments"]
    assert isinstance(rows, list)
    for row in rows:
        yield (
            f"{row['segment']:>8}{row['tensors']:>8}  {row['positions']:<13}{row['values']:<11}"
            f"{row['count']:>10}{row['places']:>9}{row['scales']:>8}{row['symbols']:>10}"
        )
