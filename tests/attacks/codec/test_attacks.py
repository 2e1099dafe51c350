"""Every crafted frame is refused as the sender's fault, before memory of any size is taken."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fedprune.codec import Limits, decode_mask_set, decode_update
from fedprune.errors import LimitError, RemoteError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.frame"))
MAX_BYTES = 16 << 20
# The receiver of craft.py: its digest is in the frames.
SCHEMA = Schema(
    tensors=(
        TensorSpec(name="w", shape=(20, 30)),
        TensorSpec(name="steps", shape=(3,), dtype="int64", role=Role.COUNTER),
        TensorSpec(name="flags", shape=(3,), dtype="bool", role=Role.COUNTER),
    )
)


def read(name: str, data: bytes) -> object:
    limits = Limits(max_bytes=1 << 24, max_elements=1 << 24)  # wide: what refuses is the reading, not the length
    if name.startswith("mask-"):
        return decode_mask_set(data, schema=SCHEMA, base=Mask.full(SCHEMA), limits=limits)
    return decode_update(data, schema=SCHEMA, limits=limits)


def test_there_are_at_least_forty_and_all_are_listed() -> None:
    listed = {line.split("`")[1] for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| `")}
    assert listed == {path.stem for path in FILES}
    assert len(FILES) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_refused_within_16_mib(path: Path) -> None:
    data = path.read_bytes()
    tracemalloc.start()
    try:
        with pytest.raises(RemoteError):
            read(path.stem, data)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


def test_what_is_too_long_is_refused_unread() -> None:
    with pytest.raises(LimitError, match="too large"):
        decode_update(bytes(10_000), schema=SCHEMA)


def test_a_receiver_may_be_stricter_than_its_schema() -> None:
    frame = (FOLDER / "swapped.frame").read_bytes()
    with pytest.raises(LimitError, match="elements"):
        decode_update(frame, schema=SCHEMA, limits=Limits(max_bytes=1 << 20, max_elements=605))


def test_the_frames_are_near_misses() -> None:
    """The honest frame that they were bent from is read: it is the lie that is refused."""
    honest = (FOLDER / "tail.frame").read_bytes()[:-1]
    arrays = decode_update(honest, schema=SCHEMA)
    assert arrays["flags"].tolist() == [False, True, False]
    assert not np.any(arrays["w"])
