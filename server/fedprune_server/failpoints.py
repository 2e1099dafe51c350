"""The failpoints of a coordinator: where a kill, a stop or a full disk could hurt, by name.

Armed by the environment variable `FEDPRUNE_FAILPOINTS`, which is read once when a coordinator starts; off otherwise.
The mechanism is `fedprune.failpoints`; docs/reliability.md lists the table.
"""

from __future__ import annotations

from fedprune.failpoints import Failpoints, Point

VARIABLE = "FEDPRUNE_FAILPOINTS"

# Every change of the state database, as its transaction is called.
CHANGES: dict[str, str] = {
    "create-run": "a run is created",
    "add-client": "a client gets its index",
    "freeze-shards": "the shards are given out",
    "set-run-state": "a run begins or is over",
    "open-round": "a round opens with its assignments",
    "extend-round": "a round that missed its quorum gets more time",
    "add-assignments": "an evaluation is assigned",
    "begin-upload": "a client announces a result",
    "accept": "results get their receipts",
    "freeze": "the accepted set of a round is closed",
    "commit-version": "a new version is committed",
    "close-round": "a round without an update is closed",
    "put-report": "an evaluation is entered",
    "append-entries": "the last bytes are accounted for",
    "append-audit": "an event of the audit is kept",
    "record-files": "the files of the run are recorded",
    "collect-garbage": "blobs that nobody needs are let go",
}

_DISK: dict[str, str] = {
    "blob-append": "bytes of a blob or an upload are about to be written",
    "blob-before-sync": "a blob is written, not yet synced",
    "blob-before-rename": "a blob is synced, not yet in its place",
    "blob-after-rename": "a blob is in its place, its directory not yet synced",
    "blob-deleted": "one of the blobs that nobody needs is deleted",
    "file-before-rename": "a file for people (report, model, ledger) is written beside its place",
    "round-published": "a line of rounds.jsonl is written",
}

_STEPS: dict[str, str] = {
    "run-found": "an unfinished run is read from the store, nothing done yet",
    "upload-begun": "a client was told where to go on with its upload",
    "chunk-staged": "a chunk of an upload is staged",
    "upload-sealed": "an upload is complete and a blob, not yet checked",
    "update-checked": "an update is found good, its receipt not yet committed",
    "receipt-sent": "a receipt is about to go out",
    "pull-begun": "a client was told what it gets",
    "chunk-sent": "a chunk of a download is about to go out",
    "assignments-sent": "a round is open and its work handed out",
    "round-folded": "the next version is folded, pruned and encoded, not yet committed",
    "statistics-folded": "statistics under a new mask are folded and encoded, not yet committed",
    "version-adopted": "the next version is committed and in use",
    "evaluation-closed": "the clients' evaluations are averaged, not yet entered",
    "run-written": "all files of a run are written, its clients not yet told",
    "run-told": "the clients are told that the run is over",
    "farewell-over": "the clients have left, the run not yet marked as done",
}

POINTS: dict[str, Point] = {
    **{
        f"{change}-{moment}-commit": Point(meaning=f"{meaning}: {what}", fails=moment == "before")
        for change, meaning in CHANGES.items()
        for moment, what in (("before", "written, not yet committed"), ("after", "just committed"))
    },
    **{name: Point(meaning=meaning, fails=True) for name, meaning in _DISK.items()},
    **{name: Point(meaning=meaning) for name, meaning in _STEPS.items()},
}


def armed(text: str) -> Failpoints:
    """The coordinator's failpoints with what `text` arms. Raises `ConfigError` for an unknown one."""
    return Failpoints.parse(text, POINTS)
