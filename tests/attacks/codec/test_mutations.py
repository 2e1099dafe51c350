"""A few thousand changed frames in the ordinary suite; `mutate.py` runs as many as there is time for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune.codec import Limits, account, decode_mask, decode_update
from fedprune.errors import RemoteError
from fedprune.tensor import Schema, TensorSpec


def load_mutate() -> Any:
    spec = importlib.util.spec_from_file_location("codec_mutate", Path(__file__).with_name("mutate.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


mutate = load_mutate()


def test_changed_frames_give_a_value_or_a_remote_error() -> None:
    seen = mutate.run(1500, seed=7)
    assert sum(seen.values()) == 1500
    assert seen["read"] > 50, "resealed changes must reach the decoders"
    assert seen["DecodeError"] > 500


def test_a_resealed_frame_is_the_frame() -> None:
    for target in mutate.targets():
        assert mutate.reseal(target.frame) == target.frame


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_value_or_a_remote_error(data: bytes, in_front: bool) -> None:
    frame = b"fpr\x03" + data if in_front else data
    schema = Schema(tensors=(TensorSpec(name="w", shape=(4, 5)),))
    limits = Limits(max_bytes=1000, max_elements=1000)
    for read in (
        lambda: decode_update(frame, schema=schema, limits=limits),
        lambda: decode_mask(frame, shape=(4, 5), limits=limits),
        lambda: account(frame),
    ):
        with pytest.raises(RemoteError):
            read()
