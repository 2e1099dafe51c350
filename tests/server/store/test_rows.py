"""Records survive the way into a row and back; equal content has one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.errors import LocalError, UpdateError
from fedprune.tensor import Version
from fedprune_server.store import AssignmentRecord, RunRecord, Submission, VersionRecord, Work
from fedprune_server.store.rows import canonical, from_row, to_row

numbers = st.integers(0, 1 << 62)
versions = st.builds(Version, shape=numbers, model=numbers, mask=numbers)


@given(
    st.builds(
        AssignmentRecord,
        run_id=st.text(),
        assignment_id=st.integers(1, 1 << 62),
        round=numbers,
        client=numbers,
        version=versions,
        kind=st.sampled_from(Work),
        work=st.binary(),
    )
)
def test_an_assignment_comes_back(record: AssignmentRecord) -> None:
    assert from_row(AssignmentRecord, to_row(record)) == record


@given(
    st.builds(
        VersionRecord,
        run_id=st.text(),
        round=numbers,
        version=versions,
        model_digest=st.text(),
        mask_digest=st.text(),
        parent=st.none() | numbers,
        broadcast_digest=st.none() | st.text(),
        state_digest=st.none() | st.text(),
    )
)
def test_a_version_comes_back_and_names_its_blobs(record: VersionRecord) -> None:
    assert from_row(VersionRecord, to_row(record)) == record
    assert None not in record.blobs
    assert record.blobs[:2] == (record.model_digest, record.mask_digest)


def test_equal_content_has_one_spelling() -> None:
    assert canonical({"b": [1, 2.5, None], "a": "ä"}) == '{"b":[1,2.5,null],"a":"ä"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical([float("nan")])


@pytest.mark.parametrize("run_id", ["", "../up", "a/b", ".hidden", "x" * 65, "with space"])
def test_a_run_id_cannot_leave_its_folder(run_id: str) -> None:
    with pytest.raises(LocalError, match="run id"):
        RunRecord(run_id=run_id, name="", config_toml="", schema_digest="")


@pytest.mark.parametrize("assignment_id", [0, -1, 1 << 63])
def test_assignment_ids_fit_the_database(assignment_id: int) -> None:
    with pytest.raises(LocalError, match="assignment ids"):
        AssignmentRecord(run_id="r", assignment_id=assignment_id, round=1, client=0, version=Version(), kind=Work.TRAIN)


@pytest.mark.parametrize("size", [-1, 1 << 50])
def test_sizes_are_counted_within_bounds(size: int) -> None:
    with pytest.raises(UpdateError, match="size"):
        Submission(assignment_id=1, client=0, sha256="", size=size, examples=1)
