"""Does one assignment, start to seal, in the one thread that touches model and replica."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedprune.assignment import Assignment
from fedprune.codec import encode_update
from fedprune.work import EvaluateWork, ReestimateWork, ScoreWork, TrainWork
from fedprune_client.encoding import check, encode, encode_scored
from fedprune_client.outbox import Outbox
from fedprune_client.reestimation import reestimate
from fedprune_client.replica import Replica
from fedprune_client.residual import ResidualFile
from fedprune_client.scoring import score
from fedprune_client.training import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What work needs: data and model (`trainer`), the version to work on, and where results are sealed."""

    trainer: Trainer
    replica: Replica
    outbox: Outbox
    residual: ResidualFile

    def do(self, assignment: Assignment, on_step: Callable[[int, int], None], stop: Callable[[], bool]) -> None:
        """Work and seal the result; when `stop()` becomes true, nothing is sealed."""
        match assignment.work:
            case TrainWork() as work:
                self._train(assignment, work, on_step, stop)
            case EvaluateWork() as work:
                self._evaluate(assignment, work)
            case ScoreWork() as work:
                self._score(assignment, work, stop)
            case ReestimateWork() as work:
                self._reestimate(assignment, work, stop)

    def _train(
        self, assignment: Assignment, work: TrainWork, on_step: Callable[[int, int], None], stop: Callable[[], bool]
    ) -> None:
        assert self.replica.mask is not None
        check(assignment)
        began_s = time.monotonic()
        if work.distill:
            self.replica.remembers = True
        trained = self.trainer.train(
            self.replica.weights,
            self.replica.mask,
            work,
            on_step=on_step,
            stop=stop,
            teacher=self.replica.remembered(work.teacher),
        )
        if trained is None:
            return
        work_s = time.monotonic() - began_s
        update = encode(assignment, self.replica, trained.weights, self.residual)
        self._seal(assignment, update.frame, trained.examples, trained.metrics, work_s=work_s, norm=update.norm)

    def _evaluate(self, assignment: Assignment, work: EvaluateWork) -> None:
        began_s = time.monotonic()
        found = self.trainer.evaluate(self.replica.weights, work)
        self._seal(assignment, b"", found.examples, found.metrics, work_s=time.monotonic() - began_s)

    def _score(self, assignment: Assignment, work: ScoreWork, stop: Callable[[], bool]) -> None:
        assert self.replica.mask is not None
        began_s = time.monotonic()
        scored = score(self.trainer, self.replica.weights, self.replica.mask, work, stop=stop)
        if scored is None:
            return
        work_s = time.monotonic() - began_s
        self._seal(assignment, encode_scored(assignment, self.replica.mask, scored), scored.examples, {}, work_s=work_s)

    def _reestimate(self, assignment: Assignment, work: ReestimateWork, stop: Callable[[], bool]) -> None:
        """Seal a lossless update in which only the statistics have moved: it folds like any other."""
        held = self.replica
        assert held.mask is not None
        began_s = time.monotonic()
        found = reestimate(self.trainer, held.weights, work, stop=stop)
        if found is None:
            return
        frame = encode_update(
            found.weights, schema=held.schema, mask=held.mask, base=held.weights, version=assignment.version
        )
        self._seal(assignment, frame, found.examples, {}, work_s=time.monotonic() - began_s)

    def _seal(
        self,
        assignment: Assignment,
        frame: bytes,
        examples: int,
        metrics: Mapping[str, float],
        *,
        work_s: float,
        norm: float = 0.0,
    ) -> None:
        self.outbox.put(
            frame,
            run_id=assignment.run_id,
            assignment_id=assignment.assignment_id,
            version=assignment.version,
            examples=examples,
            metrics=metrics,
            work_s=work_s,
            residual_norm=norm,
        )
