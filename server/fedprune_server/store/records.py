"""What the store remembers, as values: one dataclass for each table, no SQL.

Everything a restarted coordinator needs is in these records or in a blob that one of them names by its SHA-256.
Free-form parts (metrics, reports, the work itself) are text or bytes that the store keeps and does not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from fedprune.errors import LocalError, UpdateError
from fedprune.tensor import Version

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class RunState(Enum):
    """Where a run stands. `waiting` and `running` are unfinished: a coordinator that comes back takes them up."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def unfinished(self) -> bool:
        """Whether a coordinator that comes back goes on with it."""
        return self in (RunState.WAITING, RunState.RUNNING)


class Work(Enum):
    """What an assignment asks for: the arms of `oneof work` on the wire."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    SCORE = "score"
    REESTIMATE = "reestimate"


class Verdict(Enum):
    """The definite answer to a submission: it counts, or it came too late."""

    ACCEPTED = "accepted"
    STALE = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run: its resolved run file as text and the digest of the schema it trains."""

    run_id: str
    name: str
    config_toml: str
    schema_digest: str
    state: RunState = RunState.WAITING

    def __post_init__(self) -> None:
        if not RUN_ID.fullmatch(self.run_id):
            raise LocalError("a run id names files", seen=repr(self.run_id), expected=f"the form {RUN_ID.pattern}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecord:
    """A client's index in this store, for as long as the store lives, by its identity."""

    client: int
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """An open round: made against `version`, complete with `target` updates, to be closed after `deadline_s` seconds
    (a span, not a time)."""

    run_id: str
    round: int
    version: Version
    deadline_s: float
    target: int = 0
    committed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentRecord:
    """One piece of work for one client. `work` is what was sent, as bytes the coordinator can send again."""

    run_id: str
    assignment_id: int
    round: int
    client: int
    version: Version
    kind: Work
    work: bytes = b""

    def __post_init__(self) -> None:
        if not 0 < self.assignment_id < 1 << 63:
            raise LocalError("assignment ids start at 1", seen=self.assignment_id, expected="1 to 2^63 - 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a client says about the result it has transferred: a sealed blob of `size` bytes, `sha256` in hex.

    A result without a payload (an evaluation) has size 0 and needs no blob. `signed` is what the audit keeps of it.
    """

    assignment_id: int
    client: int
    sha256: str
    size: int
    examples: int
    metrics_json: str = "{}"
    work_s: float = 0.0
    residual_norm: float = 0.0
    signed: str = ""

    def __post_init__(self) -> None:
        for name, most in (("size", 1 << 48), ("examples", 1 << 48), ("work_s", 1e12), ("residual_norm", 1e300)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UpdateError(f"{name} of a result is out of range", party=f"client {self.client}", seen=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRecord:
    """The answer to one assignment, given once and repeated word for word ever after."""

    run_id: str
    assignment_id: int
    round: int
    client: int
    kind: Work
    verdict: Verdict
    reason: str
    sha256: str
    size: int
    examples: int
    metrics_json: str
    work_s: float
    residual_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A committed model. Digests are SHA-256 (hex) of blobs.

    `broadcast_digest` is the encoded step from model version `parent` to this one; both are None where there is no
    such step (the first version, a rollback). `state_digest` is what the coordinator keeps for itself beside the
    model: optimizer moments, residual. The initial version belongs to round 0.
    """

    run_id: str
    round: int
    version: Version
    model_digest: str
    mask_digest: str
    parent: int | None = None
    broadcast_digest: str | None = None
    state_digest: str | None = None

    @property
    def blobs(self) -> tuple[str, ...]:
        """Digests of all blobs of this version."""
        named = (self.model_digest, self.mask_digest, self.broadcast_digest, self.state_digest)
        return tuple(digest for digest in named if digest is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a coordinator that comes back finds of an unfinished run.

    `open_round` is the round without a committed version, with all its assignments and the receipts already given;
    `last_round` is the last round ever opened, 0 before the first, and `cohort` who was to train in it; `frozen` are the
    kinds of work whose accepted set is closed: fold them again, the result is the same bytes.
    """

    run: RunRecord
    shards: dict[int, int]
    latest: VersionRecord | None
    last_round: int
    cohort: tuple[int, ...]
    open_round: RoundRecord | None
    assignments: tuple[AssignmentRecord, ...]
    receipts: tuple[ReceiptRecord, ...]
    frozen: frozenset[Work]
