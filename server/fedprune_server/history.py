"""What clients sent in a round of a run that keeps it: read from its folder, whether the run is over or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fedprune.codec import Content, Limits, UpdateReader
from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.schema_file import read_schema
from fedprune_server.levels import on_mask
from fedprune_server.store import Work
from fedprune_server.store.looking import Look
from fedprune_server.versions import read_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One client's accepted update, to be read, and the weights that it began with, `base`. `identity` is the name it gave,
    or its key's hash under TLS."""

    client: int
    identity: str
    examples: int
    mask: Mask
    base: Mapping[str, NDArray[Any]]
    reader: UpdateReader

    @property
    def is_difference(self) -> bool:
        """Whether the values are differences to the version that was trained, not weights."""
        return self.reader.content is Content.DELTA


def sent(folder: Path, round_: int) -> Iterator[Sent]:
    """The updates that counted in a round, by client.

    Raises `LocalError` when none did, `StoreError` when there is no run or it did not keep them.
    """
    schema = read_schema(folder)
    limits = Limits.of_update(schema)
    with Look(folder) as look:
        identities = {client.client: client.identity for client in look.clients()}
        for run in look.runs():
            receipts = look.receipts(run.run_id, round_, Work.TRAIN)
            if not receipts:
                last = look.latest_version(run.run_id)
                raise LocalError(
                    "no update counted in this round",
                    seen=round_,
                    expected=f"1 to {last.round}" if last is not None else "a round that was closed",
                )
            for receipt in receipts:
                given = look.assignment(run.run_id, receipt.assignment_id)
                assert given is not None, "a receipt answers an assignment"
                held = read_version(look.version(run.run_id, given.version.model), look.blob, schema, limits)
                mask = held.mask_of(given.version)
                assert mask is not None, "a version has the masks it was given out under"
                base = on_mask(held.arrays, mask)
                reader = UpdateReader(look.blob(receipt.sha256), schema=schema, mask=mask, base=base, limits=limits)
                yield Sent(
                    client=receipt.client,
                    identity=identities[receipt.client],
                    examples=receipt.examples,
                    mask=mask,
                    base=base,
                    reader=reader,
                )
