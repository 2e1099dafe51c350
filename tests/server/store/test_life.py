"""Random lives of a store, restarts included, beside an obvious model of what it promises."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedprune.errors import DuplicateError, StaleError
from fedprune_server.store import AssignmentRecord, SqliteStore, Store, Upload, Verdict, Work, verify

from .conftest import RUN, Scene, submitted

CLIENTS = 3
clients = st.integers(0, CLIENTS - 1)
contents = st.sampled_from([b"one", b"two" * 40])


class Life(RuleBasedStateMachine):
    """The model: receipts by assignment, the rounds that are frozen, the model version."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = self.opened()
        self.receipts: dict[int, tuple[bytes, Verdict]] = {}
        self.frozen = False
        self.round = 0
        self.works: list[AssignmentRecord] = []

    def opened(self) -> SqliteStore:
        return SqliteStore(self.folder, durable=False, inline_bytes=10)

    @property
    def scene(self) -> Scene:
        return Scene(self.store)

    @initialize()
    def begin(self) -> None:
        self.scene.begin()
        self.open_next()

    def open_next(self) -> None:
        self.round += 1
        self.works = self.scene.open(self.round)
        self.frozen = False

    @rule(client=clients, data=contents, chunk=st.integers(1, 200))
    def submit(self, client: int, data: bytes, chunk: int) -> None:
        work = self.works[client]
        said = submitted(work, data)
        known = self.receipts.get(work.assignment_id)
        if known is None and self.frozen:
            self.receipts[work.assignment_id] = (data, Verdict.STALE)
        elif known is None:
            self.receipts[work.assignment_id] = (data, Verdict.ACCEPTED)
        first, verdict = self.receipts[work.assignment_id]
        try:
            upload = self.store.begin_upload(RUN, work.assignment_id, client=client, sha256=said.sha256, size=said.size)
            if isinstance(upload, Upload):
                upload.append(upload.offset, data[upload.offset : upload.offset + chunk])
                if not upload.complete:
                    del self.receipts[work.assignment_id]
                    return
                upload.seal()
            given = self.store.accept(RUN, said)
        except DuplicateError:
            assert data != first
        else:
            assert data == first
            assert given.verdict is verdict

    @rule(client=clients)
    def steal(self, client: int) -> None:
        work = self.works[client]
        other = (client + 1) % CLIENTS
        try:
            self.store.begin_upload(RUN, work.assignment_id, client=other, sha256="0" * 64, size=1)
        except StaleError:
            return
        raise AssertionError("someone else's work was taken")

    @rule()
    def freeze(self) -> None:
        self.frozen = True
        self.store.freeze(RUN, self.round)

    @precondition(lambda self: self.frozen)
    @rule()
    def commit(self) -> None:
        self.store.commit_version(self.scene.version(self.round, round_=self.round))
        self.open_next()

    @rule()
    def clean_up(self) -> None:
        self.store.collect_garbage()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = self.opened()

    @invariant()
    def the_accepted_set_is_the_models(self) -> None:
        if not self.works:
            return
        accepted = [
            work.client
            for work in self.works
            if self.receipts.get(work.assignment_id, (b"", None))[1] is Verdict.ACCEPTED
        ]
        assert [r.client for r in self.store.receipts(RUN, self.round, Work.TRAIN)] == accepted
        found = self.store.recover(RUN)
        assert found.assignments == tuple(self.works)
        assert (Work.TRAIN in found.frozen) == self.frozen

    def teardown(self) -> None:
        self.store.close()
        problems = verify(self.folder).problems
        shutil.rmtree(self.folder)
        assert problems == ()


Life.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestLife = Life.TestCase


def test_many_threads_give_one_receipt(scene: Scene) -> None:
    store: Store = scene.store
    said = [scene.upload(work, f"update of {work.client}".encode()) for work in scene.open(1)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: store.accept(RUN, said[n % 3]), range(48)))
        readers = list(pool.map(lambda n: store.receipts(RUN, 1, Work.TRAIN), range(48)))
    assert len({answer.assignment_id for answer in answers}) == 3
    assert all(answers[n] == answers[n % 3] for n in range(48))
    assert all(len(found) == 3 for found in readers)
