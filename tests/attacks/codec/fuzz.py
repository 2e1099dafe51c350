"""The codec under atheris: coverage leads the changes, the seals are repaired behind it.

`pip install atheris`, then `python tests/attacks/codec/fuzz.py -max_total_time=600`. The first byte of an input picks the
receiver among the golden frames.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # installed only where somebody fuzzes

with atheris.instrument_imports(include=["fedprune"]):
    from mutate import reseal, targets  # type: ignore[import-untyped, import-not-found, unused-ignore]  # beside this file

    from fedprune.errors import RemoteError

RECEIVERS = targets()


def one_input(data: bytes) -> None:
    """Raise whatever is no `RemoteError`."""
    if not data:
        return
    target = RECEIVERS[data[0] % len(RECEIVERS)]
    for frame in (data[1:], reseal(data[1:])):
        try:
            target.read(frame)
        except RemoteError:
            continue


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
