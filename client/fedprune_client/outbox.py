"""Results sealed on disk before their first byte leaves, until their receipt is there.

One file a result: a line of JSON that says what it is, then the codec frame. Written beside, renamed, and synced with
its directory, so that a client killed at any instant has either the whole result or none, and neither retrains nor
sends twice. What a power cut tears is seen by its digest and thrown away.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fedprune.errors import FedpruneError, LocalError, StoreError
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


class Outbox:
    """The sealed results of one client, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What was sealed last and its file: it is sent at once, and need not be read again.
        self._fresh: tuple[Path, Result, bytes] | None = None
        with self._guarded("open the outbox"):
            folder.mkdir(parents=True, exist_ok=True)
            for torn in folder.glob("*.part"):
                torn.unlink()

    def put(self, frame: bytes, **facts: object) -> Result:
        """Seal a frame under the facts of its `Result` and make it durable. Raises `StoreError` when it cannot."""
        result = Result(seal=seal(frame), **facts)  # type: ignore[arg-type]  # checked by the dataclass's own fields
        head = json.dumps(asdict(result)).encode() + b"\n"
        path = self._path(result.run_id, result.assignment_id)
        part = path.with_suffix(".part")
        try:
            with self._guarded("seal a result"), part.open("wb") as file:
                file.write(head)
                file.write(frame)
                file.flush()
                # Renamed before the sync: one commit of the file system's journal then holds bytes and name.
                os.replace(part, path)
                os.fsync(file.fileno())
                sync_folder(self._folder)
        except StoreError:
            # Half a result on a full disk is in the way of the next one.
            part.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        self._fresh = (path, result, frame)
        return result

    def get(self, run_id: str, assignment_id: int) -> tuple[Result, bytes] | None:
        """A sealed result and its frame, or nothing: a damaged one is thrown away, and its work is done again."""
        path = self._path(run_id, assignment_id)
        if self._fresh is not None and self._fresh[0] == path:
            return self._fresh[1:]
        with self._guarded("read a sealed result"):
            if not path.exists():
                return None
            head, _, frame = path.read_bytes().partition(b"\n")
        result = _read(head)
        if result is None or seal(frame) != result.seal:
            log.warning("the sealed result %s is damaged: its work is done again", path.name)
            path.unlink()
            return None
        return result, frame

    def waiting(self, run_id: str) -> list[int]:
        """The assignments of a run whose sealed results have no receipt yet, oldest first."""
        numbers = (path.stem.rpartition("-")[2] for path in self._folder.glob(f"{run_id}-*.result"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def drop(self, run_id: str, assignment_id: int) -> None:
        """Forget a result: its receipt is there, or nobody wants it."""
        path = self._path(run_id, assignment_id)
        if self._fresh is not None and self._fresh[0] == path:
            self._fresh = None
        path.unlink(missing_ok=True)

    def clear(self, *, keep_run: str) -> None:
        """Forget the results of all other runs."""
        for path in self._folder.glob("*.result"):
            if not path.name.startswith(f"{keep_run}-"):
                path.unlink()
        if self._fresh is not None and not self._fresh[0].exists():
            self._fresh = None

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

    def _path(self, run_id: str, assignment_id: int) -> Path:
        if not run_id.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise LocalError("not a run id", seen=repr(run_id[:80]))
        return self._folder / f"{run_id}-{assignment_id}.result"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(head: bytes) -> Result | None:
    """The first line of a sealed file; None when it is none."""
    try:
        facts = json.loads(head)
        return Result(**{**facts, "seal": Seal(**facts["seal"]), "version": Version(**facts["version"])})
    except (ValueError, TypeError, KeyError, FedpruneError):
        return None
