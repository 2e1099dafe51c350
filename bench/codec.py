"""Every coding of the codec on what trained nets send: `python bench/codec.py [NET ...]`.

Against n H(p), plain CSR, zstd and memcpy; docs/codec-bench.md says what was seen. The first run trains the nets, which
takes minutes, and keeps them under bench/out.
"""

from __future__ import annotations

import sys

import torch

from fedprune_lab.bench.codec import run
from fedprune_lab.bench.nets import NETS
from fedprune_lab.benching import OUT


def main() -> None:
    torch.set_num_threads(1)
    run(OUT / "codec", nets=sys.argv[1:] or list(NETS))


if __name__ == "__main__":
    main()
