"""The run file: everything that decides how a run goes, in one frozen value.

One TOML file describes one training. It speaks of density only, never of sparsity, so that a number cannot be read
the wrong way round. Every key has a default, so the shortest run file is empty; an unknown key is an error. The
resolved file, every default written out, is stored with the run. What is a matter of the place and not of the
run, such as where certificates lie, is a flag of the program and not in here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import tomli_w
from pydantic import AfterValidator, Field, model_validator

from fedprune.compression_section import CompressionSection
from fedprune.errors import ConfigError
from fedprune.network_section import NetworkSection
from fedprune.pruning_section import DATA_FREE, PruningSection
from fedprune.section import (
    Count,
    CountOrZero,
    File,
    HostPort,
    Positive,
    PositiveOrZero,
    Seconds,
    Section,
    Share,
    ShareOrZero,
)
from fedprune.tomlfile import KeyProblem, parse


def _run_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(f"{name!r} cannot name a folder; use up to 64 letters, digits, '.', '_' and '-'")
    return name


Rule = Literal[
    "fedavg",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "trimmed_mean",
    "median",
    "multi_krum",
    "norm_clip",
]
Trackers = Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], Field(strict=False)]


class RunSection(Section):
    name: Annotated[str, AfterValidator(_run_name)] = "run"
    """What the run is called; also its folder under runs/."""
    rounds: Count = 40
    """Rounds from start to finish."""
    seed: CountOrZero = 1
    """Seed of the first model, of the choice of clients and of their batches."""
    init: File | None = None
    """A safetensors file to start from; without it the task's `model()` makes the first weights."""
    evaluate_every: CountOrZero = 1
    """Rounds between evaluations; 0 evaluates only after the last round."""
    keep_updates: bool = False
    """Keep what clients sent and the versions it was made against, for `fedprune export --round`; else it goes once it
    is in the model. Updates can tell something of the data they come from."""
    track: Trackers = ()
    """Experiment trackers that are told of each round: tensorboard, mlflow, wandb; each is an extra of its name."""


class TaskSection(Section):
    file: File | None = None
    """The task file; `--task` overrides it."""


