"""Which tensors of a model can lose weights: the natural roles, and what a run file changes about them.

Matrices and kernels can be pruned; biases, norms, embeddings, positions, the first convolution on a picture and the
classifier travel whole, because they are few and cost accuracy first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from fedprune.errors import ConfigError
from fedprune.tensor import FLOAT_DTYPES, Role, Schema

FEW_INPUTS = 4  # grey, colour or colour with depth: a first kernel this thin has no weights to spare
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)
WHOLE_NAMES = ("*pos*", "*token*", "*bias*")  # of the parameter itself, not of the modules around it


def natural_roles(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Role]:
    """A role for each of `tensors` (state-dict name -> live tensor of `model`)."""
    whole = _parameters_of(model, EMBEDDINGS) | _parameters_of(model, NORMS)
    whole |= {id(_first_convolution(model)), id(_classifier(model))}
    return {name: _role(name, tensor, whole) for name, tensor in tensors.items()}


def assign_roles(schema: Schema, protect: Sequence[str], prune: Sequence[str]) -> Schema:
    """The schema under the run file's patterns (fnmatch on names): `prune` lifts a protection, `protect` adds one.
    `ConfigError` for a pattern that matches no weights and for a tensor that both name."""
    weights = {t.name for t in schema.of(Role.PRUNABLE, Role.FREE)}
    kept = _matched(weights, protect, "protect")
    lifted = _matched(weights, prune, "prune")
    if kept & lifted:
        raise ConfigError(
            "pruning.protect and pruning.prune both name a tensor",
            seen=min(kept & lifted),
            next_step="Take it out of one of them",
        )
    return schema.with_roles(
        [Role.FREE if t.name in kept else Role.PRUNABLE if t.name in lifted else t.role for t in schema]
    )


def _matched(names: set[str], patterns: Sequence[str], key: str) -> set[str]:
    matched: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if fnmatchcase(name, pattern)}
        if not hits:
            raise ConfigError(
                f"pruning.{key} has a pattern that matches no weights",
                seen=repr(pattern),
                next_step=f"The model's weights are: {', '.join(sorted(names))}",
            )
        matched |= hits
    return matched


def _role(name: str, tensor: Tensor, whole: set[int]) -> Role:
    if not isinstance(tensor, nn.Parameter):
        floating = str(tensor.dtype).removeprefix("torch.") in FLOAT_DTYPES
        return Role.BUFFER if floating else Role.COUNTER
    return Role.PRUNABLE if _is_matrix(name, tensor) and id(tensor) not in whole else Role.FREE


def _is_matrix(name: str, tensor: object) -> bool:
    own_name = name.rpartition(".")[2]
    named = any(fnmatchcase(own_name, pattern) for pattern in WHOLE_NAMES)
    return isinstance(tensor, nn.Parameter) and tensor.dim() >= 2 and not named


def _parameters_of(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> set[int]:
    """Identities of the parameters that modules of these kinds hold themselves."""
    modules = (m for m in model.modules() if isinstance(m, kinds))
    return {id(p) for module in modules for p in module.parameters(recurse=False)}


def _first_convolution(model: nn.Module) -> Tensor | None:
    first = next((m for m in model.modules() if isinstance(m, CONVOLUTIONS)), None)
    return first.weight if first is not None and first.in_channels <= FEW_INPUTS else None


def _classifier(model: nn.Module) -> Tensor | None:
    """The last matrix under any of its names: tied to an embedding it is whole already, and no other stands in."""
    norms = _parameters_of(model, NORMS)
    entries = model.state_dict(keep_vars=True).items()
    matrices = [t for name, t in entries if _is_matrix(name, t) and id(t) not in norms]
    return matrices[-1] if matrices else None
