"""What is on its way into a store and not yet written down: uploads that arrive, results that came whole, and blobs that a
commit in progress is about to name.

Who reads the database sees none of it. Blobs are deleted under `lock` only, and never those in `digests`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

from fedprune.framing import Seal
from fedprune_server.store.blobs import Blobs
from fedprune_server.store.uploads import Upload, staging_key

# A run and an assignment of it.
Key = tuple[str, int]


class Underway:
    """`is_named` says whether the database names a blob."""

    def __init__(self, blobs: Blobs, *, is_named: Callable[[str], bool]) -> None:
        self.lock = RLock()
        self._blobs = blobs
        self._is_named = is_named
        self._uploads: dict[Key, Upload] = {}
        # Results that came whole and wait to be accepted.
        self._brought: dict[Key, str] = {}
        self._accepting: Counter[str] = Counter()

    def begin(self, key: Key, announced: Seal, *, party: str) -> Upload:
        """The newest upload of an assignment, the only one that may write."""
        with self.lock:
            older = self._uploads.pop(key, None)
            if older is not None:
                older.replaced()
            self._drop_others(key, announced.sha256, older)
            staged = staging_key(*key, announced.sha256)
            upload = Upload(self._blobs, key=staged, sha256=announced.sha256, size=announced.size, party=party)
            self._uploads[key] = upload
            return upload

    def _drop_others(self, key: Key, sha256: str, older: Upload | None) -> None:
        """A client that begins again with other bytes holds the disk once, not twice."""
        mine = staging_key(*key, sha256)
        for staged in self._blobs.staged_keys():
            if staged.startswith(staging_key(*key, "")) and staged != mine:
                self._blobs.discard(staged)
        if older is None or not older.sealed or older.sha256 == sha256 or older.sha256 in self._accepting:
            return
        if not self._is_named(older.sha256):
            self._blobs.delete(older.sha256)

    def bring(self, key: Key, sha256: str) -> None:
        """A result that came whole is about to be kept."""
        with self.lock:
            self._brought[key] = sha256

    @contextmanager
    def accepting(self, digests: Sequence[str]) -> Iterator[None]:
        """A commit that may name these is in progress."""
        with self.lock:
            self._accepting.update(digests)
        try:
            yield
        finally:
            with self.lock:
                self._accepting -= Counter(digests)

    def over(self, keys: Collection[Key]) -> None:
        """These have their receipt."""
        with self.lock:
            for key in keys:
                self._uploads.pop(key, None)
                self._brought.pop(key, None)

    def end(self, *, but: set[Key]) -> None:
        """Whoever still sends for a closed round is told so, and begins again to hear its answer."""
        with self.lock:
            for key in self._uploads.keys() - but:
                self._uploads.pop(key).unwanted()

    @property
    def keys(self) -> set[Key]:
        """What uploads there are."""
        return set(self._uploads)

    @property
    def digests(self) -> set[str]:
        """Blobs that nobody may delete."""
        arriving = {upload.sha256 for upload in self._uploads.values()} | set(self._brought.values())
        return arriving | set(self._accepting)
