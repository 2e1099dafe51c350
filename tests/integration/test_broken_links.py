"""Links that break and clients that die: a transfer goes on where it stopped, and a round never hangs on one client."""

from __future__ import annotations

from pathlib import Path

from fedprune import wire
from fedprune.framing import FIRST_CHUNK_BYTES, SMALLEST_CHUNK_BYTES
from fedprune.ledger import Kind
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_lab.relay import Relay

from .federation import Federation, run_file, task_file, until
from .stranger import Stranger

ALONE = ("run.rounds=1", "clients.expect=1")


async def half_an_upload(stranger: Stranger, begin: pb.Begin, part: bytes, federation: Federation) -> None:
    """Send the announcement and some bytes; returns when they are staged."""
    call = stranger.stub.Submit(metadata=stranger.metadata)
    await call.write(pb.SubmitRequest(begin=begin))
    await call.read()
    await call.write(pb.SubmitRequest(chunk=part))
    staging = federation.folder / "runs" / "run" / "state"
    await until(lambda: any(f.is_file() and f.stat().st_size == len(part) for f in staging.rglob("*")))


async def test_a_cut_upload_goes_on_at_its_offset(tmp_path: Path) -> None:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*ALONE)])
    schema = federation.server.workshop.schema
    async with federation.serving() as serving:
        async with Stranger(federation.address, "x", schema) as first:
            await first.come()
            work = await first.assignment()
            frame = await first.update(work)
            begin = first.begin(work, frame)
            await half_an_upload(first, begin, frame[:700], federation)
        await until(lambda: any("away" in s for s in federation.said), serving)
        async with Stranger(federation.address, "x", schema) as again:
            await again.come()
            assert (await again.assignment()).assignment_id == work.assignment_id
            call = again.stub.Submit(metadata=again.metadata)
            await call.write(pb.SubmitRequest(begin=begin))
            assert (await call.read()).offset == 700
            await call.write(pb.SubmitRequest(chunk=frame[700:]))
            await call.done_writing()
            assert (await call.read()).receipt.verdict == pb.VERDICT_ACCEPTED
            await again.told("run_end")
        assert await serving
    # A broken connection is no refusal: the client was waited for.
    assert federation.report.warnings == ()
    assert federation.rounds[0].clients_counted == 1


async def test_an_eager_upload_that_is_repeated_is_counted_once_and_told_apart(tmp_path: Path) -> None:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*ALONE)])
    schema = federation.server.workshop.schema
    async with federation.serving() as serving:
        async with Stranger(federation.address, "x", schema) as stranger:
            await stranger.come()
            work = await stranger.assignment()
            frame = await stranger.update(work)
            begin = stranger.begin(work, frame, eager=True)
            await half_an_upload(stranger, begin, frame[:700], federation)
            receipt = await stranger.submit(begin, frame, chunk_bytes=len(frame))
            assert isinstance(receipt, pb.Receipt)
            await stranger.told("run_end")
        assert await serving
    ledger = federation.rounds[0].ledger
    assert ledger[Kind.RETRANSMIT.value].up == 700
    up = sum(ledger[kind.value].up for kind in (Kind.VALUES, Kind.MANIFEST) if kind.value in ledger)
    assert up <= len(frame) <= up + ledger.get(Kind.POSITIONS.value, ledger[Kind.VALUES.value]).up


async def test_a_client_that_dies_in_the_middle_of_an_upload_is_not_waited_for(tmp_path: Path) -> None:
    config = run_file("run.rounds=2", "clients.expect=3", "clients.grace_s=0.2")
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    schema = federation.server.workshop.schema
    async with federation.serving() as serving:
        async with Stranger(federation.address, "doomed", schema) as doomed:
            for name in "ab":
                federation.start(name)
            await doomed.come()
            work = await doomed.assignment()
            frame = await doomed.update(work)
            await half_an_upload(doomed, doomed.begin(work, frame), frame[:700], federation)
        assert await federation.end(serving)
    assert [r.clients_counted for r in federation.rounds] == [2, 2]
    assert any("away for more than 0.2 s" in warning for warning in federation.report.warnings)


async def test_cables_that_are_pulled_only_delay(tmp_path: Path) -> None:
    """All connections are reset, twice; nobody trains twice, nothing is missing."""
    federation = Federation(tmp_path, task_file(tmp_path), [run_file("run.rounds=8", "clients.min_clients=3")])
    async with federation.serving() as serving:
        relay = Relay("127.0.0.1", federation.server.port)
        async with relay:
            for name in "abc":
                federation.start(name, address=f"127.0.0.1:{relay.port}")
            await until(lambda: len(federation.rounds) >= 2, serving)
        async with relay:
            await until(lambda: len(federation.rounds) >= 5, serving)
        async with relay:
            assert await federation.end(serving)
    assert [r.clients_counted for r in federation.rounds] == [3] * 8
    assert any("joining again" in said for site in federation.sites for said in site.said)
    assert federation.report.warnings == ()


