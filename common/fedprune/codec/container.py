"""The frame: one header, then segments, then the check of the whole.

Reading is in two steps. `parse` walks over the frame, which touches a few bytes a segment and allocates nothing of
the size of a tensor; what it returns can be held against limits. Only then are segments decoded, one at a time, each
after its own check. Writing goes segment by segment, so that a sender never holds more than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from zlib_ng.zlib_ng import crc32

from fedprune.codec.base import CODEC_VERSION, Content, Cursor, Part, Positions, Values, length, varint
from fedprune.errors import DecodeError, DigestError, VersionError
from fedprune.tensor import Version

MAGIC = b"fpr"
DIGEST_BYTES = 8
CRC_BYTES = 4
PROOF_BYTES = 8
_HAS_MASK, _HAS_BASE = 1, 2
E = TypeVar("E", Content, Positions, Values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the whole frame says of itself.

    `schema`, `mask`, `base` are the first 8 bytes of digests (`mask`, `base`: of mask fingerprints; None where the
    frame needs none). `owner[i]` is the segment that tensor i is in.
    """

    content: Content
    version: Version
    schema: bytes
    mask: bytes | None
    base: bytes | None
    owner: tuple[int, ...]
    segments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One index space: `count` values, the codings, and the bytes of places, scales and values.

    `proof` is `values.proof_of` the decoded values where they are coded against a base, else None.
    """

    positions: Positions
    values: Values
    count: int
    places: memoryview
    scales: memoryview
    body: memoryview
    proof: int | None
    head: memoryview
    crc: int

    def check(self) -> None:
        """Raise `DigestError` when the segment is not what was sent."""
        crc = crc32(self.head)
        for part in (self.places, self.scales, self.body):
            crc = crc32(part, crc)
        if crc != self.crc:
            raise DigestError("a segment's check does not fit", seen=f"{crc:08x}", expected=f"{self.crc:08x}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A segment before it is written: parts to be joined."""

    positions: Positions
    values: Values
    count: int
    places: Sequence[Part]
    scales: Sequence[Part] = ()
    body: Sequence[Part] = ()
    proof: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame that has been walked over, not decoded."""

    header: Header
    segments: tuple[Segment, ...]
    size: int


def short_digest(digest: str) -> bytes:
    """What a frame carries of a SHA-256 given in hex: enough to notice a mix-up, a forgery is framing's concern."""
    return bytes.fromhex(digest)[:DIGEST_BYTES]


def check_same(what: str, theirs: bytes | None, ours: bytes | None) -> None:
    """Raise `VersionError` when two short digests differ, None standing for nothing held."""
    if theirs != ours:
        raise VersionError(
            f"the frame was made against another {what}",
            seen=theirs.hex() if theirs else "none",
            expected=ours.hex() if ours else "none",
        )


def write(header: Header, segments: Iterable[Coded]) -> Iterator[Part]:
    """The frame, part by part; each segment may be thrown away before the next is made."""
    head = _header_bytes(header)
    whole = crc32(head)
    yield head + whole.to_bytes(CRC_BYTES, "little")
    for segment in segments:
        first = _segment_head(segment)
        crc = crc32(first)
        yield first
        for part in (*segment.places, *segment.scales, *segment.body):
            crc = crc32(part, crc)
            yield part
        yield crc.to_bytes(CRC_BYTES, "little")
        whole = crc32(crc.to_bytes(CRC_BYTES, "little"), whole)
    yield whole.to_bytes(CRC_BYTES, "little")


def parse(data: memoryview) -> Frame:
    """Walk over a frame; raise `DecodeError`, `VersionError` or `DigestError` when it is none."""
    cursor = Cursor(data)
    header = _read_header(cursor)
    crc = crc32(data[: cursor.at])
    _check_crc(cursor, crc, "the header's check does not fit")
    segments = []
    for _ in range(header.segments):
        segments.append(_read_segment(cursor))
        crc = crc32(segments[-1].crc.to_bytes(CRC_BYTES, "little"), crc)
    _check_crc(cursor, crc, "the check of the whole does not fit")
    cursor.done()
    return Frame(header=header, segments=tuple(segments), size=len(data))


