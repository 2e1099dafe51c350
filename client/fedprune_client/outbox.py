"""Results sealed on disk before their first byte leaves, until their receipt is there.

One file a result: a line of JSON that says what it is, then the codec frame. A client killed at any instant has either
the whole result or none, and neither retrains nor sends twice. What a kill or a power cut tears is seen by its digest
and thrown away.

A small file that is not needed any more is kept for the next result: to write over what is there takes a disk a
fraction of the time that a new file takes, whose name, size and place on the disk have to be written down too.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import BinaryIO

from fedprune.errors import FedpruneError, StoreError
from fedprune.framing import Seal, seal
from fedprune.tensor import Version

log = logging.getLogger("fedprune.outbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the coordinator is told about a result before its bytes."""

    run_id: str
    assignment_id: int
    seal: Seal
    examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    work_s: float = 0.0
    residual_norm: float = 0.0
    version: Version = field(default_factory=Version)


# What is left of a larger file would be missed on the disk.
KEPT_BYTES = 1 << 18
# The first byte of a file whose result is gone; of others it is a brace.
FREE = b"-"


class Outbox:
    """The sealed results of one client, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[tuple[str, int], Path] = {}
        # Those that hold nothing any more.
        self._free: list[Path] = []
        # What was sealed last: it is sent at once, and need not be read again.
        self._fresh: tuple[Result, bytes] | None = None
        with self._guarded("open the outbox"):
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.result")):
                self._enter(path)

    def _enter(self, path: Path) -> None:
        with path.open("rb") as file:
            found = _read(file.readline())
        if found is None:
            self._free.append(path)
        else:
            self._files[found.run_id, found.assignment_id] = path

    def put(self, frame: bytes, **facts: object) -> Result:
        """Seal a frame under the facts of its `Result` and make it durable. Raises `StoreError` when it cannot."""
        result = Result(seal=seal(frame), **facts)  # type: ignore[arg-type]  # checked by the dataclass's own fields
        head = json.dumps(asdict(result)).encode()
        key = (result.run_id, result.assignment_id)
        self._let_go(key)
        path, fresh = (self._free.pop(), False) if self._free else (self._new(), True)
        try:
            with self._guarded("seal a result"), path.open("xb" if fresh else "r+b") as file:
                _write(file, head + b"\n", frame)
                (os.fsync if fresh else _sync_content)(file.fileno())
                if fresh:
                    sync_folder(self._folder)
        except StoreError:
            # Half a result on a full disk is in the way of the next one.
            path.unlink(missing_ok=True)
            raise
        self._files[key] = path
        self._fresh = (result, frame)
        return result

    def get(self, run_id: str, assignment_id: int) -> tuple[Result, bytes] | None:
        """A sealed result and its frame, or nothing: a damaged one is thrown away, and its work is done again."""
        path = self._files.get((run_id, assignment_id))
        if path is None:
            return None
        if self._fresh is not None and self._is((run_id, assignment_id), self._fresh[0]):
            return self._fresh
        with self._guarded("read a sealed result"):
            found = read_sealed(path)
        if found is None:
            log.warning("the sealed result %s is damaged: its work is done again", path.name)
            self._let_go((run_id, assignment_id))
        return found

    def waiting(self, run_id: str) -> list[int]:
        """The assignments of a run whose sealed results have no receipt yet, oldest first."""
        return sorted(assignment_id for run, assignment_id in self._files if run == run_id)

    def drop(self, run_id: str, assignment_id: int) -> None:
        """Forget a result: its receipt is there, or nobody wants it."""
        self._let_go((run_id, assignment_id))

    def clear(self, *, keep_run: str) -> None:
        """Forget the results of all other runs."""
        for key in [key for key in self._files if key[0] != keep_run]:
            self._let_go(key)

    def _let_go(self, key: tuple[str, int]) -> None:
        path = self._files.pop(key, None)
        if path is None:
            return
        if self._fresh is not None and self._is(key, self._fresh[0]):
            self._fresh = None
        try:
            if path.stat().st_size <= KEPT_BYTES:
                # Not synced: a result that is there again after a power cut gets the same receipt again.
                with path.open("r+b") as file:
                    file.write(FREE)
                self._free.append(path)
            else:
                path.unlink()
        except FileNotFoundError:
            return

    @staticmethod
    def _is(key: tuple[str, int], result: Result) -> bool:
        return key == (result.run_id, result.assignment_id)

    def _new(self) -> Path:
        taken = {*self._files.values(), *self._free}
        return next(path for n in count() if (path := self._folder / f"{n}.result") not in taken)

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot {doing}",
                party="this client",
                seen=str(error),
                next_step=f"Free space in {self._folder}, or mend the disk; the work is repeated",
            ) from error


def read_sealed(path: Path) -> tuple[Result, bytes] | None:
    """The result in a file and its frame; None where it holds none, or not the whole of it."""
    head, _, rest = path.read_bytes().partition(b"\n")
    result = _read(head)
    if result is None:
        return None
    # Behind it there can be the end of a longer one.
    frame = rest[: result.seal.size]
    return (result, frame) if seal(frame) == result.seal else None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(file: BinaryIO, head: bytes, frame: bytes) -> None:
    """The first byte last: until then the file holds nothing."""
    file.seek(1)
    file.write(head[1:])
    file.write(frame)
    file.flush()
    file.seek(0)
    file.write(head[:1])
    file.flush()


def _sync_content(handle: int) -> None:
    """Make the bytes of a file survive a power cut, whose place on the disk is known there already."""
    getattr(os, "fdatasync", os.fsync)(handle)


def _read(head: bytes) -> Result | None:
    """The first line of a sealed file; None when it is none."""
    try:
        facts = json.loads(head)
        return Result(**{**facts, "seal": Seal(**facts["seal"]), "version": Version(**facts["version"])})
    except (ValueError, TypeError, KeyError, FedpruneError):
        return None
