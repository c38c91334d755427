"""Payloads that are too large for a queue or a table: packed, and if that does not help put into S3."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from otelgw_exporters import blob_keys
from otelgw_exporters.blob import Writer
from otelgw_exporters.blob_layouts import Blob
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import Reply
from otelgw_exporters.s3_store import s3_store

__all__ = ["Fitted", "Overflow", "Place"]

_DEFAULTS: Mapping[str, Any] = {
    "virtual_hosted_style": None,
    "certificate": None,
    "verify": True,
    "server_side_encryption": None,
    "kms_key_id": None,
    "bucket_key": False,
}


class Place(NamedTuple):
    """Where in S3 a payload is, and its size in bytes."""

    bucket: str
    key: str
    size: int


Fitted = bytes | Place | Reply


class Overflow:
    """Makes payloads fit. ``options`` are those of the row, ``overflow_bucket`` among them.

    Raises:
        DestinationConfigError: an option cannot be used, or a library is missing.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._bucket = options["overflow_bucket"]
        self._prefix = blob_keys.prefix_of(options["overflow_path"])
        self._writer: Writer | None = None
        if self._bucket:
            url = options["overflow_endpoint_url"]
            store = s3_store(name, {**_DEFAULTS, **options, "bucket": self._bucket, "endpoint_url": url})
            self._writer = Writer(name, store)

    def fit(self, call: Call, data: bytes, fits: Callable[[bytes], bool], deadline: float) -> Fitted:
        """Return ``data`` packed, if that fits; else where in S3 it is, or a reply that says why it is nowhere.

        The same call is always put at the same place.
        """
        packed = gzip.compress(data, compresslevel=9, mtime=0)
        if fits(packed):
            return packed
        if self._writer is None:
            return Reply(
                "refused",
                f"the payload has {len(data)} bytes, {len(packed)} when compressed, and is too large: set the "
                "destination's overflow_bucket, and such payloads go into S3",
            )
        at = call.span.end_time or call.span.start_time or 0
        key = f"{self._prefix}{blob_keys.hour(at)}{call.identity}.json"
        reply = self._writer.put(Blob(key, data, "application/json", ()), deadline)
        return Place(self._bucket, key, len(data)) if reply.kind == "accepted" else reply

    def close(self) -> None:
        """End what is under way."""
        if self._writer is not None:
            self._writer.close()
