"""What coverage-guided fuzzing drives (`make fuzz`), driven here by its seeds and by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprune_server.store import Work

from .target import RUN, SEEDS, UPDATE, WHOLE, WRONG, Target


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_the_inputs_to_begin_from_are_no_finding(target: Target, seed: bytes) -> None:
    assert target.read(seed) == []


@pytest.mark.parametrize(("calls", "kept"), [(WHOLE, [UPDATE]), (WRONG, []), (WRONG + WHOLE, [UPDATE])])
def test_an_upload_is_driven_to_its_receipt(calls: bytes, kept: list[bytes]) -> None:
    target = Target()
    assert target.read(b"\2" + calls) == []
    found = target.uploads.store.receipts(RUN, target.uploads.round, Work.TRAIN)
    target.close()
    assert [one.sha256 for one in found] == [hashlib.sha256(data).hexdigest() for data in kept]


@given(st.binary(max_size=300), st.sampled_from([b"", *SEEDS]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_value_or_a_refusal(target: Target, data: bytes, seed: bytes) -> None:
    assert target.read(seed + data) == []
