"""How fast the codec is, over memcpy: `python bench/speeds.py`, a few minutes on one core.

A ratio is the rate at which dense float32 goes in or comes out, over that of copying 64 MiB in the same minute. Each is
shown twice: in the median of all calls, and of those calls that had most of the core (`fedprune_lab.bench.pace`). Beside
what comes out under a mask stands what putting the values to their places takes by itself. Nets are those of bench/codec.py,
trained at the first run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fedprune.codec import Content, Plan, Positions, UpdateReader, decode_mask_set, encode_mask, encode_update
from fedprune.mask import Mask
from fedprune.tensor import Schema, TensorSpec
from fedprune_lab.bench.codec import WIDE
from fedprune_lab.bench.measuring import MEMCPY_BYTES
from fedprune_lab.bench.pace import pace
from fedprune_lab.bench.workloads import Workload, load
from fedprune_lab.benching import OUT, keep

DENSITY = 0.1
PLACES = 11_000_000


class Way(NamedTuple):
    """One coding in and out, of so many bytes of dense float32; what was asked of it over memcpy. `floor` does what no
    decoder can save: it puts as many values to the same places."""

    name: str
    dense_bytes: int
    encode: Callable[[], bytes]
    decoder: Callable[[bytes], Callable[[], object]]
    asked: tuple[float | None, float | None] = (None, None)
    floor: Callable[[], object] | None = None

    def calls(self) -> Iterator[tuple[str, Callable[[], object], float | None]]:
        """(direction, what is called, what was asked of it)."""
        yield "in", self.encode, self.asked[0]
        yield "out", self.decoder(self.encode()), self.asked[1]
        if self.floor is not None:
            yield "places", self.floor, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each direction is called again and again")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    table = Table(title=f"rates over memcpy, density {DENSITY:g}", title_justify="left", highlight=False)
    for heading in ("", "way", "calls", "all", "calm", "of a core", "asked", "calm ms", "memcpy GB/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = []
    for way in _ways():
        for direction, call, asked in way.calls():
            row = _measured(way, direction, call, asked, seconds)
            rows.append(row)
            cells = [f"{row[key]:.3f}" for key in ("over_memcpy", "calm_over_memcpy", "calm_share_of_core")]
            bound = "" if asked is None else f"{asked:g}"
            copied = f"{row['memcpy_gb_s']:.1f}"
            table.add_row(way.name, direction, str(row["calls"]), *cells, bound, f"{row['calm_ms']:.2f}", copied)
    Console(width=120).print(table)
    print(f"kept in {keep('speeds', {'rows': rows})}")


def _measured(
    way: Way, direction: str, call: Callable[[], object], asked: float | None, seconds: float
) -> dict[str, Any]:
    source = np.ones(MEMCPY_BYTES // 4, np.float32)
    target = np.ones_like(source)
    coded = pace(call, for_seconds=seconds)
    copied = pace(lambda: np.copyto(target, source), for_seconds=seconds / 10)
    copies = way.dense_bytes / MEMCPY_BYTES * copied.seconds
    return {
        "coding": way.name,
        "way": direction,
        "calls": coded.calls,
        "ms": 1000 * coded.seconds,
        "calm_ms": 1000 * coded.calm_seconds,
        "over_memcpy": copies / coded.seconds,
        "calm_over_memcpy": copies / coded.calm_seconds,
        "calm_share_of_core": coded.share,
        "memcpy_gb_s": MEMCPY_BYTES / copied.seconds / 1e9,
        "asked": asked,
    }


def _ways() -> Iterator[Way]:
    net = load("resnet18", OUT / "codec" / "workloads")
    turn = net.rounds[DENSITY]
    delta = {name: np.subtract(turn.local[name], base) for name, base in turn.base.items() if base.dtype == np.float32}
    yield _update(
        "int8 update, shared mask", net, {**turn.local, **delta}, turn.mask, content=Content.DELTA, asked=(0.4, 0.8)
    )
    yield _update("int8 weights, shared mask", net, turn.local, turn.mask, asked=(0.4, 0.8))
    yield _mask("gap", Positions.GAP, (0.2, 0.3))
    yield _mask("Huffman bitmap", Positions.BITMAP, (1.0, 1.7))
    dense = net.rounds[1.0]
    yield _update("lossless dense weights", net, dense.local, None, values="lossless", asked=(0.07, 0.13))
    yield _update("lossless dense update", net, dense.local, None, values="lossless", base=dense.base)
    small = load("digits_mlp", OUT / "codec" / "workloads")
    turn = small.rounds[DENSITY]
    yield _update("68 k weights, int8, shared mask", small, turn.local, turn.mask)
    yield _update("68 k weights, int8, with places", small, turn.local, None)


def _update(
    name: str,
    work: Workload,
    arrays: dict[str, np.ndarray],
    mask: Mask | None,
    *,
    values: str = "int8",
    base: dict[str, np.ndarray] | None = None,
    content: Content = Content.WEIGHTS,
    asked: tuple[float | None, float | None] = (None, None),
) -> Way:
    schema = work.schema
    out = {spec.name: np.zeros(spec.shape, spec.numpy_dtype) for spec in schema}

    def encode() -> bytes:
        plan = Plan(values=values, rng=np.random.Generator(np.random.SFC64(1)))
        return encode_update(arrays, schema=schema, plan=plan, mask=mask, base=base, content=content)

    def decoder(frame: bytes) -> Callable[[], object]:
        return lambda: UpdateReader(frame, schema=schema, mask=mask, base=base).into(out)

    floor = None if mask is None else _placing(schema, mask, out)
    return Way(name, schema.dense_bytes, encode, decoder, asked, floor)


def _placing(schema: Schema, mask: Mask, out: dict[str, np.ndarray]) -> Callable[[], None]:
    """Puts ones wherever `mask` lets values be."""
    targets = [(out[spec.name].reshape(-1), mask.indices(spec.name)) for spec in schema.prunable]
    values = [np.ones(places.size, target.dtype) for target, places in targets]

    def place() -> None:
        for (target, places), own in zip(targets, values, strict=True):
            target[places] = own

    return place


def _mask(name: str, coding: Positions, asked: tuple[float, float]) -> Way:
    bits = np.random.default_rng(1).random(PLACES) < DENSITY
    schema = Schema(tensors=(TensorSpec(name="mask", shape=bits.shape),))

    def decoder(frame: bytes) -> Callable[[], object]:
        return lambda: decode_mask_set(frame, schema=schema, limits=WIDE)

    return Way(
        f"{name}, random, n = {PLACES:,}",
        4 * PLACES,
        lambda: encode_mask(bits, plan=Plan(positions=coding)),
        decoder,
        asked,
    )


if __name__ == "__main__":
    main()
