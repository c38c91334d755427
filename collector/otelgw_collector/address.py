"""A record that is written to the spool once more, for one destination: to be replayed or because spans of it died.

Whoever writes it needs no connection to the pipeline: it is an entry of kind ``ADDRESSED`` in a segment of its own, and
is delivered and kept like any other, under the same policies.
"""

from __future__ import annotations

import msgspec

from otelgw_collector.segment_format import RECORD

__all__ = ["Address", "decode", "encode"]


class Address(msgspec.Struct, array_like=True, frozen=True):
    """``kind`` and ``payload`` are the original record's.

    ``spans`` are the ids, in hex, of the spans that are meant; none means all of them. ``letters`` says that they are
    dead letters, which are taken up again.
    """

    destination: str
    payload: bytes
    kind: int = RECORD
    spans: frozenset[str] = frozenset()
    letters: bool = False


def encode(address: Address) -> bytes:
    """Return the payload of the entry."""
    return msgspec.msgpack.encode(address)


_decoder = msgspec.msgpack.Decoder(Address)


def decode(payload: bytes) -> Address:
    """Return the address in an entry's payload.

    Raises:
        msgspec.DecodeError: there is none.
    """
    return _decoder.decode(payload)
