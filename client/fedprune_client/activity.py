"""What flows through a layer while a model runs: its inputs, and the outputs of its units after the nonlinearity.

Modules alone cannot tell: a ReLU may be a layer of its own or a call in `forward`. So the functions that torch runs
are watched: a product with a watched weight marks its output, and norms, dropout and nonlinearities hand the mark on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedprune.pruning.accumulate import unit_activity, unit_nonzero

Floats = NDArray[np.float32]

# Keep the units of their first argument: what follows a layer before the next one reads it.
# fmt: off
SAME_UNITS = frozenset({
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish",
    "tanh", "tanh_", "sigmoid", "sigmoid_", "softplus", "hardswish", "hardtanh", "hardsigmoid", "clamp", "clamp_",
    "batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm", "dropout", "dropout1d", "dropout2d",
})
# fmt: on
LAYERS: frozenset[Callable[..., Any]] = frozenset(
    {functional.linear, functional.conv1d, functional.conv2d, functional.conv3d}
)


@dataclass(slots=True, kw_only=True)
class Unit:
    """Running sums of one layer: squares of its inputs [inputs] over `reads`, |output| and non-zero shares [units]
    over `examples`."""

    squares: NDArray[np.float64] | None = None
    reads: int = 0
    activity: NDArray[np.float64] | None = None
    nonzero: NDArray[np.float64] | None = None
    examples: int = 0

    def read(self, inputs: Tensor) -> None:
        """`inputs` [reads, inputs]."""
        found = inputs.detach().double().square().sum(0).cpu().numpy()
        self.squares = found if self.squares is None else self.squares + found
        self.reads += int(inputs.shape[0])

    def wrote(self, outputs: Tensor) -> None:
        """`outputs` [examples, units, ...]."""
        array, count = outputs.detach().float().cpu().numpy(), int(outputs.shape[0])
        active, nonzero = (
            unit_activity(array).astype(np.float64) * count,
            unit_nonzero(array).astype(np.float64) * count,
        )
        self.activity = active if self.activity is None else self.activity + active
        self.nonzero = nonzero if self.nonzero is None else self.nonzero + nonzero
        self.examples += count


@dataclass(slots=True, kw_only=True)
class _Use:
    """One pass through a layer; `kept` holds on to what came before `output`, so that no id is given out twice."""

    unit: Unit
    linear: bool
    output: Tensor
    kept: list[Tensor]


class ActivityWatch(TorchFunctionMode):
    """Context manager: sums, in `units`, what flows through the layers of `weights` (name -> live parameter) that are
    linear or convolutions. `settle` closes a batch: only then is it known which output was a unit's last."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.units: dict[str, Unit] = {}
        self._names = {id(weight): name for name, weight in weights.items()}
        self._uses: list[_Use] = []
        self._by_output: dict[int, _Use] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [*args, *(kwargs or {}).values()]
        name = self._names.get(id(given[1])) if len(given) > 1 else None
        if name is not None and func in LAYERS:
            self._enter(name, given[0], result, linear=func is functional.linear)
        elif given and id(given[0]) in self._by_output and getattr(func, "__name__", "") in SAME_UNITS:
            self._hand_on(self._by_output[id(given[0])], result)
        return result

    def settle(self) -> None:
        """Take the outputs of the batch that just ran into the sums."""
        for use in self._uses:
            use.unit.wrote(use.output.reshape(-1, use.output.shape[-1]) if use.linear else use.output)
        self._uses.clear()
        self._by_output.clear()

    def _enter(self, name: str, inputs: Tensor, output: Tensor, *, linear: bool) -> None:
        unit = self.units.setdefault(name, Unit())
        unit.read(_rows(inputs, linear=linear))
        use = _Use(unit=unit, linear=linear, output=output, kept=[])
        self._uses.append(use)
        self._by_output[id(output)] = use

    def _hand_on(self, use: _Use, output: Tensor) -> None:
        use.kept.append(use.output)
        use.output = output
        self._by_output[id(output)] = use


def _rows(inputs: Tensor, *, linear: bool) -> Tensor:
    """[reads, inputs] of a batch: the last axis of a linear layer, the channels of a convolution."""
    if linear:
        return inputs.reshape(-1, inputs.shape[-1])
    return inputs.movedim(1, -1).reshape(-1, inputs.shape[1])
