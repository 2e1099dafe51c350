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
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fedprune.errors import ConfigError
from fedprune.pruning.presets import PRESETS
from fedprune.tomlfile import KeyProblem, parse

MAX_CHUNK_BYTES = 1 << 20
# What density = "auto" may cost where the file does not say.
AUTO_DROP = 0.01
# Scores that the coordinator computes by itself.
DATA_FREE = ("magnitude", "random", "synflow")


def _run_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(f"{name!r} cannot name a folder; use up to 64 letters, digits, '.', '_' and '-'")
    return name


def _host_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:7400")
    return address


Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
ShareOrZero = Annotated[float, Field(ge=0, le=1)]
Patterns = Annotated[tuple[str, ...], Field(strict=False)]
Stage = Annotated[tuple[ShareOrZero, Share], Field(strict=False)]
Stages = Annotated[tuple[Stage, ...], Field(strict=False)]
Trackers = Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], Field(strict=False)]
File = Annotated[Path, Field(strict=False)]
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
Method = Literal[
    "magnitude",
    "random",
    "synflow",
    "gradient",
    "snip",
    "taylor",
    "fisher",
    "movement",
    "activation",
    "apoz",
    "wanda",
]
Values = Literal["lossless", "raw", "fp16", "bf16", "int8", "int4", "ternary"]


Preset = Literal["gradual", "snip", "synflow", "random", "lamp", "wanda", "movement", "fedtiny", "fedrts"]
Budget = Literal["keep", "compression", "parameters", "flops", "bytes"]


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are refused, nothing changes after reading."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)


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
    """Seconds that a round waits for a client that lost its connection."""
    late: Literal["wait", "admit"] = "wait"
    """A client that comes after the first round waits for the next run, or is admitted with a shard of its own."""

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


class PruningSection(Section):
    preset: Preset | None = None
    """A paper's method by name: sets method, schedule, spread and regrow as it does; the other keys stay yours."""
    density: Share | Literal["auto"] = 1.0
    """Share of the prunable weights that is alive at the end; 1.0 prunes nothing; "auto" goes as low as the allowed drop
    of accuracy lets it."""
    max_accuracy_drop: ShareOrZero | None = None
    """With a value (0.01 is one point) each step is on approval: judged by all clients on what they held out, against
    the best accepted model, and undone where it costs more. With density "auto" 0.01 unless given."""
    recovery: Count = 3
    """For steps on approval: rounds of training between a step and its verdict."""
    over: Literal["prunable", "all"] = "prunable"
    """What keep, compression and parameters of `budget` count: the prunable weights, or all of them."""
    method: Method = "magnitude"
    """How important a weight is: its size, nothing (the control), SynFlow (models whose matrices form a chain), or a
    score that the clients compute on their data, each time before a round that ends with a new mask."""
    schedule: Literal["cubic", "linear", "once", "init", "staged", "regrow"] = "cubic"
    """How density falls: gradually (Zhu and Gupta, 2017), evenly, once after `start`, before round 1, by `stages`; or
    before round 1, and from then on weights are exchanged every `every` rounds until `end`."""
    start: ShareOrZero = 0.1
    """Share of the rounds after which pruning begins."""
    end: ShareOrZero = 0.6
    """Share of the rounds after which density has reached its target."""
    every: Count = 5
    """Rounds between mask changes."""
    stages: Stages = ()
    """For schedule "staged": pairs of a share of the rounds and the density from there on."""
    spread: Literal["global", "uniform", "erk", "lamp"] = "global"
    """How the density is laid over the tensors: one ranking for all, evenly, by shape (ERK), or by LAMP scores."""
    regrow: Literal["votes", "gradient", "posterior"] = "votes"
    """For schedule "regrow", what grows: what most clients vote for, the largest mean gradients (FedTiny), or what
    draws from Beta posteriors choose (FedRTS)."""
    exchange: Share = 0.3
    """For schedule "regrow": share of the alive weights that the first exchange replaces; it falls to 0 at `end`."""
    protect: Patterns = ()
    """Names of tensors that are never pruned, with * and ?; added to the built-in protection."""
    prune: Patterns = ()
    """Names of tensors that are pruned although the built-in protection covers them."""
    floor: CountOrZero = 16
    """Fewest weights a prunable tensor keeps."""
    floor_share: ShareOrZero = 0.005
    """Smallest share of its weights a prunable tensor keeps."""
    budget: dict[Budget, Positive] = {}
    """In place of density: `keep` (a share), `compression` (one in so many stays), `parameters` (so many stay), `flops`
    (for one example, forward), or `bytes` (of a client's update in a steady round, at most)."""
    layers: dict[str, Share] = {}
    """Tensors with a density of their own: names, with * and ?, and densities."""
    threshold: dict[Literal["absolute", "mean"], Positive] = {}
    """In place of density, with "once" or "init": keep what is at least so large, or `mean` times its tensor's mean."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_paper_says(cls, keys: Any) -> Any:
        """The keys of a preset, under those of the file, which must not say otherwise."""
        name = keys.get("preset") if isinstance(keys, dict) else None
        if not isinstance(name, str) or name not in PRESETS:
            return keys
        fixed = {key: value for key, value in PRESETS[name].items() if key in cls.model_fields}
        for key, value in fixed.items():
            if keys.get(key, value) != value:
                raise KeyProblem(
                    key, f"{keys[key]!r} contradicts preset = {name!r}, which has {value!r}; leave one of them out"
                )
        return {**fixed, **keys}

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start > self.end:
            raise KeyProblem("start", f"start = {self.start} comes after end = {self.end}")
        if len(self.threshold) > 1:
            raise KeyProblem("threshold", "threshold is either absolute or mean, not both")
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if len(self.budget) > 1:
            raise KeyProblem("budget", f"one budget at a time, not {' and '.join(self.budget)}")
        if self.budget and (self.density != 1.0 or self.threshold):
            other = "threshold" if self.threshold else f"density = {self.density}"
            raise KeyProblem("budget", f"budget and {other} contradict each other; keep the one you mean")
        if "flops" in self.budget and self.allowance is not None:
            raise KeyProblem("budget", "steps on approval go by weights; state the budget as keep or parameters")
        return self

    @property
    def allowance(self) -> float | None:
        """How much accuracy a step may cost; None where steps are not on approval."""
        return AUTO_DROP if self.density == "auto" and self.max_accuracy_drop is None else self.max_accuracy_drop

    @model_validator(mode="after")
    def _approvable(self) -> Self:
        if self.allowance is None:
            return self
        if self.method not in DATA_FREE:
            raise KeyProblem(
                "method",
                f"{self.method!r} needs the clients' scores before every step, which steps on approval do not ask for; "
                f"choose one of {', '.join(DATA_FREE)}, or leave max_accuracy_drop out",
            )
        if self.schedule in ("init", "regrow") or self.threshold:
            key = "threshold" if self.threshold else "schedule"
            raise KeyProblem(key, "steps on approval follow cubic, linear, once or staged densities")
        if self.density == "auto" and (self.layers or self.schedule != "cubic"):
            key = "layers" if self.layers else "schedule"
            raise KeyProblem(key, 'density = "auto" finds its own densities, all layers together, at its own pace')
        return self


class CompressionSection(Section):
    plan: Literal["fixed", "auto"] = "fixed"
    """As `up`, `down` and `top` say, or chosen from round to round by the clients' links and the accuracy."""
    up: Values = "lossless"
    """How clients send their values; `raw` spends no time on coding, for networks that are faster than it."""
    down: Values = "lossless"
    """How the coordinator sends its values."""
    top: Share = 1.0
    """Of each matrix as many weights travel as are this share of the whole of it, pruned or not: the alive ones with
    the largest changes. With a lossy `down`, both ways."""
    warmup: ShareOrZero = 0.0
    """Share of the rounds during which `top` falls from 1 to its value."""
    error_feedback: bool = True
    """Keep what compression leaves out and add it to the next update."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of what is sent, cleared where it was sent (Lin et al., 2018); 0 is off."""
    clip_norm: PositiveOrZero = 0.0
    """Largest L2 norm of a client's change before compression; 0 does not clip."""
    exact: Patterns = ()
    """Names of tensors that always travel lossless, with * and ?."""
    coarsest: Values = "ternary"
    """With plan "auto": the coarsest values it may choose."""
    least_top: Share = 0.01
    """With plan "auto": the smallest share it may choose."""
    tolerance: ShareOrZero = 0.02
    """With plan "auto": how far accuracy may fall behind its best before finer values are chosen."""

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.plan == "auto" and (self.up, self.down, self.top) != ("lossless", "lossless", 1.0):
            raise ValueError('plan = "auto" chooses up, down and top; bound it by coarsest and least_top')
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
    """Share of the clients that multi_krum stands."""
    clip_norm: PositiveOrZero = 0.0
    """Longest update that counts whole, whatever the rule; longer ones are shortened to it. 0 does not clip."""


