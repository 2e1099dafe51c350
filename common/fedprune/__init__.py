"""fedprune: federated learning that prunes while it trains, and sends only what is left.

This is the library both ends share. It needs numpy and zstandard; torch is asked for only by `fedprune.torch` and
gRPC by nothing here.
"""

from fedprune.task import Shard

__all__ = ["Shard"]
__version__ = "0.1.0"
