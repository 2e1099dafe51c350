"""What happens around each optimizer step on the local model, whoever's loop takes it: the proximal pull before it,
progress and the stop signal after it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle


class Stopped(BaseException):
    """Training was told to stop. No `Exception`, so that a user's own loop does not swallow it."""


class StepWatch:
    """Context manager counting the optimizer steps taken on `model`, in `taken`.

    `on_step(taken, planned)` follows each step (`planned` 0: not known); when `stop()` is true, `Stopped` is raised out
    of it. With `proximal` mu above 0 each gradient gets mu * (w - w at the start) added: FedProx (Li et al., 2020).
    """

    def __init__(
        self,
        model: nn.Module,
        planned: int,
        on_step: Callable[[int, int], None],
        stop: Callable[[], bool],
        *,
        proximal: float = 0.0,
    ) -> None:
        self.taken = 0
        self._planned = planned
        self._on_step = on_step
        self._stop = stop
        self._proximal = proximal
        weights = [p for p in model.parameters() if p.requires_grad]
        self._mine = {id(p) for p in weights}
        self._start: list[tuple[Tensor, Tensor]] = [(p, p.detach().clone()) for p in weights if proximal > 0.0]
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        if self._start:
            self._handles.append(register_optimizer_step_pre_hook(self._pull))
        self._handles.append(register_optimizer_step_post_hook(self._count))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def _steps_ours(self, optimizer: Optimizer) -> bool:
        return any(id(p) in self._mine for group in optimizer.param_groups for p in group["params"])

    def _pull(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for weight, start in self._start:
            if id(weight) in held and weight.grad is not None:
                weight.grad.add_(weight.detach() - start, alpha=self._proximal)

    def _count(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._steps_ours(optimizer):
            return
        self.taken += 1
        self._on_step(self.taken, self._planned)
        if self._stop():
            raise Stopped
