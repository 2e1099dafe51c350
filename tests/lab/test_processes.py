"""Starting and, above all, ending: jobs here are cheap `fedprune` command lines, cold and one of them warm.

Whether a process is dead is seen from the connection it held: `fedprune health` asks a server that never answers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedprune_lab.jobs import Ended, Job
from fedprune_lab.processes import Processes


def job(folder: Path, name: str, *arguments: str) -> Job:
    return Job(name=name, arguments=list(arguments), log=str(folder / f"{name}.log"))


@contextmanager
def silent_server() -> Iterator[tuple[socket.socket, str]]:
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"127.0.0.1:{server.getsockname()[1]}"


def asking(folder: Path, address: str, name: str = "asking") -> Job:
    """A job that waits for an answer for ten minutes."""
    return job(folder, name, "health", address, "--timeout-s", "600")


def assert_dead(connection: socket.socket) -> None:
    """The process at the other end is gone: reading ends."""
    with connection:
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass


def drain(processes: Processes) -> list[Ended]:
    ended = []
    while processes.running:
        ended += processes.wait(60.0)
    return ended


def test_each_job_ends_with_its_own_code_and_keeps_its_words(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "good", "--help"), job(tmp_path, "bad", "no-such-verb")]
    with Processes(jobs, warm=None) as processes:
        assert processes.running == {"good", "bad"}
        codes = {e.name: e.code for e in drain(processes)}
        assert codes == {"good": 0, "bad": 2}
        assert processes.pids.keys() == codes.keys()
        assert "no-such-verb" in processes.last_words("bad")
        assert processes.stop() == 0


def test_jobs_forked_from_a_warm_process_do_the_same(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "good", "--help"), job(tmp_path, "bad", "no-such-verb")]
    with Processes(jobs, warm=("json",)) as processes:
        codes = {e.name: e.code for e in drain(processes)}
    assert (codes["good"], codes["bad"]) == (0, 2)
    assert "no-such-verb" in processes.last_words("bad")


def test_a_forked_job_that_cannot_even_begin_counts_as_failed(tmp_path: Path) -> None:
    broken = Job(name="broken", arguments=["--help"], log=str(tmp_path / "no-such-folder" / "log"))
    with Processes([broken], warm=("json",)) as processes:
        assert drain(processes) == [Ended(name="broken", code=1)]


def test_leaving_the_block_ends_what_still_runs(tmp_path: Path) -> None:
    with silent_server() as (server, address):
        with Processes([asking(tmp_path, address), asking(tmp_path, address, "too")], warm=None) as processes:
            connections = [server.accept()[0], server.accept()[0]]
            assert processes.wait(0.0) == []
            assert processes.stop() == 2
        for connection in connections:
            assert_dead(connection)


def test_an_error_in_the_block_ends_them_too(tmp_path: Path) -> None:
    with silent_server() as (server, address):
        held = []

        def interrupted() -> None:
            with Processes([asking(tmp_path, address)], warm=None):
                held.append(server.accept()[0])
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert_dead(held[0])


def test_they_do_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from fedprune_lab.jobs import Job; from fedprune_lab.processes import Processes\n"
        "with Processes([Job(name='a', arguments=['health', sys.argv[1], '--timeout-s', '600'], log=sys.argv[2])],"
        " warm=None) as p:\n    while p.running: p.wait(600)"
    )
    with silent_server() as (server, address):
        parent = subprocess.Popen([sys.executable, "-c", program, address, str(tmp_path / "log")])
        connection, _ = server.accept()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert_dead(connection)


def test_a_nursery_that_dies_counts_as_the_end_of_all(tmp_path: Path) -> None:
    with silent_server() as (server, address), Processes([asking(tmp_path, address)], warm=None) as processes:
        connection, _ = server.accept()
        assert processes._nursery is not None
        os.kill(processes._nursery.pid, signal.SIGKILL)
        (ended,) = drain(processes)
        assert ended == Ended(name="asking", code=-signal.SIGKILL)
        processes.stop()
        assert_dead(connection)


def test_nothing_asked_is_nothing_started() -> None:
    with Processes([], warm=None) as processes:
        assert processes.running == frozenset()
        assert processes.wait(60.0) == []
