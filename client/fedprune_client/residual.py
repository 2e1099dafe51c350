"""The client's residual on disk: it moves when the receipt is there, and survives a restart.

A sealed update has the memory that follows it beside it, as `next`. The receipt makes `next` the memory; a refusal
puts what was to be sent back into it. What belongs to another run, another model or an epoch before a rollback is
dropped, and said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedprune.errors import StoreError
from fedprune.feedback import Memory
from fedprune.mask import Mask
from fedprune.tensor import Schema
from fedprune_client.outbox import sync_folder

RESIDUAL, VELOCITY = "residual/", "velocity/"
# After so many rounds less than a tenth of a residual would be left (0.9^22), and the model has gone elsewhere.
LONGEST_ABSENCE_ROUNDS = 21
DAMAGE = (SafetensorError, KeyError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belonging:
    """What a memory is good for: a run, a model and an epoch; `round` is when it was last answered for."""

    run_id: str
    schema_digest: str
    epoch: int
    round: int


@dataclass(slots=True, kw_only=True)
class ResidualFile:
    """The memory of one client in one folder."""

    folder: Path
    say: Callable[[str], None]

    def load(self, schema: Schema, mask: Mask, *, run_id: str, epoch: int, round_: int) -> Memory:
        """The memory for the update of `round_`: masked, and trusted less the longer it lay."""
        found = self._read(self._path("now"))
        if found is None:
            return Memory()
        memory, belongs = found
        if not memory.residual and not memory.velocity:
            return memory
        if (belongs.run_id, belongs.schema_digest) != (run_id, schema.digest):
            return self._dropped(memory, "it belongs to another run or model")
        if belongs.epoch != epoch:
            return self._dropped(memory, "the model was rolled back")
        absent = round_ - belongs.round - 1
        if absent > LONGEST_ABSENCE_ROUNDS:
            return self._dropped(memory, f"it lay for {absent} rounds")
        lost = memory.mask(mask)
        if lost:
            self.say(f"round {round_}: the new mask takes a residual of norm {lost:.3g}")
        memory.decay(absent)
        return memory

    def stage(self, after: Memory, unsent: Memory, belongs: Belonging, assignment_id: int) -> None:
        """Put both outcomes of a sealed update beside it, before it is sent."""
        self._write(self._path(f"{assignment_id}-after"), after, belongs)
        self._write(self._path(f"{assignment_id}-unsent"), unsent, belongs)
        with self._guarded():
            sync_folder(self.folder)

    def settle(self, assignment_id: int, *, accepted: bool) -> None:
        """The receipt is here: the memory moves."""
        staged = self._path(f"{assignment_id}-{'after' if accepted else 'unsent'}")
        with self._guarded():
            if staged.exists() and not self._is_past(staged):
                os.replace(staged, self._path("now"))
            for outcome in ("after", "unsent"):
                self._path(f"{assignment_id}-{outcome}").unlink(missing_ok=True)

    def _is_past(self, staged: Path) -> bool:
        """Whether the memory has gone on since: work that was abandoned may be answered for after what followed it."""
        then, now = _belonging(staged), _belonging(self._path("now"))
        if then is None or now is None:
            return False
        return then.run_id == now.run_id and then.round < now.round

    def _dropped(self, memory: Memory, why: str) -> Memory:
        self.say(f"a residual of norm {memory.norm:.3g} is dropped: {why}")
        self._path("now").unlink(missing_ok=True)
        return Memory()

    def _path(self, name: str) -> Path:
        return self.folder / f"memory-{name}.safetensors"

    def _write(self, path: Path, memory: Memory, belongs: Belonging) -> None:
        arrays: dict[str, NDArray[Any]] = {RESIDUAL + n: a for n, a in memory.residual.items()}
        arrays |= {VELOCITY + n: a for n, a in memory.velocity.items()}
        facts = {"belongs": json.dumps([belongs.run_id, belongs.schema_digest, belongs.epoch, belongs.round])}
        part = path.with_suffix(".part")
        try:
            with self._guarded():
                save_file(arrays, part, metadata=facts)
                os.replace(part, path)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        except StoreError:
            part.unlink(missing_ok=True)
            raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise StoreError(
                "cannot keep the residual", seen=str(error), next_step=f"Free space in {self.folder}"
            ) from error

    @staticmethod
    def _read(path: Path) -> tuple[Memory, Belonging] | None:
        if not path.exists():
            return None
        try:
            with safe_open(path, "np") as file:
                belongs = _parse(file.metadata())
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except DAMAGE as error:
            raise StoreError(
                "the residual is damaged", seen=str(error), next_step=f"Delete {path}; learning goes on without it"
            ) from error
        memory = Memory(
            residual={n.removeprefix(RESIDUAL): a for n, a in arrays.items() if n.startswith(RESIDUAL)},
            velocity={n.removeprefix(VELOCITY): a for n, a in arrays.items() if n.startswith(VELOCITY)},
        )
        return memory, belongs


def _belonging(path: Path) -> Belonging | None:
    """What a file says it is good for, its arrays unread; None where there is none, or a damaged one."""
    try:
        with safe_open(path, "np") as file:
            return _parse(file.metadata())
    except (*DAMAGE, FileNotFoundError):
        return None


def _parse(facts: dict[str, str]) -> Belonging:
    run_id, digest, epoch, round_ = json.loads(facts["belongs"])
    return Belonging(run_id=run_id, schema_digest=digest, epoch=epoch, round=round_)
