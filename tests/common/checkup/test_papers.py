"""What `doctor` says of credentials by their age, and of a folder that has none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedprune.checkup import papers
from fedprune.checkup.findings import State
from fedprune.pki import keys
from fedprune.pki.certificates import CLIENT_LIFE, issue, new_issuing, new_root
from fedprune.pki.credentials import Credentials
from fedprune.pki.subject import Role, Subject


@pytest.mark.parametrize(
    ("age", "state"),
    [(timedelta(), State.GOOD), (CLIENT_LIFE * 0.7, State.WARNING), (CLIENT_LIFE * 1.1, State.BAD)],
)
def test_a_certificate_by_its_age(age: timedelta, state: State, tmp_path: Path) -> None:
    began = datetime.now(UTC) - age
    root = new_root("wards", began)
    issuing = new_issuing(root, "wards", began)
    key, subject = keys.new_key(), Subject(federation="wards", role=Role.TRAINER, name="ward-7")
    leaf = issue(issuing, key.public_key(), subject, now=began, life=CLIENT_LIFE, hosts=("fl.example.org",))
    Credentials(key=key, chain=(leaf, issuing.certificate), trust=(root.certificate,)).save(tmp_path)
    found = papers.certificate(tmp_path, next_step="Ask for an invitation")
    assert found.state is state
    assert "ward-7" in found.seen
    assert ("Ask for an invitation" in found.next_step) == (state is not State.GOOD)
    assert ("for fl.example.org" in found.seen) == (state is not State.BAD)


def test_a_folder_without_credentials(tmp_path: Path) -> None:
    found = papers.certificate(tmp_path, next_step="Ask")
    assert found.state is State.BAD
    assert "tls.key" in found.seen