def _header_bytes(header: Header) -> bytes:
    flags = (_HAS_MASK if header.mask else 0) | (_HAS_BASE if header.base else 0)
    parts = [MAGIC, bytes((CODEC_VERSION, header.content, flags)), header.schema]
    parts += [varint(n) for n in (header.version.shape, header.version.model, header.version.mask)]
    parts += [header.mask or b"", header.base or b""]
    parts += [varint(n) for n in (header.segments, len(header.owner), *header.owner)]
    return b"".join(parts)


def _read_header(cursor: Cursor) -> Header:
    if bytes(cursor.take(len(MAGIC))) != MAGIC:
        raise DecodeError("these bytes are no frame of fedprune", expected=f"{MAGIC!r} in front")
    codec_version = cursor.byte()
    if codec_version != CODEC_VERSION:
        raise VersionError(
            "frame of another codec version",
            seen=codec_version,
            expected=CODEC_VERSION,
            next_step="Use the same fedprune release on both sides",
        )
    content, flags = _enum(Content, cursor.byte()), cursor.byte()
    if flags & ~(_HAS_MASK | _HAS_BASE):
        raise DecodeError("unknown flags", seen=flags)
    schema = bytes(cursor.take(DIGEST_BYTES))
    version = Version(shape=cursor.varint(), model=cursor.varint(), mask=cursor.varint())
    mask = bytes(cursor.take(DIGEST_BYTES)) if flags & _HAS_MASK else None
    base = bytes(cursor.take(DIGEST_BYTES)) if flags & _HAS_BASE else None
    segments, tensors = cursor.varint(), cursor.varint()
    if segments > tensors or tensors > cursor.left:
        raise DecodeError("more segments or tensors than there can be", seen=f"{segments} segments, {tensors} tensors")
    owner = cursor.varints(tensors)
    if set(owner) != set(range(segments)):
        raise DecodeError("tensors and segments do not belong together")
    return Header(content=content, version=version, schema=schema, mask=mask, base=base, owner=owner, segments=segments)


def bytes_before(count: int, places: Sequence[Part], scales_bytes: int, body_bytes: int, *, has_proof: bool) -> int:
    """The most that stands before a segment's body of at most `body_bytes`: its head, its places, its scales."""
    before = length(places) + scales_bytes
    numbers = b"".join(varint(n) for n in (count, length(places), scales_bytes, body_bytes))
    return 2 + len(numbers) + PROOF_BYTES * has_proof + before


def _segment_head(segment: Coded) -> bytes:
    sizes = [length(parts) for parts in (segment.places, segment.scales, segment.body)]
    head = bytes((segment.positions, segment.values)) + b"".join(varint(n) for n in (segment.count, *sizes))
    return head if segment.proof is None else head + segment.proof.to_bytes(PROOF_BYTES, "little")


def _read_segment(cursor: Cursor) -> Segment:
    start = cursor.at
    positions, values = _enum(Positions, cursor.byte()), _enum(Values, cursor.byte())
    count, *sizes = (cursor.varint() for _ in range(4))
    proof = int.from_bytes(cursor.take(PROOF_BYTES), "little") if values is Values.DIFFERENCE else None
    head = cursor.since(start)
    places, scales, body = (cursor.take(size) for size in sizes)
    crc = int.from_bytes(cursor.take(CRC_BYTES), "little")
    return Segment(
        positions=positions,
        values=values,
        count=count,
        places=places,
        scales=scales,
        body=body,
        proof=proof,
        head=head,
        crc=crc,
    )


def _check_crc(cursor: Cursor, crc: int, problem: str) -> None:
    sent = int.from_bytes(cursor.take(CRC_BYTES), "little")
    if sent != crc:
        raise DigestError(problem, seen=f"{crc:08x}", expected=f"{sent:08x}")


def _enum(kind: type[E], number: int) -> E:
    try:
        return kind(number)
    except ValueError:
        raise DecodeError(f"no such {kind.__name__.lower()} coding", seen=number) from None
