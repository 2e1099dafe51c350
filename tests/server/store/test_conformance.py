"""What every store must do, whatever stands behind it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from fedprune.errors import (
    DigestError,
    DuplicateError,
    LimitError,
    RemoteError,
    StaleError,
    StoreError,
    UnavailableError,
)
from fedprune.ledger import Direction, Entry, Kind
from fedprune_server.store import AssignmentRecord, ReceiptRecord, RunRecord, RunState, Store, Upload, Verdict, Work

from .conftest import RUN, UPDATE, Scene, submitted


def bytes_up(client: int, count: int) -> Entry:
    return Entry(client=client, round=1, direction=Direction.UP, kind=Kind.VALUES, bytes=count)


class TestClients:
    def test_an_index_is_given_once(self, store: Store) -> None:
        assert [store.client_index(name) for name in ("b", "a", "b")] == [0, 1, 0]
        assert [c.identity for c in store.clients()] == ["b", "a"]

    def test_shards_are_fixed(self, scene: Scene) -> None:
        scene.store.freeze_shards(RUN, {1: 1})
        assert scene.store.shards(RUN) == {0: 0, 1: 1, 2: 2}
        with pytest.raises(StoreError, match="client 1 has another shard"):
            scene.store.freeze_shards(RUN, {1: 7})

    def test_a_late_client_gets_a_shard_of_its_own(self, scene: Scene) -> None:
        late = scene.store.client_index("late")
        with pytest.raises(StoreError, match="contradicts"):
            scene.store.freeze_shards(RUN, {late: 2})
        scene.store.freeze_shards(RUN, {late: 3})
        assert scene.store.shards(RUN)[late] == 3


class TestRuns:
    def test_one_unfinished_run_at_a_time(self, scene: Scene) -> None:
        other = RunRecord(run_id="other", name="other", config_toml="", schema_digest="")
        with pytest.raises(StoreError, match=RUN):
            scene.store.create_run(other)
        scene.store.set_run_state(RUN, RunState.FINISHED)
        assert scene.store.unfinished_run() is None
        scene.store.create_run(other)
        assert scene.store.unfinished_run() == other
        assert [r.run_id for r in scene.store.runs()] == [RUN, "other"]

    def test_an_id_is_used_once(self, scene: Scene) -> None:
        scene.store.set_run_state(RUN, RunState.FAILED)
        with pytest.raises(StoreError, match="contradicts"):
            scene.store.create_run(RunRecord(run_id=RUN, name="again", config_toml="", schema_digest=""))
        assert scene.store.run(RUN).name == "digits"

    def test_an_unknown_run_is_named(self, store: Store) -> None:
        with pytest.raises(StoreError, match="nobody"):
            store.run("nobody")


class TestVersions:
    def test_a_commit_ends_its_round_in_one_step(self, scene: Scene) -> None:
        scene.open(1)
        record = scene.version(1, round_=1)
        scene.store.commit_version(record, report_json='{"round":1}', entries=[bytes_up(0, 5), bytes_up(1, 7)])
        assert scene.store.latest_version(RUN) == scene.store.version(RUN, 1) == record
        assert scene.store.reports(RUN) == {1: '{"round":1}'}
        assert sum(e.bytes for e in scene.store.entries(RUN)) == 12
        round_ = scene.store.round(RUN, 1)
        assert round_ is not None
        assert round_.committed

    def test_versions_only_grow(self, scene: Scene) -> None:
        with pytest.raises(StoreError, match="only grow"):
            scene.store.commit_version(scene.version(0, round_=0))

    def test_blobs_come_before_their_names(self, scene: Scene) -> None:
        record = replace(scene.version(1, round_=0), model_digest="0" * 64)
        with pytest.raises(StoreError, match="not here"):
            scene.store.commit_version(record)
        assert scene.store.version(RUN, 0) == scene.store.latest_version(RUN)

    def test_a_mask_that_clients_scored_ends_round_0(self, scene: Scene) -> None:
        for work in scene.open(0, kind=Work.SCORE):
            scene.store.accept(RUN, scene.upload(work))
        scene.store.freeze(RUN, 0, Work.SCORE)
        assert scene.store.recover(RUN).open_round is not None
        scene.store.commit_version(scene.version(1, round_=0))
        assert scene.store.recover(RUN).open_round is None

    def test_a_round_that_was_never_opened_commits_nothing(self, scene: Scene) -> None:
        with pytest.raises(StoreError, match="round 4 was never opened"):
            scene.store.commit_version(scene.version(1, round_=4), entries=[bytes_up(0, 5)])
        assert scene.store.latest_version(RUN) == scene.store.version(RUN, 0)
        assert scene.store.entries(RUN) == []

    def test_who_comes_after_a_round_that_counted_nothing_is_too_late(self, scene: Scene) -> None:
        late = scene.upload(scene.open(1)[0])
        scene.store.close_round(RUN, 1)
        assert scene.store.accept(RUN, late).verdict is Verdict.STALE

    def test_a_round_with_updates_that_count_cannot_end_without_a_version(self, scene: Scene) -> None:
        scene.store.accept(RUN, scene.upload(scene.open(1)[0]))
        with pytest.raises(StoreError, match="round 1 has updates that count"):
            scene.store.close_round(RUN, 1)
        assert scene.store.recover(RUN).frozen == frozenset()

    def test_a_round_may_end_without_a_version(self, scene: Scene) -> None:
        scene.open(1)
        scene.store.close_round(RUN, 1, report_json="{}", entries=[bytes_up(0, 1)])
        assert scene.store.recover(RUN).open_round is None

    def test_a_report_is_replaced(self, scene: Scene) -> None:
        scene.store.put_report(RUN, 1, "first")
        scene.store.put_report(RUN, 1, "second")
        assert scene.store.reports(RUN) == {1: "second"}


class TestRounds:
    def test_assignments_come_back_as_they_were(self, scene: Scene) -> None:
        given = scene.open(1)
        assert scene.store.assignment(RUN, given[1].assignment_id) == given[1]
        assert scene.store.assignments(RUN, 1) == tuple(given)
        assert scene.store.next_assignment_id() == given[-1].assignment_id + 1

    @pytest.mark.parametrize("unknown", [0, 999, (1 << 64) - 1])
    def test_unknown_assignments_are_none(self, scene: Scene, unknown: int) -> None:
        assert scene.store.assignment(RUN, unknown) is None

    def test_a_round_opens_once(self, scene: Scene) -> None:
        scene.open(1)
        with pytest.raises(StoreError, match="contradicts"):
            scene.open(1)
        assert len(scene.store.assignments(RUN, 1)) == 3

    def test_more_work_until_the_kind_is_frozen(self, scene: Scene) -> None:
        given = scene.open(1, clients=2)
        third = replace(given[0], assignment_id=77, client=2)
        scene.store.freeze(RUN, 1)
        with pytest.raises(StoreError, match="closed"):
            scene.store.add_assignments([third])
        scene.store.add_assignments([replace(third, kind=Work.EVALUATE)])
        assert scene.store.assignments(RUN, 1)[-1].kind is Work.EVALUATE

    def test_extending_changes_the_span(self, scene: Scene) -> None:
        scene.open(1)
        scene.store.extend_round(RUN, 1, 42.0)
        round_ = scene.store.round(RUN, 1)
        assert round_ is not None
        assert round_.deadline_s == 42.0


class TestUploads:
    def begin(self, scene: Scene, data: bytes = UPDATE) -> Upload:
        work = scene.store.assignments(RUN, 1)[0]
        said = submitted(work, data)
        upload = scene.store.begin_upload(
            RUN, work.assignment_id, client=work.client, sha256=said.sha256, size=said.size
        )
        assert isinstance(upload, Upload)
        return upload

    def test_sealed_bytes_are_a_blob(self, scene: Scene) -> None:
        said = scene.upload(scene.open(1)[0])
        assert bytes(scene.store.blobs.open(said.sha256)) == UPDATE

    def test_it_goes_on_where_it_stopped(self, scene: Scene) -> None:
        scene.open(1)
        self.begin(scene).append(0, UPDATE[:700])
        again = self.begin(scene)
        assert again.offset == 700
        assert again.append(600, UPDATE[600:900]) == 900
        again.append(900, UPDATE[900:])
        again.seal()
        again.seal()
        assert scene.store.blobs.exists(again.sha256)

    def test_the_older_connection_may_write_no_more(self, scene: Scene) -> None:
        scene.open(1)
        old = self.begin(scene)
        self.begin(scene)
        with pytest.raises(StaleError, match="another connection"):
            old.append(0, UPDATE)
        with pytest.raises(StaleError):
            old.seal()

    def test_gaps_and_excess_are_refused(self, scene: Scene) -> None:
        scene.open(1)
        upload = self.begin(scene)
        with pytest.raises(RemoteError, match="beyond"):
            upload.append(1, b"x")
        with pytest.raises(LimitError):
            upload.append(0, UPDATE + b"x")
        assert upload.offset == 0

    def test_missing_bytes_are_noticed(self, scene: Scene) -> None:
        scene.open(1)
        upload = self.begin(scene)
        upload.append(0, UPDATE[:-1])
        with pytest.raises(DigestError, match="ended early"):
            upload.seal()
        upload.append(len(UPDATE) - 1, UPDATE[-1:])
        upload.seal()

    def test_wrong_bytes_are_thrown_away(self, scene: Scene) -> None:
        scene.open(1)
        upload = self.begin(scene)
        upload.append(0, b"x" * len(UPDATE))
        with pytest.raises(DigestError, match="not what was announced"):
            upload.seal()
        assert not scene.store.blobs.exists(upload.sha256)
        assert self.begin(scene).offset == 0

    def test_what_was_damaged_on_disk_is_not_sealed(self, scene: Scene) -> None:
        scene.open(1)
        self.begin(scene).append(0, UPDATE[:10])
        key = next(iter(scene.store.blobs.staged_keys()))
        scene.store.blobs.discard(key)
        scene.store.blobs.append(key, b"other byte")
        again = self.begin(scene)
        again.append(again.offset, UPDATE[again.offset :])
        with pytest.raises(DigestError):
            again.seal()

    def test_who_begins_again_with_other_bytes_holds_the_disk_once(self, scene: Scene) -> None:
        scene.open(1)
        blobs = scene.store.blobs
        for number in range(3):
            data = UPDATE + bytes([number])
            self.begin(scene, data).append(0, data[:50])
        assert len(blobs.staged_keys()) == 1
        for number in range(3):
            data = bytes([number]) * 9
            upload = self.begin(scene, data)
            upload.append(0, data)
            upload.seal()
        assert not blobs.staged_keys()
        assert len(blobs.digests() - set(scene.version(0, round_=0).blobs)) == 1

    def test_bytes_that_someone_else_needs_stay(self, scene: Scene) -> None:
        given = scene.open(1)
        counted = scene.upload(given[1], b"the same")
        scene.store.accept(RUN, counted)
        self.begin(scene, b"the same").append(0, b"the same")
        same = self.begin(scene, b"the same")
        same.seal()
        self.begin(scene, b"other")
        assert scene.store.blobs.exists(counted.sha256)

    def test_work_of_someone_else_is_refused(self, scene: Scene) -> None:
        given = scene.open(1)
        said = submitted(given[0])
        for assignment_id, client in ((given[0].assignment_id, 1), (999, 0), ((1 << 62), 0)):
            with pytest.raises(StaleError, match="never given"):
                scene.store.begin_upload(RUN, assignment_id, client=client, sha256=said.sha256, size=said.size)

    @pytest.mark.parametrize("digest", ["../../etc/passwd", "", "A" * 64])
    def test_a_digest_is_hex_and_nothing_else(self, scene: Scene, digest: str) -> None:
        work = scene.open(1)[0]
        with pytest.raises(RemoteError, match="SHA-256"):
            scene.store.begin_upload(RUN, work.assignment_id, client=0, sha256=digest, size=1)


class TestReceipts:
    def test_the_same_bytes_get_the_same_receipt(self, scene: Scene) -> None:
        work = scene.open(1)[0]
        said = scene.upload(work)
        first = scene.store.accept(RUN, said)
        assert first.verdict is Verdict.ACCEPTED
        assert scene.store.accept(RUN, replace(said, examples=999)) == first
        again = scene.store.begin_upload(RUN, work.assignment_id, client=0, sha256=said.sha256, size=said.size)
        assert again == first
        assert scene.store.receipts(RUN, 1, Work.TRAIN) == (first,)

    def test_other_bytes_are_refused(self, scene: Scene) -> None:
        work = scene.open(1)[0]
        scene.store.accept(RUN, scene.upload(work))
        other = submitted(work, b"other")
        with pytest.raises(DuplicateError):
            scene.store.accept(RUN, other)
        with pytest.raises(DuplicateError):
            scene.store.begin_upload(RUN, work.assignment_id, client=0, sha256=other.sha256, size=other.size)

    def test_bytes_that_never_came_are_not_accepted(self, scene: Scene) -> None:
        work = scene.open(1)[0]
        with pytest.raises(DigestError, match="not here"):
            scene.store.accept(RUN, submitted(work))
        assert scene.store.receipts(RUN, 1, Work.TRAIN) == ()

    def test_a_closed_round_answers_stale_for_good(self, scene: Scene) -> None:
        given = scene.open(1)
        scene.store.accept(RUN, scene.upload(given[0]))
        late = scene.upload(given[1])
        assert [r.client for r in scene.store.freeze(RUN, 1)] == [0]
        answer = scene.store.accept(RUN, late)
        assert answer.verdict is Verdict.STALE
        assert scene.store.accept(RUN, late) == answer
        assert [r.client for r in scene.store.freeze(RUN, 1)] == [0]
        never_begun = submitted(given[2])
        begun = scene.store.begin_upload(
            RUN, given[2].assignment_id, client=2, sha256=never_begun.sha256, size=never_begun.size
        )
        assert isinstance(begun, ReceiptRecord)
        assert begun.verdict is Verdict.STALE

    def test_the_accepted_set_is_sorted_by_client(self, scene: Scene) -> None:
        given = scene.open(1)
        for work in (given[2], given[0], given[1]):
            scene.store.accept(RUN, scene.upload(work, f"update of {work.client}".encode()))
        assert [r.client for r in scene.store.freeze(RUN, 1)] == [0, 1, 2]

    def test_many_at_once_are_answered_one_by_one(self, scene: Scene) -> None:
        given = scene.open(1)
        good, other = scene.upload(given[0]), submitted(given[0], b"other")
        foreign = replace(submitted(given[1]), client=2)
        second = scene.upload(given[1])
        answers = scene.store.accept_many(RUN, [good, other, foreign, second, good])
        kinds = [type(a).__name__ for a in answers]
        assert kinds == ["ReceiptRecord", "DuplicateError", "StaleError", "ReceiptRecord", "ReceiptRecord"]
        assert answers[0] == answers[4]

    def test_results_without_bytes_need_no_blob(self, scene: Scene) -> None:
        work = scene.open(1, kind=Work.EVALUATE)[0]
        given = scene.store.accept(RUN, submitted(work, b""))
        assert given.metrics_json == '{"loss":0.5}'
        assert scene.store.receipts(RUN, 1, Work.TRAIN) == ()
        assert scene.store.receipts(RUN, 1, Work.EVALUATE) == (given,)

    @pytest.mark.parametrize(
        ("name", "value"), [("work_s", float("nan")), ("residual_norm", -1.0), ("examples", 1 << 63)]
    )
    def test_impossible_numbers_are_refused(self, scene: Scene, name: str, value: float) -> None:
        said = submitted(scene.open(1)[0])
        with pytest.raises(RemoteError, match=name):
            replace(said, **{name: value})  # type: ignore[arg-type]  # the point of the test


class TestGarbage:
    def test_what_is_needed_stays(self, scene: Scene) -> None:
        store = scene.store
        given = scene.open(1)
        counted, arriving = scene.upload(given[0], b"counted"), scene.upload(given[1], b"arriving")
        store.accept(RUN, counted)
        orphan, kept = store.blobs.put(b"orphan"), store.blobs.put(b"kept")
        assert store.collect_garbage([kept]) == len(b"orphan")
        latest = store.latest_version(RUN)
        assert latest is not None
        expected = {counted.sha256, arriving.sha256, kept, *latest.blobs}
        assert store.blobs.digests() == expected
        assert orphan not in store.blobs.digests()

    def test_a_result_that_came_whole_stays_until_it_has_its_answer(self, scene: Scene) -> None:
        store = scene.store
        first, second = scene.open(1)[:2]
        store.bring(RUN, first.assignment_id, b"whole", sha256=submitted(first, b"whole").sha256)
        late = submitted(second, b"of a round that closes")
        store.bring(RUN, second.assignment_id, b"of a round that closes", sha256=late.sha256)
        store.collect_garbage()
        assert store.accept(RUN, submitted(first, b"whole")).verdict is Verdict.ACCEPTED
        store.freeze(RUN, 1)
        assert store.accept(RUN, late).verdict is Verdict.STALE
        store.collect_garbage()
        assert bytes(store.blobs.open(submitted(first, b"whole").sha256)) == b"whole"
        assert late.sha256 not in store.blobs.digests()

    def test_updates_go_when_their_round_is_committed(self, scene: Scene) -> None:
        store = scene.store
        said = scene.upload(scene.open(1)[0])
        store.accept(RUN, said)
        store.freeze(RUN, 1)
        store.commit_version(scene.version(1, round_=1))
        store.collect_garbage()
        assert not store.blobs.exists(said.sha256)
        assert not store.blobs.exists(hashlib.sha256(b"model 0").hexdigest())
        assert store.blobs.exists(hashlib.sha256(b"model 1").hexdigest())

    def test_statistics_stay_until_the_round_after_theirs_is_committed(self, scene: Scene) -> None:
        """They are measured of the version that closed their round, and folded later, perhaps by another process."""
        store = scene.store
        store.accept(RUN, scene.upload(scene.open(1)[0]))
        store.freeze(RUN, 1)
        store.commit_version(scene.version(1, round_=1))
        work = AssignmentRecord(
            run_id=RUN,
            assignment_id=store.next_assignment_id(),
            round=1,
            client=0,
            version=scene.version(1, round_=1).version,
            kind=Work.REESTIMATE,
            work=b"",
        )
        store.add_assignments([work])
        said = scene.upload(work, b"statistics")
        store.accept(RUN, said)
        store.collect_garbage()
        assert bytes(store.blobs.open(said.sha256)) == b"statistics"
        assert [r.sha256 for r in store.freeze(RUN, 1, Work.REESTIMATE)] == [said.sha256]
        store.collect_garbage()
        assert store.blobs.exists(said.sha256)
        store.commit_version(scene.version(2, round_=1))
        scene.open(2)
        store.freeze(RUN, 2)
        store.commit_version(scene.version(3, round_=2))
        store.collect_garbage()
        assert not store.blobs.exists(said.sha256)

    def test_staged_bytes_go_when_their_round_is_closed(self, scene: Scene) -> None:
        store = scene.store
        given = scene.open(1)

        def begun(work: AssignmentRecord) -> Upload | ReceiptRecord:
            said = submitted(work)
            return store.begin_upload(RUN, work.assignment_id, client=work.client, sha256=said.sha256, size=said.size)

        late = begun(given[0])
        assert isinstance(late, Upload)
        late.append(0, UPDATE[:5])
        store.accept(RUN, scene.upload(given[1]))
        store.collect_garbage()
        assert len(store.blobs.staged_keys()) == 1
        store.freeze(RUN, 1)
        store.collect_garbage()
        assert store.blobs.staged_keys() == set()
        for act in (lambda: late.append(5, UPDATE[5:]), late.seal):
            with pytest.raises(UnavailableError, match="client 0: its round is closed"):
                act()
        answered = begun(given[0])
        assert isinstance(answered, ReceiptRecord)
        assert answered.verdict is Verdict.STALE


class TestRecovery:
    def test_it_finds_the_open_round(self, scene: Scene) -> None:
        store = scene.store
        given = scene.open(1)
        receipt = store.accept(RUN, scene.upload(given[1]))
        found = store.recover(RUN)
        assert found.run == store.run(RUN)
        assert found.shards == {0: 0, 1: 1, 2: 2}
        assert found.latest == store.latest_version(RUN)
        assert found.open_round == store.round(RUN, 1)
        assert found.assignments == tuple(given)
        assert found.cohort == tuple(work.client for work in given)
        assert found.receipts == (receipt,)
        assert found.frozen == frozenset()
        store.freeze(RUN, 1)
        assert store.recover(RUN).frozen == store.frozen(RUN, 1) == {Work.TRAIN}
        assert store.frozen(RUN, 2) == frozenset()

    def test_between_rounds_nothing_is_open(self, scene: Scene) -> None:
        scene.open(1)
        scene.store.commit_version(scene.version(1, round_=1))
        found = scene.store.recover(RUN)
        assert found.open_round is None
        assert found.assignments == ()
        assert found.cohort == (0, 1, 2)
        assert found.latest is not None
        assert found.latest.version.model == 1

    def test_a_needed_blob_that_is_gone_is_named(self, scene: Scene) -> None:
        latest = scene.store.latest_version(RUN)
        assert latest is not None
        assert scene.store.blobs.delete(latest.mask_digest) == len(b"mask")
        with pytest.raises(StoreError, match=latest.mask_digest):
            scene.store.recover(RUN)


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.client_index("late")
    with pytest.raises(StoreError, match="closed"):
        store.runs()