class ClientsSection(Section):
    expect: CountOrZero = 0
    """Clients to wait for before the first round; 0 waits until nobody has joined for `settle_s`."""
    settle_s: Seconds = 5.0
    """Seconds of quiet after the last join that close the door when `expect` is 0."""
    share: Share = 1.0
    """Share of the clients that take part in a round."""
    min_clients: Count = 1
    """Fewest clients that a round is started with."""
    quorum: Share = 0.5
    """Share of a round's clients whose updates must count."""
    deadline_s: Seconds = 600.0
    """Seconds after which a round closes with what it has, if that is a quorum."""
    over_select: ShareOrZero = 0.0
    """Extra share of clients that is asked, so that the slowest need not be waited for."""
    on_miss: Literal["close", "extend"] = "close"
    """What happens when the deadline comes without a quorum: close the round with what is there, or extend it once."""
    grace_s: Seconds = 30.0
    """Seconds that a round waits for a client that lost its connection; and a run that was restarted, before it opens its
    next round, for all of them to come back."""
    late: Literal["wait", "admit"] = "wait"
    """A client that comes after the first round waits for the next run, or is admitted with a shard of its own."""
    densities: dict[str, Share] = Field(default={})
    """Levels of `pruning.levels` set by hand: names of clients, with * and ?, and densities; the first that fits counts."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.expect and self.min_clients > self.expect:
            raise ValueError(f"min_clients = {self.min_clients} can never be reached with expect = {self.expect}")
        return self


class TrainingSection(Section):
    epochs: Count = 1
    """Passes over the client's data in a round."""
    steps: CountOrZero = 0
    """Most optimizer steps in a round; 0 takes all the epochs hold."""
    batch_size: Count = 32
    """Examples in a batch."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Used unless the task file brings its own."""
    learning_rate: Positive = 0.05
    """Step size of the client's optimizer."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd."""
    weight_decay: PositiveOrZero = 0.0
    """Weight decay of the client's optimizer."""
    proximal: PositiveOrZero = 0.0
    """FedProx's mu: pull towards the round's model (Li et al., 2020); 0 is off."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a client's data that is kept out of training, for evaluation."""
    fold: CountOrZero = 0
    """Which part of that size is kept out, 0 for the first: with 0.2 the folds 0 to 4 keep every example out once."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.fold and round((self.fold + 1) * self.held_out, 9) > 1.0:
            raise KeyProblem("fold", f"there is no part {self.fold} of {self.held_out} each")
        return self


class AggregationSection(Section):
    rule: Rule = "fedavg"
    """How updates become the next model: fedavg (McMahan et al., 2017), with momentum, adaptive (Reddi et al., 2021),
    or a rule that stands clients which lie."""
    rate: Positive = 1.0
    """Step along the mean update; 1.0 takes it whole. fedadam, fedyogi and fedadagrad want about 0.1."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment of fedavgm and the adaptive rules."""
    second: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the second moment of fedadam and fedyogi."""
    floor: Positive = 1e-3
    """Keeps adaptive steps small where nothing moves."""
    trim: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Share of the clients that trimmed_mean cuts at either end."""
    attackers: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Share of the clients that multi_krum stands, and trimmed_mean and median with `mixing`."""
    mixing: bool = True
    """For trimmed_mean and median: each update counts as the mean of those most like it, so that honest clients which
    differ do not pull the middle about (Allouah et al., 2023); false takes the rules as they are in the books."""
    damping: ShareOrZero = 0.2
    """With pruning.levels: a weight whose holders have less than this share of the round's examples moves less, in
    proportion; 0 lets a single client move it whole."""
    clip_norm: PositiveOrZero = 0.0
    """Longest update that counts whole, whatever the rule; longer ones are shortened to it. 0 does not clip."""


class PrivacySection(Section):
    """No keys yet: the section is reserved, so that a file that asks for privacy is refused."""


class PageSection(Section):
    serve: bool = False
    """Serve the live page, and `/metrics` beside it; `--page` sets it."""
    address: HostPort = "127.0.0.1:7401"
    """HOST:PORT of the page; `--page-address` overrides it. Beyond this machine it asks for a token."""
    token_file: File | None = None
    """Holds that token; without it one is made and kept beside the runs."""


class RunConfig(Section):
    """The whole run file. Build it with `load`, or section by section in tests."""

    run: RunSection = RunSection()
    task: TaskSection = TaskSection()
    clients: ClientsSection = ClientsSection()
    training: TrainingSection = TrainingSection()
    pruning: PruningSection = PruningSection()
    compression: CompressionSection = CompressionSection()
    aggregation: AggregationSection = AggregationSection()
    privacy: PrivacySection = PrivacySection()
    network: NetworkSection = NetworkSection()
    page: PageSection = PageSection()

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        compression = self.compression
        chooses = compression.top < 1.0 or compression.plan == "auto" or compression.stages
        if "bytes" in self.pruning.budget and chooses:
            raise KeyProblem("pruning.budget", "compression chooses a share of the weights itself: bytes do not follow")
        return self

    @model_validator(mode="after")
    def _nested(self) -> Self:
        levels, local = self.pruning.levels, self.pruning.readjusts
        strangers = {name: d for name, d in self.clients.densities.items() if d not in levels}
        if strangers:
            raise KeyProblem("clients.densities", f"{strangers} are not among pruning.levels = {list(levels)}")
        if not levels and not local:
            return self
        compression = self.compression
        down = {compression.down, *(values for _, values, _ in compression.stages)}
        if not down <= {"lossless", "raw"} or compression.plan == "auto":
            key = "pruning.levels" if levels else 'pruning.regrow = "local"'
            raise KeyProblem(
                "compression.down",
                f"clients with masks of their own must get the same values: lossless or raw with {key}",
            )
        if local:
            return self
        if self.pruning.method not in DATA_FREE or self.pruning.schedule == "regrow":
            key = "method" if self.pruning.method not in DATA_FREE else "schedule"
            raise KeyProblem(f"pruning.{key}", "clients that hold a part of the model cannot score the rest of it")
        if self.pruning.allowance is not None:
            raise KeyProblem("pruning.levels", "steps on approval are judged by clients that all hold the whole model")
        return self

    @model_validator(mode="after")
    def _judgeable(self) -> Self:
        if self.pruning.allowance is not None and not self.training.held_out:
            raise KeyProblem(
                "training.held_out", "steps on approval are judged on what clients hold out, and 0 holds nothing out"
            )
        return self

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> RunConfig:
        """Read a run file; paths in it are relative to its folder. Raises `ConfigError` with file, line and key."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the run file {path}: {error}", next_step="Check the path") from error
        config = parse(text, cls, name=str(path), overrides=overrides)
        return config._anchored(path.resolve().parent)

    @classmethod
    def loads(cls, text: str, *, name: str = "run file", overrides: Sequence[str] = ()) -> RunConfig:
        """Read a run file's text, as stored with a run; paths are left as they are."""
        return parse(text, cls, name=name, overrides=overrides)

    def to_toml(self) -> str:
        """The resolved file: every key with the value in force. `loads` reads it back to an equal value."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def differences(self, other: RunConfig) -> list[str]:
        """The keys ("section.key") in which two run files differ."""
        ours, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{s}.{k}" for s, keys in ours.items() for k, value in keys.items() if value != theirs[s][k]]

    def _anchored(self, folder: Path) -> RunConfig:
        def absolute(path: Path | None) -> Path | None:
            return None if path is None else folder / path

        run = self.run.model_copy(update={"init": absolute(self.run.init)})
        task = self.task.model_copy(update={"file": absolute(self.task.file)})
        page = self.page.model_copy(update={"token_file": absolute(self.page.token_file)})
        return self.model_copy(update={"run": run, "task": task, "page": page})
