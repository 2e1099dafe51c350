"""What `doctor` finds, and how it says so: each finding names what was seen and, where it is bad, what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from fedprune.errors import FedpruneError, LocalError


class State(StrEnum):
    """How a check went; `SKIPPED` says why in what it saw."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    SKIPPED = "skipped"


MILDER = {State.WARNING: "to look at", State.SKIPPED: "not tried"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: its name, how it went, what was seen, and what to do about it where something is to be done."""

    check: str
    state: State
    seen: str
    next_step: str = ""

    def __post_init__(self) -> None:
        if self.state in (State.WARNING, State.BAD) and not self.next_step:
            raise LocalError("whoever finds something wrong says what to do about it", seen=self.check)


def good(check: str, seen: str) -> Finding:
    """Nothing to do."""
    return Finding(check=check, state=State.GOOD, seen=seen)


def warning(check: str, seen: str, next_step: str) -> Finding:
    """It works, but may not for long, or not well."""
    return Finding(check=check, state=State.WARNING, seen=seen, next_step=next_step)


def bad(check: str, seen: str, next_step: str) -> Finding:
    """It cannot work like this."""
    return Finding(check=check, state=State.BAD, seen=seen, next_step=next_step)


def trouble(check: str, error: FedpruneError, next_step: str) -> Finding:
    """An error as a finding: its own next step where it has one."""
    fact = type(error)(error.problem, party=error.party, seen=error.seen, expected=error.expected)
    return bad(check, str(fact), error.next_step or next_step)


def skipped(check: str, why: str) -> Finding:
    """Not tried, and why."""
    return Finding(check=check, state=State.SKIPPED, seen=why)


def is_well(findings: Iterable[Finding]) -> bool:
    """True when nothing is bad."""
    return all(finding.state is not State.BAD for finding in findings)


def line(finding: Finding) -> str:
    """One finding as text; what to do stands on a line of its own."""
    first = f"{finding.state:<8} {finding.check:<14} {finding.seen}"
    return f"{first}\n{'':<24}-> {finding.next_step}" if finding.next_step else first


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    counts = {state: sum(f.state is state for f in findings) for state in State}
    said = [f"{counts[State.BAD]} of {len(findings)} checks failed" if counts[State.BAD] else "nothing is wrong"]
    said += [f"{counts[state]} {word}" for state, word in MILDER.items() if counts[state]]
    return ", ".join(said)


def as_dict(findings: Sequence[Finding]) -> dict[str, Any]:
    """For `--json`."""
    return {"ok": is_well(findings), "findings": [asdict(finding) for finding in findings]}
