"""`fedprune inspect --codec`: what a frame consists of, and what each choice was made against.

Without its schema a frame still tells its segments, codings and lengths. For a mask that a run keeps, the run's report
knows the sizes of the layers: then the choice is made again, and every coding that was possible is shown with its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fedprune.codec import Content, Plan, Positions, account
from fedprune.codec.base import Cursor, Shape
from fedprune.codec.chooser import alternatives, entropy_bytes
from fedprune.codec.container import parse
from fedprune.codec.places import Places
from fedprune.codec.positions import CODINGS
from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune_lab.reading import REPORT, read

SHAPELESS = (Positions.BITMAP, Positions.RICE, Positions.GAP)
TRIED = (*SHAPELESS, Positions.CSR)


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
    for spec in mask.schema.prunable:
        places = Places.of_bits(np.ascontiguousarray(mask.alive[spec.name]).reshape(-1))
        yield from _weighed(spec.name, places, Shape.of(spec), TRIED, plan or Plan())


def choices_of_frame(frame: bytes, sizes: Mapping[str, int]) -> Iterator[Alternative]:
    """The same for the segments of a mask frame, whose tensors have these `sizes`, in order. What cannot be read
    without shapes or a base is left out; so is CSR, which needs the rows."""
    walked = parse(memoryview(frame))
    names = list(sizes)
    if len(names) != len(walked.header.owner):
        return
    for number, segment in enumerate(walked.segments):
        own = [name for name, owner in zip(names, walked.header.owner, strict=True) if owner == number]
        if segment.positions in SHAPELESS:
            shape = Shape(1, sum(sizes[name] for name in own))
            places = CODINGS[segment.positions].decode(Cursor(segment.places), segment.count, [shape])
            title = own[0] if len(own) == 1 else f"{own[0]} and {len(own) - 1} more"
            yield from _weighed(title, places, shape, SHAPELESS, Plan())


def _weighed(title: str, places: Places, shape: Shape, tried: Sequence[Positions], plan: Plan) -> Iterator[Alternative]:
    chosen = alternatives(places, [shape], plan)
    best = min(chosen, key=lambda choice: choice.cost_s)
    sizes = {choice.coding: choice.size for choice in chosen}
    for coding in tried:
        if coding not in sizes:
            (choice,) = alternatives(places, [shape], Plan(positions=coding))
            sizes[coding] = choice.size
    bound = entropy_bytes(places.size, places.count)
    for coding, size in sorted(sizes.items(), key=lambda item: item[1]):
        yield Alternative(
            tensor=title,
            density=places.count / max(places.size, 1),
            positions=coding.name.lower(),
            size=size,
            over_entropy=size / bound if bound else None,
            chosen=coding is best.coding,
        )


def run(path: Path) -> dict[str, object]:
    """What a file with a frame holds, as one JSON-ready object: kind, version, bytes by kind, segments, and for a mask
    in a run's folder what each choice was made against."""
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
        "alternatives": [asdict(row) for row in choices_of_frame(frame, _layers(path, header.version.mask))]
        if header.content is Content.MASK
        else [],
    }


def _layers(path: Path, version: int) -> dict[str, int]:
    """The sizes of the layers at a change of the mask, from the report of the run whose folder the file is in."""
    report = path.resolve().parent.parent / REPORT
    if not report.is_file():
        return {}
    rounds = [row for run in read(report)[1] for row in run.rounds if row.mask_version == version and row.layers]
    return {layer.name: layer.size for row in rounds[:1] for layer in row.layers}


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
    others = whole["alternatives"]
    assert isinstance(others, list)
    if others:
        yield ""
        yield f"{'coding':<13}{'bytes':>9}{'over n H(p)':>13}{'density':>10}  layer"
    for row in others:
        over = f"{row['over_entropy']:.3f}" if row["over_entropy"] else "-"
        name = row["positions"] + (" *" if row["chosen"] else "")
        yield f"{name:<13}{row['size']:>9}{over:>13}{row['density']:>10.4f}  {row['tensor']}"
    if others:
        yield "* chosen"
