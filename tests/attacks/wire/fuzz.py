"""Messages, downloads and uploads under atheris: coverage leads the changes.

`make fuzz`, or `pip install atheris` and `python tests/attacks/wire/fuzz.py -max_total_time=600`; a folder as an argument
keeps the inputs that led further. Whatever is no `RemoteError` is a failure, as is an input that takes five seconds (one
is allowed, and machines are busy) or half a gigabyte; it is kept as crash-..., and given as an argument it is played again.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # installed only where somebody fuzzes

with atheris.instrument_imports(include=["fedprune", "fedprune_server", "fedprune_client"]):
    from target import SEEDS, Target  # type: ignore[import-untyped, import-not-found, unused-ignore]  # beside this file

LIMITS = ("-timeout=5", "-rss_limit_mb=512", "-max_len=4096")


def drive(target: Target, data: bytes) -> None:
    """One input; what is found in it ends the fuzzing, as an error would."""
    if found := target.read(data):
        raise AssertionError("; ".join(found))


if __name__ == "__main__":
    # Not removed at the end: libFuzzer leaves without coming back.
    corpus = Path(tempfile.mkdtemp(prefix="fedprune-fuzz-"))
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(seed)
    given = sys.argv[1:]
    played = [argument for argument in given if Path(argument).is_file()]
    folders = [] if played else [*(argument for argument in given if Path(argument).is_dir()), str(corpus)]
    flags = [argument for argument in given if argument.startswith("-")]
    atheris.Setup([sys.argv[0], *LIMITS, *flags, *played, *folders], partial(drive, Target()))
    atheris.Fuzz()
