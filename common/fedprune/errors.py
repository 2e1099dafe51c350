"""What can go wrong, and whose fault it was.

Two sides, as in h11: a `LocalError` means that we, on this machine, were given something wrong; a `RemoteError`
means that the bytes or the behaviour of the other party are wrong. Each class is bound to the gRPC status that
the service answers with; the one interceptor that maps them needs no table of its own. Nothing here knows gRPC.
"""

from __future__ import annotations

from typing import ClassVar


class FedpruneError(Exception):
    """A message that names the party, the value seen, the value expected and what to do next.

    `status` is the name of a gRPC status code. Never raised itself: raise a class below.
    """

    status: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        problem: str,
        *,
        party: str | None = None,
        seen: object = None,
        expected: object = None,
        next_step: str | None = None,
    ) -> None:
        self.problem = problem
        self.party = party
        self.seen = seen
        self.expected = expected
        self.next_step = next_step
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        head = f"{self.party}: {self.problem}" if self.party else self.problem
        facts = []
        if self.seen is not None:
            facts.append(f"got {self.seen}")
        if self.expected is not None:
            facts.append(f"expected {self.expected}")
        text = f"{head} ({', '.join(facts)})" if facts else head
        return f"{text}. {self.next_step}" if self.next_step else text


class LocalError(FedpruneError):
    """We were misused: wrong arguments, wrong files, wrong configuration."""

    status = "FAILED_PRECONDITION"


class ConfigError(LocalError):
    """The run file, a flag or an override is wrong; carries file, line and key in the message."""

    status = "INVALID_ARGUMENT"


class TaskError(LocalError):
    """The user's task file does not offer what it should."""


class StoreError(LocalError):
    """The run directory cannot be read or written: disk full, I/O error, fenced by another process."""

    status = "UNAVAILABLE"


class MissingExtraError(LocalError):
    """A feature needs a package that is not installed."""


class RemoteError(FedpruneError):
    """The other party sent something wrong."""

    status = "INVALID_ARGUMENT"


class DecodeError(RemoteError):
    """Bytes that are no valid frame, message or payload."""


class LimitError(RemoteError):
    """Something declared or sent is larger than the stated limit; refused before memory was allocated."""

    status = "RESOURCE_EXHAUSTED"


class DigestError(RemoteError):
    """Bytes arrived, but not the ones that were announced."""

    status = "DATA_LOSS"


class VersionError(RemoteError):
    """A payload made against another shape, model, mask or codec version than the one in force."""

    status = "FAILED_PRECONDITION"


class SignatureError(RemoteError):
    """The other party's model has other names, shapes or dtypes than ours."""

    status = "FAILED_PRECONDITION"


class UpdateError(RemoteError):
    """An update that was transferred well but cannot be used: not finite, too large, no examples."""


class DuplicateError(RemoteError):
    """Other bytes for an assignment that already has its receipt."""

    status = "ALREADY_EXISTS"


class StaleError(RemoteError):
    """Work for an assignment that is closed or was never given."""

    status = "FAILED_PRECONDITION"


class IdentityError(RemoteError):
    """A call without an identity, or with one that has not joined."""

    status = "UNAUTHENTICATED"


class RoleError(RemoteError):
    """A call by someone whose role does not allow it."""

    status = "PERMISSION_DENIED"


class UnavailableError(RemoteError):
    """The other party cannot be reached, or went silent."""

    status = "UNAVAILABLE"


class BusyError(UnavailableError):
    """There is no room for this now; later there will be. The answer says after how many seconds to ask again."""

    retry_after_s: ClassVar[float] = 2.0
