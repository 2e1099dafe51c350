"""What a client can be asked to do: the values behind the `oneof work` of an assignment.

They mirror the messages of coordinator.proto field by field, so that training and scoring never see protobuf, and
they refuse what makes no sense before any data is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from fedprune.errors import LocalError
from fedprune.tensor import Version

SEED_LIMIT = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPlan:
    """How an upload is compressed. `top` is the share of alive weights that is sent, 1.0 sends all; `exact` holds
    name patterns (fnmatch) of tensors that travel without loss; `clip_norm` 0 does not clip; a residual of another
    `residual_epoch` is dropped."""

    values: str = "lossless"
    top: float = 1.0
    seed: int = 0
    error_feedback: bool = False
    momentum: float = 0.0
    clip_norm: float = 0.0
    exact: tuple[str, ...] = ()
    residual_epoch: int = 0

    def __post_init__(self) -> None:
        _check(0.0 < self.top <= 1.0, "top", self.top, "a share above 0, at most 1")
        _check(0.0 <= self.momentum < 1.0, "momentum", self.momentum, "0 or more, below 1")
        _check_amount("clip_norm", self.clip_norm)
        _check_seed(self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainWork:
    """Local training: `epochs` passes over the data, cut short after `steps` optimizer steps where `steps` is not 0.
    `proximal` is FedProx's mu (Li et al., 2020). `distill` is the share of the loss that pulls towards the answers of
    `teacher`, a version that the client held before its mask changed; without a teacher it is only to be kept in mind."""

    epochs: int = 1
    steps: int = 0
    batch_size: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    proximal: float = 0.0
    seed: int = 0
    distill: float = 0.0
    teacher: Version | None = None

    def __post_init__(self) -> None:
        _check(0.0 <= self.distill < 1.0, "distill", self.distill, "a share from 0, below 1")
        _check(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _check(self.steps >= 0, "steps", self.steps, "0 or more")
        _check_batch_size(self.batch_size)
        for name in ("learning_rate", "momentum", "weight_decay", "proximal"):
            _check_amount(name, getattr(self, name))
        _check_seed(self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateWork:
    """Loss and metrics on the held-out share."""

    batch_size: int = 32

    def __post_init__(self) -> None:
        _check_batch_size(self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreWork:
    """Importance scores from local data. `grow` is empty, or holds one number for each prunable tensor: send only
    the positions of that many of the largest scores among its pruned weights. `keep` is empty, or says how many weights
    the mask that the client proposes in place of scores has alive: of each prunable tensor, or, one number alone, of all
    together. `train`, with `grow`: train like this first, and propose a mask in which so many of each tensor's smallest
    weights have given way to those with the largest gradients. `batches` 0 means: all of them."""

    method: str
    batches: int = 0
    batch_size: int = 32
    seed: int = 0
    grow: tuple[int, ...] = ()
    keep: tuple[int, ...] = ()
    train: TrainWork | None = None

    def __post_init__(self) -> None:
        _check(all(n >= 0 for n in self.keep), "keep", self.keep, "counts of 0 or more")
        _check(not (self.keep and self.grow), "keep", self.keep, "none where something is to grow")
        _check(self.train is None or bool(self.grow), "train", self.train, "nothing where nothing is to grow")
        _check(bool(self.method), "method", repr(self.method), "the name of a score")
        _check(self.batches >= 0, "batches", self.batches, "0 or more")
        _check(all(n >= 0 for n in self.grow), "grow", self.grow, "counts of 0 or more")
        _check_batch_size(self.batch_size)
        _check_seed(self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReestimateWork:
    """Running statistics by forward passes only. `batches` 0 means: all of them."""

    batches: int = 0
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.batches >= 0, "batches", self.batches, "0 or more")
        _check_batch_size(self.batch_size)
        _check_seed(self.seed)


Work = TrainWork | EvaluateWork | ScoreWork | ReestimateWork


def _check(good: bool, name: str, seen: object, expected: str) -> None:
    if not good:
        raise LocalError(f"the assignment's {name} makes no sense", seen=seen, expected=expected)


def _check_amount(name: str, value: float) -> None:
    _check(isfinite(value) and value >= 0.0, name, value, "a finite number, 0 or more")


def _check_batch_size(value: int) -> None:
    _check(value >= 1, "batch_size", value, "1 or more")


def _check_seed(value: int) -> None:
    _check(0 <= value < SEED_LIMIT, "seed", value, "an unsigned 64-bit number")
