"""Findings: what is wrong comes with what to do, the last line counts, and JSON says the same."""

from __future__ import annotations

import json

import pytest

from fedprune.checkup import findings
from fedprune.checkup.findings import Finding, State, bad, good, skipped, trouble, warning
from fedprune.checkup.printing import told
from fedprune.errors import ConfigError, LocalError

WARNED = warning("clock", "adrift", "Run an NTP client")
FAILED = bad("port", "7400 is taken", "Give another")


@pytest.mark.parametrize("state", [State.WARNING, State.BAD])
def test_what_is_wrong_comes_with_what_to_do(state: State) -> None:
    with pytest.raises(LocalError, match="says what to do about it"):
        Finding(check="disk", state=state, seen="full")


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        ([good("disk", "free")], "nothing is wrong"),
        ([WARNED, good("disk", "free")], "nothing is wrong, 1 to look at"),
        ([FAILED, WARNED, skipped("bandwidth", "no way")], "1 of 3 checks failed, 1 to look at, 1 not tried"),
    ],
)
def test_the_last_line_counts(made: list[Finding], verdict: str) -> None:
    assert findings.verdict(made) == verdict


def test_an_error_keeps_its_own_next_step() -> None:
    mine = ConfigError("no such file", party="certs", seen="tls.key", next_step="Make it")
    assert trouble("certificate", mine, "Ask") == bad("certificate", "certs: no such file (got tls.key)", "Make it")
    assert trouble("certificate", ConfigError("broken"), "Ask").next_step == "Ask"


def test_told_as_text_ends_with_1_when_something_is_bad(capsys: pytest.CaptureFixture[str]) -> None:
    told([good("disk", "free"), WARNED], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "good     disk           free",
        "warning  clock          adrift",
        "                        -> Run an NTP client",
        "nothing is wrong, 1 to look at",
    ]
    with pytest.raises(Exception) as caught:  # noqa: PT011  # typer's way to end a program
        told([FAILED], as_json=False)
    assert getattr(caught.value, "exit_code", None) == 1


def test_told_as_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    told([WARNED], as_json=True)
    step = {"check": "clock", "state": "warning", "seen": "adrift", "next_step": "Run an NTP client"}
    assert json.loads(capsys.readouterr().out) == {"ok": True, "findings": [step]}
