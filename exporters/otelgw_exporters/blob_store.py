"""Where content goes that is too long for spans: a bucket or a directory, each text under its own hash.

What is in an object tells its name, so the same content is one object however often it is written, and writing it again
is of no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from otelgw_exporters import blob_keys, catalog
from otelgw_exporters.blob import BlobExporter, Writer
from otelgw_exporters.blob_layouts import Blob
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.rows.blob_stores import DIRECTORY, TYPES

__all__ = ["BlobStore", "open_store"]

_NAME = "otelgw.blob_store"
# What an object is referred to by, before its key.
_ADDRESSES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "s3": lambda options: f"s3://{options['bucket']}/",
    "gcs_bucket": lambda options: f"gs://{options['bucket']}/",
    "azure_storage": lambda options: f"{_azure(options)}/{options['container']}/",
}


class BlobStore(NamedTuple):
    """``put`` takes a key, bytes, their media type and a deadline on ``time.monotonic``; it returns why they are not
    written, or nothing. It never raises, and may be called from any thread. ``address`` before a key is its URI."""

    address: str
    prefix: str
    put: Callable[[str, bytes, str, float], str]
    close: Callable[[], None]

    def key(self, data: bytes, ending: str) -> str:
        """Return the key of ``data``: its SHA-256, and what kind of file it is."""
        return f"{self.prefix}{hashlib.sha256(data).hexdigest()}{ending}"

    def __repr__(self) -> str:
        return f"<BlobStore {self.address}{self.prefix}>"


def open_store(kind: str, options: Mapping[str, Any], prefix: str = "") -> BlobStore:
    """Return the blob store that resolved ``options`` describe; nothing is connected to yet.

    Raises:
        DestinationConfigError: an option cannot be used, or a library is missing.
    """
    begins = blob_keys.prefix_of(prefix)
    if kind == DIRECTORY:
        directory = _Directory(_path(str(options["path"])))
        return BlobStore(f"{directory.root.as_uri()}/", begins, directory.put, lambda: None)
    made = catalog.build(kind, _NAME, options)
    if not isinstance(made, BlobExporter):
        raise DestinationConfigError(f"{_NAME}: {kind} is no store of objects; use one of {', '.join(TYPES)}")
    writer = Writer(_NAME, made.store)

    def put(key: str, data: bytes, media_type: str, deadline: float) -> str:
        reply = writer.put(Blob(key, data, media_type, ()), deadline)
        return "" if reply.kind == "accepted" else reply.reason or reply.kind

    return BlobStore(_ADDRESSES[kind](options), begins, put, writer.close)


class _Directory:
    """Files of mode 0600: they hold what was said. A file is whole or absent."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes, _media_type: str, _deadline: float) -> str:
        path = self.root / key
        scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            if path.is_file() and path.stat().st_size == len(data):
                os.utime(path)  # whoever cleans up by age is to see that it is in use
                return ""
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            scratch.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
            return f"{self.root}: {error.strerror or type(error).__name__}"
        return ""


def _path(text: str) -> Path:
    """Return the directory that a path or a ``file://`` URL names.

    Raises:
        DestinationConfigError: a URL of another machine, or of another kind.
    """
    if "://" not in text:
        return Path(text).absolute()
    parts = urlsplit(text)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not parts.path:
        raise DestinationConfigError(f"path: {text[:200]!r} is no directory of this machine: file:///path, or a path")
    return Path(unquote(parts.path))


def _azure(options: Mapping[str, Any]) -> str:
    return str(options.get("endpoint_url") or f"https://{options['account']}.blob.core.windows.net").rstrip("/")
