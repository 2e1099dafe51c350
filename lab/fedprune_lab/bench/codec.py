"""`fedprune bench codec`: every coding on what trained nets really send, against its bound, CSR, zstd and memcpy.

The first run trains the nets of `nets.py` (minutes) and keeps them; after that it only measures. One thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray

from fedprune.codec import (
    Content,
    Limits,
    Plan,
    Positions,
    UpdateReader,
    decode_mask_set,
    encode_mask,
    encode_mask_set,
    encode_update,
)
from fedprune.codec.chooser import entropy_bytes
from fedprune.mask import Bits, Mask
from fedprune.tensor import Schema, TensorSpec
from fedprune_lab.bench.bounds import symbols_over_entropy
from fedprune_lab.bench.measuring import Row, Stopwatch, table, write_csv
from fedprune_lab.bench.nets import NETS
from fedprune_lab.bench.plotting import plot
from fedprune_lab.bench.workloads import DENSITIES, Round, Workload, load

Arrays = Mapping[str, NDArray[np.generic]]
LOSSY = ("fp16", "bf16", "int8", "int4", "ternary")
WIDE = Limits(max_bytes=1 << 32, max_elements=1 << 32)
RANDOM_PLACES = (100_000, 1_000_000, 11_000_000)


def run(
    out: Path,
    *,
    nets: Sequence[str] = tuple(NETS),
    folder: Path | None = None,
    seed: int = 1,
    repeats: int = 5,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Measure, print a table through `say`, write `codec.csv` and (with matplotlib) `codec.png` to `out`.

    Trained nets are kept in `folder` (default: `out`/workloads). Gives all rows.
    """
    watch = Stopwatch(repeats)
    rows = list(random_masks(watch))
    for name in nets:
        say(f"{name}: training, or reading what was trained")
        work = load(name, folder or out / "workloads", seed=seed)
        rows += [*baselines(work), *masks(work, watch), *moved(work), *channels(work), *top(work, watch)]
        rows += updates(work, watch)
    for line in table(rows):
        say(line)
    write_csv(rows, out / "codec.csv")
    say(f"memcpy of 64 MiB: {watch.memcpy_gb_s():.1f} GB/s")
    say(plot(rows, out / "codec.png"))
    return rows


def random_masks(watch: Stopwatch) -> Iterator[Row]:
    """The iid case, which no coder can beat: places against n H(p)."""
    for size in RANDOM_PLACES:
        for density in DENSITIES:
            bits = np.random.default_rng(1).random(size) < density
            bound = entropy_bytes(size, int(np.count_nonzero(bits)))
            for coding in (Positions.BITMAP, Positions.GAP, None):
                yield _mask_row("random", f"mask n={size}", density, bits, coding, bound, watch)


def _mask_row(
    net: str, what: str, density: float, bits: Bits, coding: Positions | None, bound: float, watch: Stopwatch
) -> Row:
    mask = Mask(schema=Schema(tensors=(TensorSpec(name="mask", shape=bits.shape),)), version=0, alive={"mask": bits})
    dense = 4 * bits.size
    frame, into, into_memcpy = watch.rate(lambda: encode_mask(bits, plan=Plan(positions=coding)), dense)
    _, back, back_memcpy = watch.rate(lambda: decode_mask_set(frame, schema=mask.schema, limits=WIDE), dense)
    return Row(
        net=net,
        what=what,
        density=density,
        coding="chosen" if coding is None else coding.name.lower(),
        size=len(frame),
        times_smaller=dense / len(frame),
        over_bound=len(frame) / bound if bound else None,
        encode_gb_s=into,
        decode_gb_s=back,
        encode_memcpy=into_memcpy,
        decode_memcpy=back_memcpy,
    )


def baselines(work: Workload) -> Iterator[Row]:
    """What others send: plain CSR with int32 and float32, and zstd over the dense tensors."""
    dense = work.schema.dense_bytes
    for density, turn in work.rounds.items():
        alive = turn.mask.alive_count
        pointers = sum(4 * (spec.matrix_shape[0] + 1) for spec in work.schema.prunable)
        rest = dense - 4 * turn.mask.size
        sizes = {"csr raw": 8 * alive + pointers + rest}
        if density in (1.0, 0.1):
            sizes["zstd 3"] = sum(len(zstandard.compress(a.tobytes(), 3)) for a in turn.local.values())
        for coding, size in sizes.items():
            yield Row(
                net=work.name, what="baseline", density=density, coding=coding, size=size, times_smaller=dense / size
            )


def masks(work: Workload, watch: Stopwatch) -> Iterator[Row]:
    """Magnitude masks of trained nets, whole."""
    dense = 4 * sum(spec.size for spec in work.schema.prunable)
    for density in DENSITIES:
        mask = work.rounds[density].mask
        frame, into, into_memcpy = watch.rate(lambda mask=mask: encode_mask_set(mask), dense)  # type: ignore[misc]
        _, back, back_memcpy = watch.rate(lambda frame=frame: decode_mask_set(frame, schema=work.schema), dense)  # type: ignore[misc]
        yield Row(
            net=work.name,
            what="mask",
            density=density,
            coding="chosen",
            size=len(frame),
            times_smaller=dense / len(frame),
            over_bound=_over(len(frame), mask),
            encode_gb_s=into,
            decode_gb_s=back,
            encode_memcpy=into_memcpy,
            decode_memcpy=back_memcpy,
        )


