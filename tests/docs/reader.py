"""Somebody who does what a page says, line by line, in a folder of their own.

What a page leaves to its reader is here: the other party where a page shows one side, the data, the certificates, the
finished run. Runs are cut to a few rounds of one client.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .shell import LONGEST_S, Shell, Started


def settings(keys: list[str]) -> list[str]:
    """Keys of a run file as options."""
    return [word for key in keys for word in ("--set", key)]


# Added to what is shown, so that it is over soon; later options win.
FEW = ["run.rounds=5", "pruning.every=1", "training.steps=2"]
ALONE = ["clients.expect=1", "clients.min_clients=1"]
SHORTER: Mapping[str, list[str]] = {
    "client": ["--threads", "1", "--patience-s", "60"],
    "demo": ["--rounds", "8", "--clients", "1"],
    "compare": ["--seeds", "1", "--clients", "1", *settings(FEW)],
}
RUN = re.compile(r"\bruns/([a-z]+)\b")


@dataclass
class Reader:
    """`does` one command; `leaves` ends what is still running; `wrong` is what ended otherwise than a page promises, with
    its last words. `run` is a finished run's folder, `data` an owner's."""

    shell: Shell
    folder: Path
    run: Path
    data: Path
    port: int = field(init=False)
    enrol_port: int = field(init=False)
    server: Started | None = None
    invitation: str | None = None
    done: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port, self.enrol_port = self.shell.ports.take(), self.shell.ports.take()

    def does(self, line: str) -> str:
        """Carry the line out; gives what it printed, as far as it has come."""
        verb, *words = [self.here(word) for word in shlex.split(line.partition(" > ")[0])[1:]]
        self.prepare(verb, words)
        match verb:
            case "server":
                return self.serve(words)
            case "client":
                return self.trains(words)
            case "stop":
                said = self.runs(verb, *words)
                self.leaves(with_client=False, code=1)
                return said
            case "invite":
                said = self.runs(
                    verb, *words, "--server", f"127.0.0.1:{self.port}", "--enrol-port", str(self.enrol_port)
                )
                self.invitation = said.splitlines()[-1].strip()
                return said
        return self.runs(verb, *words, *SHORTER.get(verb, []))

    def runs(self, *words: str) -> str:
        return self.ends(self.begins(*words))

    def ends(self, started: Started, code: int = 0) -> str:
        """What it said in all, once it has ended; anything but this exit code is `wrong`."""
        found = self.shell.ended(started)
        if found != code:
            self.wrong.append(f"{started.line}: exit code {found}\n{started.said}")
        return started.said

    def begins(self, *words: str) -> Started:
        self.done += 1
        return self.shell.start(self.folder, words, self.folder / f"{self.done}.log")

    def here(self, word: str) -> str:
        """A page's word as it is called in this folder."""
        word = re.sub(r"^(127\.0\.0\.1|0\.0\.0\.0|fl\.example\.org|10\.0\.0\.5):7400$", f"127.0.0.1:{self.port}", word)
        places = {
            "fl.example.org": "127.0.0.1",
            "10.0.0.5": "localhost",
            "/media/stick/root": str(self.folder / "stick"),
        }
        return str(self.data) if word.startswith("/srv/") else places.get(word, word)

    def prepare(self, verb: str, words: list[str]) -> None:
        """What the reader has by now, whatever page this is."""
        for name in RUN.findall(" ".join(words)):
            if not (self.folder / "runs" / name).exists():
                shutil.copytree(self.run, self.folder / "runs" / name)
        secure = verb in ("certs", "invite") or bool({"--certs", "--credentials", "--join"} & set(words))
        if secure and words[:1] != ["init"]:
            self.has_certificates(words)
        if "LINE" in words:
            words[words.index("LINE")] = self.invited()
        if (verb, *words[:1]) == ("doctor", "server"):
            self.leaves()
        elif verb in ("health", "stop", "client", "doctor") and self.server is None:
            joined = (self.folder / ".fedprune" / "credentials").exists()
            self.serve(["run.toml", "--task", "task.py", *(["--certs", "certs"] if secure or joined else [])])

    def has_certificates(self, words: list[str]) -> None:
        if not (self.folder / "certs").exists():
            self.runs("certs", "init", "127.0.0.1", "localhost")
            self.runs("certs", "issue", "ward-7", "--out", "ward-7")
        stick = self.folder / "stick"
        if str(stick) in words and not stick.exists():
            (self.folder / "certs" / "root").rename(stick)

    def invited(self) -> str:
        """An invitation that nobody has used."""
        if self.invitation is None:
            self.does("fedprune invite ward-8")
        found, self.invitation = self.invitation, None
        assert found is not None
        return found

    def serve(self, words: list[str]) -> str:
        """Begin to serve, after whatever was served before."""
        self.leaves()
        page = ["--page-address", f"127.0.0.1:{self.shell.ports.take()}"] if "--page" in words else []
        elsewhere = ["--address", f"127.0.0.1:{self.port}", "--out", f"served-{self.done}"]
        cut = settings([*FEW, *ALONE, f"network.enrol_port={self.enrol_port}"])
        self.server = self.begins("server", *words, *page, *elsewhere, *cut)
        self.answers(self.server)
        return self.server.said

    def trains(self, words: list[str]) -> str:
        said = self.runs("client", *words, *SHORTER["client"])
        self.leaves(with_client=False)
        return said

    def leaves(self, *, with_client: bool = True, code: int = 0) -> None:
        """See what is served through to its end, with a client of our own where nobody else trains. A coordinator that
        was stopped ends with 1: its run is not finished."""
        server, self.server = self.server, None
        if server is None:
            return
        if with_client:
            secure = "--certs" in server.line
            if secure and not (self.folder / "own").exists():
                self.runs("certs", "issue", "own", "--out", "own")
            way = ["--server", f"127.0.0.1:{self.port}", *(["--credentials", "own"] if secure else [])]
            self.runs("client", *way, "--task", "task.py", "--state", "own-state", *SHORTER["client"])
        self.ends(server, code)

    def answers(self, server: Started) -> None:
        """Return when the coordinator serves: its port is open a moment earlier."""
        way = ["--credentials", "certs/server"] if "--certs" in server.line else []
        until = time.monotonic() + LONGEST_S
        while self.shell.runs(server) and time.monotonic() < until:
            asked = self.begins("health", f"127.0.0.1:{self.port}", *way)
            if self.shell.ended(asked) == 0:
                return
        raise AssertionError(f"{server.line}: does not serve\n{server.said}")
