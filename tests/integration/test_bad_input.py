"""What a client must not do: each is refused with who, what was seen, what was expected and what to do, and the run
goes on with the others as if it had not happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from safetensors.numpy import load_file

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION
from fedprune.errors import RemoteError
from fedprune.framing import MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES, Chunks
from fedprune.tensor import Schema, TensorSpec, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server import service
from fedprune_server.interceptors import Caller

from .federation import Federation, MakeLink, holding, make_link, refused, run_file, task_file, until
from .stranger import Refusal, Stranger, refusal_of

CONTROL = {"DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL", "CANCELLED"}


@asynccontextmanager
async def besieged(
    folder: Path, *overrides: str, link: MakeLink = make_link
) -> AsyncIterator[tuple[Federation, Stranger, Assignment]]:
    """A run with two honest clients and a stranger that has its first assignment. After the block the stranger hangs
    up, the others finish every round, and nothing but the stranger's part is missing."""
    federation = Federation(folder, task_file(folder), [run_file("run.rounds=2", "clients.grace_s=0.1", *overrides)])
    schema = federation.server.workshop.schema
    async with federation.serving() as serving, Stranger(federation.address, "mallory", schema) as stranger:
        for name in "ab":
            federation.start(name, link=link)
        await until(lambda: len([s for s in federation.sites if any("joined" in t for t in s.said)]) == 2, serving)
        await stranger.come()
        yield federation, stranger, await stranger.assignment()
        await stranger.channel.close()
        assert await federation.end(serving)
    assert [r.round for r in federation.rounds] == [1, 2]
    assert all(r.clients_counted >= 2 for r in federation.rounds)
    model = load_file(folder / "runs" / "run" / "model.safetensors")
    assert all(np.isfinite(array).all() for array in model.values())


def assert_refused(answer: pb.Receipt | Refusal, status: str, *parts: str) -> None:
    assert isinstance(answer, Refusal), answer
    assert answer.status == status, answer
    for part in ("client 2", *parts):
        assert part in answer.text, answer


@pytest.mark.parametrize(("encrypted", "most"), [(False, 1 << 20), (True, 1 << 19)])
async def test_downloads_are_cut_as_the_transport_likes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool, most: int
) -> None:
    asked: list[int] = []

    def cut(data: memoryview, *, offset: int, first: int, most: int) -> Chunks:
        asked.append(most)
        return Chunks(data, offset=offset, first=first, most=most)

    monkeypatch.setattr(service, "Chunks", cut)
    monkeypatch.setattr(Caller, "encrypted", encrypted)
    async with besieged(tmp_path) as (_, mallory, work):
        await mallory.pull(work.version)
    assert set(asked) == {most}