async def test_a_silent_client_is_taken_for_gone(tmp_path: Path) -> None:
    config = run_file("run.rounds=1", "clients.expect=2", "clients.grace_s=2", "network.heartbeat_s=0.2")
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    schema = federation.server.workshop.schema
    async with federation.serving() as serving, Stranger(federation.address, "silent", schema) as silent:
        await silent.come()
        federation.start("a")
        await silent.assignment()
        assert await federation.end(serving)
    assert federation.rounds[0].clients_counted == 1
    assert any("away for more than" in warning for warning in federation.report.warnings)


async def test_a_run_ends_when_it_is_stopped_and_keeps_what_was_committed(tmp_path: Path) -> None:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file("run.rounds=50")])
    async with federation.serving() as serving:
        for name in "abc":
            federation.start(name)
        await until(lambda: len(federation.rounds) >= 3, serving)
        async with Stranger(federation.address, "operator", federation.server.workshop.schema) as operator:
            reply = await operator.stub.Stop(pb.StopRequest(reason="enough"), metadata=operator.metadata)
        assert reply.kept.startswith("run run-")
        assert not await federation.end(serving)
    assert [end.outcome for end in federation.server.outcomes] == ["stopped"]
    assert federation.report.outcome == "stopped"
    assert 3 <= len(federation.report.rounds) < 50
    assert (tmp_path / "runs" / "run" / "model.safetensors").exists()
    lines = (tmp_path / "runs" / "run" / "rounds.jsonl").read_text().splitlines()
    assert len(lines) == len(federation.report.rounds)


async def test_a_model_that_broke_off_behind_its_mask_goes_on(tmp_path: Path) -> None:
    """The mask is not sent again: it would make the caller begin the model anew, and never come to its end."""
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*ALONE)])
    schema = federation.server.workshop.schema
    async with federation.serving() as serving, Stranger(federation.address, "x", schema) as stranger:
        await stranger.come()
        work = await stranger.assignment()
        asked = pb.PullRequest(run_id=work.run_id, want=wire.version_message(work.version))
        whole = [reply async for reply in stranger.stub.Pull(asked, metadata=stranger.metadata)]
        headers = [reply.header for reply in whole if reply.WhichOneof("content") == "header"]
        assert [header.kind for header in headers] == [pb.PART_KIND_MASK, pb.PART_KIND_MODEL]
        asked.part_sha256, asked.offset = headers[1].sha256, 100
        rest = [reply async for reply in stranger.stub.Pull(asked, metadata=stranger.metadata)]
        assert [reply.header for reply in rest if reply.WhichOneof("content") == "header"] == headers[1:]
        assert sum(len(reply.chunk) for reply in rest) == headers[1].size - 100
        frame = await stranger.update(work)
        assert isinstance(await stranger.submit(stranger.begin(work, frame), frame), pb.Receipt)
        await stranger.told("run_end")
        assert await serving


async def test_a_download_that_broke_off_goes_on_in_small_chunks(tmp_path: Path) -> None:
    """On a slow link half a megabyte may never arrive in time."""
    wide = "def model():\n    return nn.Sequential(nn.Linear(6, 4000), nn.ReLU(), nn.Linear(4000, 60), nn.ReLU(), nn.Linear(60, 3))\n"
    federation = Federation(tmp_path, task_file(tmp_path, model=wide), [run_file(*ALONE, "compression.down='raw'")])
    schema = federation.server.workshop.schema
    async with federation.serving(), Stranger(federation.address, "x", schema) as stranger:
        await stranger.come()
        work = await stranger.assignment()
        asked = pb.PullRequest(run_id=work.run_id, want=wire.version_message(work.version))
        whole = [reply async for reply in stranger.stub.Pull(asked, metadata=stranger.metadata)]
        part = next(n for n, reply in enumerate(whole) if reply.header.kind == pb.PART_KIND_MODEL)
        assert len(whole[part + 1].chunk) == FIRST_CHUNK_BYTES
        asked.part_sha256 = whole[part].header.sha256
        again = [reply async for reply in stranger.stub.Pull(asked, metadata=stranger.metadata)]
        assert len(again[1].chunk) == SMALLEST_CHUNK_BYTES
        assert b"".join(reply.chunk for reply in again[1:]) == b"".join(reply.chunk for reply in whole[part + 1 :])