class PrivacySection(Section):
    """No keys yet: the section is reserved, so that a file that asks for privacy is refused."""


class NetworkSection(Section):
    address: Annotated[str, AfterValidator(_host_port)] = "127.0.0.1:7400"
    """HOST:PORT the coordinator listens on; `--address` overrides it."""
    enrol_port: Annotated[int, Field(ge=0, le=65535)] = 7402
    """Port for `client --join`, at the same address; open with certificates only, and only where they are issued."""
    insecure: bool = False
    """Serve plaintext on an address that other machines can reach; `--insecure` sets it."""
    chunk_bytes: Annotated[int, Field(ge=1024, le=MAX_CHUNK_BYTES)] = 1 << 19
    """Bytes of payload in one message of a transfer."""
    heartbeat_s: Seconds = 10.0
    """Seconds between two signs of life; a client silent for three of them counts as gone."""
    stall_s: Seconds = 30.0
    """Seconds after which a transfer that makes no progress is broken off; it goes on where it was."""
    max_clients: Count = 1024
    """Clients that may join, all told."""
    max_calls: Count = 4096
    """Calls open at a time, a work stream for each client among them; whoever comes too much asks again later."""
    max_client_calls: Count = 8
    """Calls of one client open at a time."""
    max_uploads: Count = 64
    """Uploads coming in at a time."""
    max_staged_bytes: Count = 1 << 36
    """Bytes of uploads coming in at a time, as announced."""
    max_bytes_per_s: PositiveOrZero = 0.0
    """Bytes a second that all uploads together may bring; 0 sets no limit."""
    max_client_bytes_per_s: PositiveOrZero = 0.0
    """Bytes a second that the uploads of one client may bring; 0 sets no limit."""


class PageSection(Section):
    serve: bool = False
    """Serve the live page, and `/metrics` beside it; `--page` sets it."""
    address: Annotated[str, AfterValidator(_host_port)] = "127.0.0.1:7401"
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
        if "bytes" in self.pruning.budget and (self.compression.top < 1.0 or self.compression.plan == "auto"):
            raise KeyProblem("pruning.budget", "compression chooses a share of the weights itself: bytes do not follow")
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
