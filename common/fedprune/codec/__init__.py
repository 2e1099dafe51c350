"""How masks and models become bytes: small, exact, and safe to read from a stranger.

Bytes in, values out: nothing here knows torch, grpc, a clock or a source of randomness. The format is specified in
docs/format.md; below is everything that the rest of fedprune uses.
"""

from fedprune.codec.account import account
from fedprune.codec.base import CODEC_VERSION, EXACT, Content, Packed, Plan, Positions, Values
from fedprune.codec.limits import Limits
from fedprune.codec.masks import decode_mask, decode_mask_set, encode_mask, encode_mask_set
from fedprune.codec.reader import UpdateReader, decode_update
from fedprune.codec.updates import encode_update, iter_update

__all__ = [
    "CODEC_VERSION",
    "EXACT",
    "Content",
    "Limits",
    "Packed",
    "Plan",
    "Positions",
    "UpdateReader",
    "Values",
    "account",
    "decode_mask",
    "decode_mask_set",
    "decode_update",
    "encode_mask",
    "encode_mask_set",
    "encode_update",
    "iter_update",
]
