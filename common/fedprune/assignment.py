"""One piece of work for one client: the unit of receipts and of uniqueness."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedprune.tensor import Version
from fedprune.work import UploadPlan, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """`work` against `version` of the model, its result compressed as `plan` says, wanted within `deadline_s`."""

    assignment_id: int
    run_id: str
    round: int
    version: Version
    deadline_s: float
    work: Work
    plan: UploadPlan = field(default_factory=UploadPlan)
