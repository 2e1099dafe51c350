"""Trying the promises of docs/reliability.md on real processes: kill, stop, cut, fill the disk, and look at what is left.

`trial` plays one run with faults drawn from a seed, `oracle` computes the model it must end with, `scripted` are
clients that need no torch, `zygote` starts coordinators in a tenth of a second. `bench/faults.py` and `tests/faults`
use them.
"""
