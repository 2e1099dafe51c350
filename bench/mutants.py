"""Do the tests notice when a safeguard is gone? Each is taken out of a copy of the code, and a test must fail.

Prints a line for each; exit code 1 when a mutant survived.

Example: python bench/mutants.py
         python bench/mutants.py fsync
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("common", "server", "client", "lab")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A safeguard: the line that is changed, and the tests that must notice."""

    name: str
    file: str
    line: str
    instead: str
    tests: tuple[str, ...]


STORE = "server/fedprune_server/store/"
MUTANTS = (
    Mutant(
        name="digest",
        file=STORE + "uploads.py",
        line="if self._hash.hexdigest() != self.sha256:",
        instead="if not self.sha256:",
        tests=("tests/server/store/test_conformance.py",),
    ),
    Mutant(
        name="unique-key",
        file=STORE + "schema.py",
        line="residual_norm REAL NOT NULL, PRIMARY KEY (run_id, assignment_id),",
        instead="residual_norm REAL NOT NULL,",
        tests=("tests/server/store",),
    ),
    Mutant(
        name="same-receipt",
        file=STORE + "facts.py",
        line="if given is not None:",
        instead="if given is not None and not run_id:",
        tests=("tests/server/store/test_conformance.py",),
    ),
    Mutant(
        name="fsync",
        file=STORE + "blobs.py",
        line="os.fsync(handle)",
        instead="os.fstat(handle)",
        tests=("tests/server/store/test_sqlite.py",),
    ),
    Mutant(
        name="commits-synced",
        file=STORE + "database.py",
        line="{'FULL' if durable else 'OFF'}",
        instead="{'NORMAL' if durable else 'OFF'}",
        tests=("tests/server/store/test_sqlite.py",),
    ),
    Mutant(
        name="mask",
        file="common/fedprune/codec/reader.py",
        line='container.check_same("mask", header.mask, mine)',
        instead='container.check_same("mask", mine, mine)',
        tests=("tests/common/codec", "tests/attacks/codec"),
    ),
    Mutant(
        name="version",
        file="server/fedprune_server/intake.py",
        line="if wire.version(begin.version) != assignment.version:",
        instead="if assignment.version is None:",
        tests=("tests/integration/test_bad_input.py",),
    ),
    Mutant(
        name="cap",
        file="server/fedprune_server/intake.py",
        line="if begin.size > self.max_bytes:",
        instead="if begin.size > 1 << 62:",
        tests=("tests/integration/test_bad_input.py",),
    ),
    Mutant(
        name="announced-size",
        file=STORE + "uploads.py",
        line="if offset + len(data) > self.size:",
        instead="if self.size < 0:",
        tests=("tests/server/store/test_conformance.py",),
    ),
    Mutant(
        name="closed-round",
        file=STORE + "rowstore.py",
        line="accepted = freeze_set(tx, run_id, round_, Work.TRAIN)",
        instead="accepted = []",
        tests=("tests/server/store/test_conformance.py",),
    ),
    Mutant(
        name="round-0",
        file=STORE + "facts.py",
        line='if round_ or tx.one("SELECT 1 FROM rounds WHERE run_id = ? AND round = 0", run_id):',
        instead="if round_:",
        tests=("tests/server/store/test_conformance.py",),
    ),
    Mutant(
        name="being-committed",
        file=STORE + "rowstore.py",
        line="- arriving - set(self._accepting.digests) - set(keep)",
        instead="- arriving - set(keep)",
        tests=("tests/server/store/test_races.py",),
    ),
    Mutant(
        name="hung-up-on",
        file="server/fedprune_server/interceptors.py",
        line="if self._nags.refused(who.identity if who else peer, error, time.monotonic()):",
        instead="if self._nags is None:",
        tests=("tests/server/test_interceptors.py",),
    ),
    Mutant(
        name="free-calls",
        file="server/fedprune_server/limits.py",
        line="return self._owe_s(identity, calls, count, credit, now_s, at_least=CALLS_PER_S * CALL_BYTES)",
        instead="return self._owe_s(identity, calls, count, credit + 2 * self.max_update_bytes, now_s)",
        tests=("tests/server/test_limits.py",),
    ),
    Mutant(
        name="outbox-fsync",
        file="client/fedprune_client/outbox.py",
        line="os.fsync(file.fileno())",
        instead="os.fstat(file.fileno())",
        tests=("tests/client/test_outbox.py",),
    ),
    Mutant(
        name="outbox-digest",
        file="client/fedprune_client/outbox.py",
        line="if result is None or seal(frame) != result.seal:",
        instead="if result is None:",
        tests=("tests/client/test_outbox.py",),
    ),
    Mutant(
        name="verify-one-look",
        file=STORE + "verify.py",
        line='database.execute("BEGIN")',
        instead='database.execute("SELECT 1")',
        tests=("tests/server/store/test_verify.py",),
    ),
    Mutant(
        name="fencing",
        file=STORE + "database.py",
        line="if epoch != self.epoch:",
        instead="if epoch < self.epoch:",
        tests=("tests/server/store/test_sqlite.py",),
    ),
)


def dies(mutant: Mutant, copy: Path) -> bool:
    """Whether a test fails with the mutant in `copy`."""
    path = copy / mutant.file
    text = (ROOT / mutant.file).read_text()
    if text.count(mutant.line) != 1:
        raise SystemExit(f"{mutant.name}: the line is not in {mutant.file} once: {mutant.line}")
    path.write_text(text.replace(mutant.line, mutant.instead))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(copy / room) for room in ROOMS)}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    path.write_text(text)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{mutant.name}: the tests did not run\n{done.stdout[-2000:]}")
    return done.returncode == 1


def main(names: list[str]) -> int:
    """Try the mutants of these names, or all."""
    survived = 0
    with tempfile.TemporaryDirectory(prefix="fedprune-mutants-") as folder:
        copy = Path(folder) / "copy"
        skipped = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, copy, ignore=skipped)
        for mutant in MUTANTS:
            if not names or mutant.name in names:
                dead = dies(mutant, copy)
                survived += not dead
                print(f"{mutant.name}: {'noticed' if dead else 'SURVIVED'} ({' '.join(mutant.tests)})", flush=True)
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
