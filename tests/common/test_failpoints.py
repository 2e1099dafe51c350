"""Failpoints: off unless armed, at the pass that was named, and never by a misspelt name."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from fedprune.errors import ConfigError, LocalError
from fedprune.failpoints import Failpoints, Point

TABLE = {"step": Point(meaning="a step is done"), "disk": Point(meaning="a disk is asked", fails=True)}


def test_unarmed_nothing_happens() -> None:
    points = Failpoints.parse("", TABLE)
    points.reach("disk")
    assert points.armed == ()


def test_an_error_at_the_pass_that_was_named_and_no_other() -> None:
    points = Failpoints.parse("disk=enospc@3", TABLE)
    points.reach("disk")
    points.reach("disk")
    with pytest.raises(OSError, match="injected at disk") as caught:
        points.reach("disk")
    assert caught.value.errno == errno.ENOSPC
    points.reach("disk")


def test_the_first_pass_if_none_is_named() -> None:
    points = Failpoints.parse(" disk=eio , step=kill@7 ", TABLE)
    assert points.armed == ("disk=eio@1", "step=kill@7")
    with pytest.raises(OSError, match="injected"):
        points.reach("disk")


def test_kill_means_kill() -> None:
    child = os.fork()
    if child == 0:
        try:
            Failpoints.parse("step=kill", TABLE).reach("step")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("text", ["stop=kill", "disk=explode", "disk", "disk=kill@0", "step=enospc"])
def test_what_cannot_be_armed_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Failpoints.parse(text, TABLE)


def test_a_point_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(LocalError):
        Failpoints.parse("step=kill@9", TABLE).reach("stairs")
