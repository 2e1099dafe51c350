"""Who is refused and comes again at once, again and again: it is hung up on.

A refusal says when to come again, and to say it costs us half a millisecond, more than it costs who asks. Who does not
listen would take the coordinator's time from everybody else. Plain arithmetic without a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from fedprune.errors import BusyError, FedpruneError, IdentityError, RoleError
from fedprune_server.limits import TokenBucket

# Refusals that a client may meet: so many at once, and so many a second in the long run. Ours waits after each of them.
REFUSALS_AT_ONCE, REFUSALS_PER_S = 6.0, 1.0
# Who is remembered, the latest.
MOST_REMEMBERED = 4096
# What is told to who should have waited, or should not be here at all.
TELLING = (BusyError, IdentityError, RoleError)


@dataclass(slots=True)
class Nags:
    """The refused, by identity, or by connection where nobody was let in."""

    _refused: OrderedDict[str, TokenBucket] = field(default_factory=OrderedDict)

    def refused(self, who: str, error: FedpruneError, now_s: float) -> bool:
        """Somebody is refused; True when it is once too often."""
        if not isinstance(error, TELLING):
            return False
        bucket = self._refused.setdefault(who, TokenBucket(REFUSALS_PER_S, REFUSALS_AT_ONCE - 1))
        self._refused.move_to_end(who)
        if len(self._refused) > MOST_REMEMBERED:
            self._refused.popitem(last=False)
        # Who is over the limit already is not sunk any deeper: a second's patience is enough.
        if bucket.take(0, now_s) > 0:
            return True
        bucket.take(1, now_s)
        return False