def moved(work: Workload) -> Iterator[Row]:
    """Masks against the mask before them: a round's drift, and a tenth dropped and grown."""
    base = work.rounds[0.1].mask
    for what, mask in (("mask drift", work.drift), ("mask regrown", work.regrown)):
        bound = 0.0
        for name, bits in mask.alive.items():
            held = base.alive[name]
            bound += entropy_bytes(int(held.sum()), int((held & ~bits).sum()))
            bound += entropy_bytes(int((~held).sum()), int((bits & ~held).sum()))
        for coding, against in (("diff", base), ("whole", None)):
            size = len(encode_mask_set(mask, base=against))
            yield Row(
                net=work.name,
                what=what,
                density=0.1,
                coding=coding,
                size=size,
                times_smaller=4 * mask.size / size,
                over_bound=size / bound if bound else None,
            )


def channels(work: Workload) -> Iterator[Row]:
    """The rows and columns with the largest norms, a fifth of the weights."""
    alive = {}
    for spec in work.schema.prunable:
        sizes = np.abs(work.rounds[1.0].local[spec.name].reshape(*spec.shape[:2], -1)).sum(axis=2)
        rows = sizes.sum(axis=1) >= np.quantile(sizes.sum(axis=1), 1 - 0.2**0.5)
        columns = sizes.sum(axis=0) >= np.quantile(sizes.sum(axis=0), 1 - 0.2**0.5)
        lines = (rows[:, None] & columns[None, :]).reshape(*spec.shape[:2], *[1] * (len(spec.shape) - 2))
        alive[spec.name] = np.broadcast_to(lines, spec.shape).copy()
    mask = Mask(schema=work.schema, version=1, alive=alive)
    size = len(encode_mask_set(mask))
    yield Row(
        net=work.name,
        what="mask of channels",
        density=mask.density,
        coding="chosen",
        size=size,
        times_smaller=4 * mask.size / size,
    )


def top(work: Workload, watch: Stopwatch) -> Iterator[Row]:
    """Top-k of a client's difference and its residual: the places alone against n H(p)."""
    schema = Schema(tensors=work.schema.prunable)
    for density in (0.1, 0.01):
        alive = {}
        for spec in schema:
            sizes = np.abs(work.top[spec.name])
            kept = max(1, round(spec.size * density))
            alive[spec.name] = sizes >= np.partition(sizes, sizes.size - kept, axis=None)[sizes.size - kept]
        mask = Mask(schema=schema, version=1, alive=alive)
        frame, into, into_memcpy = watch.rate(lambda mask=mask: encode_mask_set(mask), schema.dense_bytes)  # type: ignore[misc]
        yield Row(
            net=work.name,
            what="places of top-k",
            density=density,
            coding="chosen",
            size=len(frame),
            times_smaller=schema.dense_bytes / len(frame),
            over_bound=_over(len(frame), mask),
            encode_gb_s=into,
            encode_memcpy=into_memcpy,
        )


def updates(work: Workload, watch: Stopwatch) -> Iterator[Row]:
    """A client's answer and a model download, under every value coding, dense, masked, and with places."""
    for density in (1.0, 0.5, 0.1, 0.01):
        turn = work.rounds[density]
        mask = None if density == 1.0 else turn.mask
        delta = {spec.name: _delta(spec, turn) for spec in work.schema}
        yield _update_row(work, "update", density, "lossless", turn.local, mask, turn.base, watch)
        yield _update_row(work, "weights", density, "lossless", turn.local, mask, None, watch)
        for values in LOSSY:
            yield _update_row(work, "update", density, values, delta, mask, None, watch)
            yield _update_row(work, "weights", density, values, turn.local, mask, None, watch)
        if mask is not None:
            yield _update_row(work, "weights + places", density, "lossless", turn.local, None, None, watch)
            yield _update_row(work, "weights + places", density, "int8", turn.local, None, None, watch)


def _update_row(
    work: Workload,
    what: str,
    density: float,
    values: str,
    arrays: Arrays,
    mask: Mask | None,
    base: Arrays | None,
    watch: Stopwatch,
) -> Row:
    schema, dense = work.schema, work.schema.dense_bytes
    content = Content.DELTA if what == "update" and values != "lossless" else Content.WEIGHTS

    def encode() -> bytes:
        plan = Plan(values=values, rng=np.random.Generator(np.random.SFC64(1)))
        return encode_update(arrays, schema=schema, plan=plan, mask=mask, base=base, content=content)

    frame, into, into_memcpy = watch.rate(encode, dense)
    out = {spec.name: np.zeros(spec.shape, spec.numpy_dtype) for spec in schema}

    def decode() -> None:
        UpdateReader(frame, schema=schema, mask=mask, base=base).into(out)

    _, back, back_memcpy = watch.rate(decode, dense)
    return Row(
        net=work.name,
        what=what,
        density=density,
        coding=values,
        size=len(frame),
        times_smaller=dense / len(frame),
        over_bound=symbols_over_entropy(frame) if values in ("int8", "int4") else None,
        encode_gb_s=into,
        decode_gb_s=back,
        encode_memcpy=into_memcpy,
        decode_memcpy=back_memcpy,
        error=None if values == "lossless" else _error(schema, arrays, out),
    )


def _error(schema: Schema, sent: Arrays, got: Arrays) -> float:
    """Root mean square of what is lost over that of what was sent."""
    off = sum(float(np.sum((np.subtract(got[s.name], sent[s.name])) ** 2)) for s in schema.prunable)
    return float(np.sqrt(off / sum(float(np.sum(np.square(sent[s.name]))) for s in schema.prunable)))


def _delta(spec: TensorSpec, turn: Round) -> NDArray[np.generic]:
    local, base = turn.local[spec.name], turn.base[spec.name]
    return np.subtract(local, base) if local.dtype == np.float32 else local


def _over(size: int, mask: Mask) -> float | None:
    bound = sum(entropy_bytes(bits.size, int(np.count_nonzero(bits))) for bits in mask.alive.values())
    return size / bound if bound else None
