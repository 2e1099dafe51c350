"""Values to messages and back, and messages that a stranger made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import message as message_errors
from hypothesis import given
from hypothesis import strategies as st

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.errors import DecodeError, FedpruneError, LimitError, RemoteError
from fedprune.parts import Part, PartKind
from fedprune.tensor import FLOAT_DTYPES, NUMPY_DTYPES, Role, Schema, TensorSpec, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.work import EvaluateWork, ReestimateWork, ScoreWork, TrainWork, UploadPlan

PARTY = "client 3"

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
amounts = st.floats(0, 1e9)
versions = st.builds(Version, shape=u32, model=u32, mask=u32)
dtypes = st.sampled_from(sorted(NUMPY_DTYPES))
specs = st.builds(
    lambda name, shape, dtype, role: TensorSpec(
        name=name,
        shape=tuple(shape),
        dtype=dtype,
        role=Role.BUFFER if role is Role.COUNTER and dtype in FLOAT_DTYPES else role,
    ),
    name=st.text(min_size=1, max_size=30).filter(lambda s: s.isprintable()),
    shape=st.lists(st.integers(0, 1 << 40), max_size=5),
    dtype=dtypes,
    role=st.sampled_from(Role),
)
schemas = st.lists(specs, max_size=6, unique_by=lambda s: s.name).map(lambda found: Schema(tensors=tuple(found)))
plans = st.builds(
    UploadPlan,
    values=st.sampled_from(["lossless", "fp16", "int8", "ternary"]),
    top=st.floats(0.001, 1.0),
    seed=u64,
    error_feedback=st.booleans(),
    momentum=st.floats(0, 0.99),
    clip_norm=amounts,
    exact=st.lists(st.text(max_size=8).filter(lambda s: s.isprintable()), max_size=3).map(tuple),
)
batch_sizes = st.integers(1, 1 << 20)
works = st.one_of(
    st.builds(
        TrainWork,
        epochs=st.integers(1, 100),
        steps=u32,
        batch_size=batch_sizes,
        optimizer=st.sampled_from(["sgd", "adamw"]),
        learning_rate=amounts,
        momentum=amounts,
        weight_decay=amounts,
        proximal=amounts,
        seed=u64,
        distill=st.floats(0, 0.99),
        teacher=st.none() | st.builds(Version, shape=u32, model=u32, mask=u32),
    ),
    st.builds(EvaluateWork, batch_size=batch_sizes),
    st.builds(ScoreWork, method=st.just("fisher"), batches=u32, batch_size=batch_sizes, seed=u64, grow=st.just((0, 7))),
    st.builds(ScoreWork, method=st.just("snip"), seed=u64, keep=st.just((3, 0))),
    st.builds(ScoreWork, method=st.just("gradient"), grow=st.just((2,)), train=st.builds(TrainWork, seed=u64)),
    st.builds(ReestimateWork, batches=u32, batch_size=batch_sizes, seed=u64),
)
assignments = st.builds(
    lambda work, plan, **rest: Assignment(
        work=work, plan=plan if isinstance(work, (TrainWork, ScoreWork)) else UploadPlan(), **rest
    ),
    work=works,
    plan=plans,
    assignment_id=u64,
    run_id=st.just("digits-1"),
    round=u32,
    version=versions,
    deadline_s=amounts,
)


@given(versions)
def test_versions(version: Version) -> None:
    assert wire.version(wire.version_message(version)) == version


def test_what_is_held_may_be_nothing() -> None:
    assert wire.held_version(pb.PullRequest()) is None
    assert wire.held_version(pb.PullRequest(held=pb.Version())) == Version()


@given(schemas)
def test_signatures(schema: Schema) -> None:
    assert wire.schema(wire.schema_message(schema), party=PARTY) == schema
    assert wire.roles(wire.role_numbers(schema), party=PARTY) == [t.role for t in schema]


@given(assignments)
def test_assignments_travel_as_bytes(assignment: Assignment) -> None:
    """Every field of every kind of work; a field that is forgotten on one side shows here."""
    message = pb.Assignment.FromString(wire.assignment_message(assignment).SerializeToString())
    assert wire.assignment(message, party="the coordinator") == assignment


@given(
    st.builds(
        Part,
        kind=st.sampled_from(PartKind),
        version=versions,
        base=st.none() | versions,
        digest=st.just("ab" * 32),
        size=u64,
    )
)
def test_parts(part: Part) -> None:
    header = wire.part_header(part, number=1, count=2)
    assert (header.part, header.parts) == (1, 2)
    assert wire.part(header, party="the coordinator") == part


class TestHostileSignatures:
    def refused(self, **fields: object) -> str:
        message = pb.TensorSpec(**({"name": "w", "shape": [2], "dtype": "float32", "role": pb.ROLE_FREE} | fields))  # type: ignore[arg-type]  # deliberately anything
        with pytest.raises(RemoteError) as error:
            wire.schema([message], party=PARTY)
        assert str(error.value).startswith("client 3: ")
        return str(error.value)

    def test_no_role(self) -> None:
        assert "unknown tensor role" in self.refused(role=pb.ROLE_UNSPECIFIED)

    def test_a_role_of_the_future(self) -> None:
        assert "got 77" in self.refused(role=77)

    def test_a_dtype_that_cannot_travel(self) -> None:
        assert "got complex128" in self.refused(dtype="complex128")

    def test_names(self) -> None:
        assert "name" in self.refused(name="")
        assert len(self.refused(name="n" * 5000)) < 300

    def test_too_many_axes(self) -> None:
        assert "impossible shape" in self.refused(shape=[1] * 1000)

    def test_a_counter_of_floats(self) -> None:
        assert "counter" in self.refused(role=pb.ROLE_COUNTER)

    def test_a_name_twice(self) -> None:
        spec = pb.TensorSpec(name="w", dtype="float32", role=pb.ROLE_FREE)
        with pytest.raises(DecodeError, match="client 3: not a model signature: two tensors are called 'w'"):
            wire.schema([spec, spec], party=PARTY)

    def test_too_many(self) -> None:
        many = [pb.TensorSpec(name="w", dtype="float32", role=pb.ROLE_FREE)] * (wire.MAX_TENSORS + 1)
        with pytest.raises(LimitError, match="client 3: too many tensors"):
            wire.schema(many, party=PARTY)

    @pytest.mark.timeout(60)
    def test_the_worst_list_of_names_is_judged_quickly(self) -> None:
        """One repeated name at the end of the longest list that fits into a message."""
        names = [*(str(i) for i in range(wire.MAX_TENSORS - 1)), str(wire.MAX_TENSORS - 2)]
        many = [pb.TensorSpec(name=name, dtype="bool", role=pb.ROLE_FREE) for name in names]
        with pytest.raises(DecodeError, match="two tensors are called '65534'"):
            wire.schema(many, party=PARTY)


class TestHostileAssignments:
    def test_work_of_no_kind(self) -> None:
        with pytest.raises(DecodeError, match=r"the coordinator: .*Update the older side"):
            wire.assignment(pb.Assignment(assignment_id=1), party="the coordinator")

    @pytest.mark.parametrize(
        "train",
        [
            pb.Train(epochs=0, batch_size=1, plan=pb.UploadPlan(top=1)),
            pb.Train(epochs=1, batch_size=0, plan=pb.UploadPlan(top=1)),
            pb.Train(epochs=1, batch_size=1, plan=pb.UploadPlan(top=0)),
            pb.Train(epochs=1, batch_size=1, learning_rate=float("nan"), plan=pb.UploadPlan(top=1)),
            pb.Train(epochs=1, batch_size=1, proximal=-1.0, plan=pb.UploadPlan(top=1)),
            pb.Train(epochs=1, batch_size=1, plan=pb.UploadPlan(top=1, momentum=1.0)),
            pb.Train(epochs=1, batch_size=1, plan=pb.UploadPlan(top=1, clip_norm=float("inf"))),
        ],
    )
    def test_work_that_makes_no_sense(self, train: pb.Train) -> None:
        with pytest.raises(DecodeError, match=r"the coordinator: not an assignment: .* makes no sense"):
            wire.assignment(pb.Assignment(assignment_id=1, train=train), party="the coordinator")


def test_a_part_of_no_kind() -> None:
    with pytest.raises(DecodeError, match="unknown kind of part"):
        wire.part(pb.PartHeader(sha256="0" * 64), party="the coordinator")


@pytest.mark.parametrize("sha256", ["", "zz" * 32])
def test_a_part_without_a_digest(sha256: str) -> None:
    with pytest.raises(RemoteError, match="SHA-256"):
        wire.part(pb.PartHeader(kind=pb.PART_KIND_MASK, sha256=sha256), party="the coordinator")


def test_metrics_are_bounded() -> None:
    good = {f"m{i}": float(i) for i in range(wire.MAX_METRICS)}
    assert wire.metrics(pb.Begin(metrics=good), party=PARTY) == good
    for bad in (good | {"more": 1.0}, {"m" * (wire.MAX_METRIC_NAME + 1): 1.0}):
        with pytest.raises(LimitError, match="client 3: too many metrics"):
            wire.metrics(pb.Begin(metrics=bad), party=PARTY)


@pytest.mark.parametrize("make", [lambda: pb.Begin(sha256="none"), lambda: pb.PartHeader(sha256="none")])
def test_a_digest_that_is_none_is_refused_by_the_party_that_sent_it(make: Callable[[], Any]) -> None:
    with pytest.raises(RemoteError, match=r"client 3: not a SHA-256 in hex \(got 'none'"):
        wire.seal(make(), party=PARTY)


@given(st.binary(max_size=200))
def test_any_bytes_that_parse_are_a_value_or_refused(data: bytes) -> None:
    """No exception of another sort escapes from a message that protobuf takes."""
    for message, read in (
        (pb.Assignment(), lambda m: wire.assignment(m, party=PARTY)),
        (pb.PartHeader(), lambda m: wire.part(m, party=PARTY)),
        (pb.JoinRequest(), lambda m: wire.schema(m.tensors, party=PARTY)),
        (pb.Begin(), lambda m: (wire.seal(m, party=PARTY), wire.metrics(m, party=PARTY))),
    ):
        try:
            message.ParseFromString(data)
        except message_errors.DecodeError:
            continue
        outcome: object
        try:
            outcome = read(message)
        except FedpruneError as refused:
            outcome = str(refused)
        assert outcome is not None