class TestSubmissions:
    async def test_a_wrong_digest(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            answer = await mallory.submit(mallory.begin(work, frame, sha256="ab" * 32), frame)
            assert_refused(answer, "DATA_LOSS", "expected " + "ab" * 32, "This result is given up")

    async def test_another_version(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            wrong = wire.version_message(Version(model=7, mask=3))
            answer = await mallory.submit(mallory.begin(work, frame, version=wrong), frame)
            assert_refused(answer, "FAILED_PRECONDITION", "got s0b7v3", "expected s0b0v0", "Pull the assigned version")

    async def test_a_frame_of_another_mask(self, tmp_path: Path) -> None:
        """The announcement is right, the frame inside is not: found before anything is folded."""
        async with besieged(tmp_path) as (_, mallory, work):
            replica = await mallory.pull(work.version)
            assert replica.mask is not None
            pruned = {name: bits.copy() for name, bits in replica.mask.alive.items()}
            next(iter(pruned.values()))[0] = False
            replica.mask = type(replica.mask)(schema=mallory.schema, version=0, alive=pruned)
            frame = mallory.encode(work, replica, replica.weights)
            answer = await mallory.submit(mallory.begin(work, frame), frame)
            assert isinstance(answer, Refusal)
            assert answer.status in ("FAILED_PRECONDITION", "INVALID_ARGUMENT")
            assert "mask" in answer.text

    async def test_a_frame_that_names_another_version_than_its_announcement(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            replica = await mallory.pull(work.version)
            other = type(work)(**{f: getattr(work, f) for f in work.__slots__} | {"version": Version(model=5)})
            frame = mallory.encode(other, replica, replica.weights)
            answer = await mallory.submit(mallory.begin(work, frame), frame)
            assert isinstance(answer, Refusal)
            assert (answer.status, "got s0b5v0" in answer.text) == ("FAILED_PRECONDITION", True)

    async def test_a_truncated_stream(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            answer = await mallory.submit(mallory.begin(work, frame), frame[:100])
            assert isinstance(answer, Refusal)
            assert answer.status == "UNAVAILABLE"
            assert f"upload ended early (got 100 bytes, expected {len(frame)} bytes)" in answer.text
            # The rest is enough afterwards: what arrived is kept.
            receipt = await mallory.submit(mallory.begin(work, frame), frame[100:])
            assert isinstance(receipt, pb.Receipt)
            assert receipt.verdict == pb.VERDICT_ACCEPTED

    async def test_an_oversized_stream(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            answer = await mallory.submit(mallory.begin(work, frame), frame + b"more")
            assert isinstance(answer, Refusal)
            assert answer.status == "RESOURCE_EXHAUSTED"
            assert f"sent more bytes than announced (got {len(frame) + 4}, expected {len(frame)})" in answer.text

    async def test_an_oversized_announcement(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (federation, mallory, work):
            answer = await mallory.submit(mallory.begin(work, b"", size=1 << 40), b"")
            assert_refused(answer, "RESOURCE_EXHAUSTED", f"got {1 << 40}", "expected at most")
            staging = federation.folder / "runs" / "run" / "state"
            assert sum(f.stat().st_size for f in staging.rglob("*") if f.is_file()) < 1 << 20

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
    async def test_values_that_are_no_numbers_or_too_large(self, tmp_path: Path, value: float) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            replica = await mallory.pull(work.version)
            weights = {name: array.copy() for name, array in replica.weights.items()}
            weights["2.weight"][3, 5] = value
            frame = mallory.encode(work, replica, weights)
            answer = await mallory.submit(mallory.begin(work, frame), frame)
            assert isinstance(answer, Refusal)
            assert answer.status == "INVALID_ARGUMENT"
            assert "2.weight" in answer.text
            assert "client 2" in answer.text

    async def test_bytes_that_are_no_frame(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            garbage = os.urandom(1000)
            answer = await mallory.submit(mallory.begin(work, garbage), garbage)
            assert isinstance(answer, Refusal)
            assert answer.status not in CONTROL

    @pytest.mark.parametrize("examples", [0, 1 << 24, (1 << 64) - 1])
    async def test_examples_out_of_range(self, tmp_path: Path, examples: int) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            answer = await mallory.submit(mallory.begin(work, frame, examples=examples), frame)
            assert_refused(answer, "INVALID_ARGUMENT", f"got {examples}", "expected 1 to")

    @pytest.mark.parametrize("facts", [{"work_s": float("nan")}, {"residual_norm": -1.0}, {"work_s": 1e300}])
    async def test_facts_that_cannot_be(self, tmp_path: Path, facts: dict[str, float]) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            answer = await mallory.submit(mallory.begin(work, frame, **facts), frame)
            assert isinstance(answer, Refusal)
            assert (answer.status, "out of range" in answer.text) == ("INVALID_ARGUMENT", True)

    async def test_chunks_that_are_too_large_or_empty(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            for chunk in (b"", bytes(MAX_CHUNK_BYTES + 1)):
                answer = await mallory.send(
                    pb.SubmitRequest(begin=mallory.begin(work, b"x" * 2000)), pb.SubmitRequest(chunk=chunk)
                )
                assert_refused(answer, "INVALID_ARGUMENT", "chunk size out of range")

    async def test_a_message_above_4_mib(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            answer = await mallory.send(
                pb.SubmitRequest(begin=mallory.begin(work, b"x" * 2000)),
                pb.SubmitRequest(chunk=bytes(MAX_MESSAGE_BYTES)),
            )
            assert isinstance(answer, Refusal)
            assert answer.status == "RESOURCE_EXHAUSTED"

    async def test_bytes_before_their_announcement(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, _):
            assert_refused(await mallory.send(pb.SubmitRequest(chunk=b"abc")), "INVALID_ARGUMENT", "expected begin")
            assert_refused(await mallory.send(), "INVALID_ARGUMENT", "expected begin")

    async def test_an_announcement_in_the_middle(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            begin = pb.SubmitRequest(begin=mallory.begin(work, frame))
            assert_refused(await mallory.send(begin, begin), "INVALID_ARGUMENT", "chunk size")


class TestRepetition:
    async def test_the_same_bytes_get_the_same_receipt(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            first = await mallory.submit(mallory.begin(work, frame), frame)
            again = await mallory.submit(mallory.begin(work, frame), frame)
            assert isinstance(first, pb.Receipt)
            assert first == again
            assert first.verdict == pb.VERDICT_ACCEPTED

    async def test_other_bytes_are_refused(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame, other = await mallory.update(work), await mallory.update(work, moved=0.5)
            await mallory.submit(mallory.begin(work, frame), frame)
            answer = await mallory.submit(mallory.begin(work, other), other)
            assert isinstance(answer, Refusal)
            assert answer.status == "ALREADY_EXISTS"
            assert hashlib.sha256(other).hexdigest() in answer.text
            assert "the first one counts" in answer.text

    async def test_a_late_result_gets_a_definite_answer(self, tmp_path: Path) -> None:
        """The round closed while it was being sent."""
        may, two_of_three = asyncio.Event(), ("clients.share=0.6", "clients.over_select=0.5")
        async with besieged(tmp_path, *two_of_three, link=holding(may)) as (federation, mallory, work):
            frame = await mallory.update(work)
            call = mallory.stub.Submit(metadata=mallory.metadata)
            await call.write(pb.SubmitRequest(begin=mallory.begin(work, frame)))
            await call.read()
            may.set()
            await until(lambda: len(federation.rounds) >= 1)
            await call.write(pb.SubmitRequest(chunk=frame))
            await call.done_writing()
            with contextlib.suppress(grpc.aio.AioRpcError):
                # Unless its bytes were let go of already: then whoever begins again hears the same.
                assert (await call.read()).receipt.verdict == pb.VERDICT_STALE
            receipt = await mallory.submit(mallory.begin(work, frame), frame)
            assert isinstance(receipt, pb.Receipt)
            assert (receipt.verdict, receipt.reason) == (pb.VERDICT_STALE, "round 1 is closed")
            assert await mallory.submit(mallory.begin(work, frame), frame) == receipt


class TestOthers:
    async def test_a_result_for_someone_elses_assignment(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            theirs = next(n for n in (1, 2, 3) if n != work.assignment_id)
            answer = await mallory.submit(mallory.begin(work, frame, assignment_id=theirs), frame)
            assert_refused(answer, "INVALID_ARGUMENT", "never given", f"got {theirs}")

    @pytest.mark.parametrize("number", [0, 99, 1 << 63, (1 << 64) - 1])
    async def test_a_result_for_an_assignment_that_never_was(self, tmp_path: Path, number: int) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            answer = await mallory.submit(mallory.begin(work, frame, assignment_id=number), frame)
            assert_refused(answer, "INVALID_ARGUMENT", "never given", f"got {number}")

    async def test_a_result_for_another_run(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            frame = await mallory.update(work)
            answer = await mallory.submit(mallory.begin(work, frame, run_id="yesterday"), frame)
            assert isinstance(answer, Refusal)
            assert answer.status == "FAILED_PRECONDITION"
            assert "this run is over (got yesterday, expected run-" in answer.text

    async def test_a_pull_of_a_version_that_is_not_there(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            want = wire.version_message(Version(model=9))
            call = mallory.stub.Pull(pb.PullRequest(run_id=work.run_id, want=want), metadata=mallory.metadata)
            assert (await refusal_of(call)).status == "FAILED_PRECONDITION"

    async def test_a_pull_from_beyond_the_end(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (_, mallory, work):
            want = wire.version_message(work.version)
            asked = pb.PullRequest(run_id=work.run_id, want=want)
            first = await mallory.stub.Pull(asked, metadata=mallory.metadata).read()
            asked.part_sha256, asked.offset = first.header.sha256, (1 << 64) - 1
            call = mallory.stub.Pull(asked, metadata=mallory.metadata)
            await call.read()
            answer = await refusal_of(call)
            assert answer.status == "INVALID_ARGUMENT"
            assert "offset outside the blob" in answer.text

    async def test_failures_of_others_cannot_be_reported(self, tmp_path: Path) -> None:
        async with besieged(tmp_path) as (federation, mallory, work):
            for number in (1, 2, 3, (1 << 64) - 1):
                if number != work.assignment_id:
                    failure = pb.Failure(assignment_id=number, reason="x" * 100_000)
                    await mallory.work.write(pb.ClientMessage(failure=failure))
            await mallory.work.write(pb.ClientMessage())
            frame = await mallory.update(work)
            assert isinstance(await mallory.submit(mallory.begin(work, frame), frame), pb.Receipt)
        assert federation.rounds[0].clients_counted == 3


class TestJoining:
    @asynccontextmanager
    async def waiting(self, folder: Path) -> AsyncIterator[tuple[Federation, Schema]]:
        """A coordinator that waits for its clients; they come after the block, and the run is whole."""
        federation = Federation(folder, task_file(folder), [run_file("run.rounds=1")])
        async with federation.serving() as serving:
            yield federation, federation.server.workshop.schema
            for name in "abc":
                federation.start(name)
            assert await federation.end(serving)
        assert federation.rounds[0].clients_counted == 3

    async def test_another_model(self, tmp_path: Path) -> None:
        """The first differing name, on both sides, and the client ends by itself."""
        other = (
            "def model():\n    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 17), nn.Linear(17, 3))\n"
        )
        task = task_file(tmp_path / "other", model=other)
        async with self.waiting(tmp_path) as (federation, _):
            error = await refused(federation.start("mallory", task=task))
            federation.sites.clear()
        assert isinstance(error, RemoteError)
        assert "client mallory: model differs at tensor '2.weight'" in str(error)
        assert "got '2.weight' [17, 24] float32, expected '2.weight' [16, 24] float32" in str(error)
        assert "Use the same task file" in str(error)

    async def test_another_codec_version(self, tmp_path: Path) -> None:
        async with self.waiting(tmp_path) as (federation, schema), Stranger(federation.address, "old", schema) as old:
            answer = await refusal_of(old.join(codec_version=CODEC_VERSION + 1, package_version="9.9"))
        assert answer.status == "FAILED_PRECONDITION"
        assert f"client old: speaks another codec version (got {CODEC_VERSION + 1} (fedprune 9.9)" in answer.text
        assert "Install the same fedprune on both sides" in answer.text

    async def test_other_frozen_weights(self, tmp_path: Path) -> None:
        async with self.waiting(tmp_path) as (federation, schema), Stranger(federation.address, "x", schema) as other:
            answer = await refusal_of(other.join(frozen_digest="ab" * 32))
        assert answer.status == "FAILED_PRECONDITION"
        assert "requires_grad is off" in answer.text

    @pytest.mark.parametrize("identity", [None, "", "x" * 129])
    async def test_without_an_identity(self, tmp_path: Path, identity: str | None) -> None:
        async with (
            self.waiting(tmp_path) as (federation, schema),
            Stranger(federation.address, identity, schema) as nobody,
        ):
            for call in (
                nobody.join(),
                nobody.stub.Status(pb.StatusRequest(), metadata=nobody.metadata),
                nobody.stub.Work(metadata=nobody.metadata),
                nobody.stub.Submit(metadata=nobody.metadata),
            ):
                answer = await refusal_of(call)
                assert answer.status == "UNAUTHENTICATED"
                assert "fedprune-identity" in answer.text

    async def test_who_has_not_joined(self, tmp_path: Path) -> None:
        async with (
            self.waiting(tmp_path) as (federation, schema),
            Stranger(federation.address, "early", schema) as early,
        ):
            answer = await refusal_of(early.stub.Work(metadata=early.metadata))
        assert answer == Refusal("UNAUTHENTICATED", "early: has not joined. Join first; the client does so by itself")

    async def test_signatures_that_are_none(self, tmp_path: Path) -> None:
        async with self.waiting(tmp_path) as (federation, schema), Stranger(federation.address, "odd", schema) as odd:
            for tensors in (
                [],
                [pb.TensorSpec(name="w", dtype="complex64", role=pb.ROLE_FREE)],
                [pb.TensorSpec(name="w" * 10_000, dtype="float32", role=pb.ROLE_FREE)],
                [*wire.schema_message(schema), *wire.schema_message(schema)],
                wire.schema_message(Schema(tensors=(*schema, TensorSpec(name="😀" * 500, shape=(1,))))),
            ):
                answer = await refusal_of(odd.join(tensors=tensors))
                assert answer.status in ("INVALID_ARGUMENT", "FAILED_PRECONDITION"), answer
                assert answer.text.startswith("client odd: ")

    async def test_garbage_on_the_port(self, tmp_path: Path) -> None:
        async with self.waiting(tmp_path) as (federation, _):
            for data in (
                b"GET / HTTP/1.1\r\n\r\n",
                os.urandom(4096),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 4096,
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", federation.server.port)
                writer.write(data)
                writer.write_eof()
                await reader.read()
                writer.close()
            async with Stranger(federation.address, "honest", federation.server.workshop.schema) as honest:
                assert (await honest.join()).heartbeat_s > 0


class TestNagging:
    async def test_who_does_not_take_no_for_an_answer_is_hung_up_on_and_no_round_waits_for_it(
        self, tmp_path: Path
    ) -> None:
        """It has an assignment, and a round would wait an hour for one who lost its line."""
        async with besieged(tmp_path, "clients.grace_s=3600.0") as (federation, mallory, _):
            calls = [mallory.stub.Status(pb.StatusRequest(), metadata=mallory.metadata) for _ in range(40)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert any("too many calls at a time" in str(answer) for answer in answers)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await _drained(mallory.work)
            await until(lambda: len(federation.rounds) > 0)
            reason = "client 2 did not contribute: hung up on"
            assert any(reason in warning for warning in federation.rounds[0].warnings), federation.rounds[0].warnings


class TestNames:
    async def test_a_name_taken_twice_sends_the_older_home(self, tmp_path: Path) -> None:
        """Two live clients of one name would push each other out for ever."""
        federation = Federation(tmp_path, task_file(tmp_path), [run_file("run.rounds=2")])
        async with federation.serving() as serving:
            first = federation.start("twin")
            await until(lambda: any("waiting" in s for s in first.said), serving)
            schema = federation.server.workshop.schema
            async with Stranger(federation.address, "twin", schema) as second:
                await second.come()
                error = await refused(first)
            assert "client 0 (twin): another client of this name has connected. Give each client its own" in str(error)
            federation.sites.remove(first)
            for name in "abc":
                federation.start(name)
            assert await federation.end(serving)

    async def test_a_client_that_comes_back_is_not_taken_for_gone(self, tmp_path: Path) -> None:
        """Its old stream ends after the new one has begun: that is no goodbye."""
        federation = Federation(tmp_path, task_file(tmp_path), [run_file("run.rounds=1", "clients.expect=1")])
        schema = federation.server.workshop.schema
        async with federation.serving() as serving:
            async with (
                Stranger(federation.address, "x", schema) as old,
                Stranger(federation.address, "x", schema) as new,
            ):
                await old.come()
                await old.assignment()
                await new.come()
                work = await new.assignment()
                assert (await refusal_of(_drained(old.work))).status == "FAILED_PRECONDITION"
                status = await new.stub.Status(pb.StatusRequest(), metadata=new.metadata)
                assert [c.connected for c in status.clients] == [True]
                assert "away" not in status.waiting_for
                new.run_id = work.run_id
                frame = await new.update(work)
                assert isinstance(await new.submit(new.begin(work, frame), frame), pb.Receipt)
                assert (await new.told("run_end")).summary.startswith("finished")
            assert await serving


async def _drained(work: object) -> None:
    while await work.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]  # a grpc call
        pass
