"""Content that is too long for a span, put into the blob store: the span gets what it is found by.

What comes here is as the destination may see it, redacted. Where the store does not take it nothing is returned, and
the content is cut instead: a delivery neither fails nor waits for the blob store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from otelgw_exporters import semconv

if TYPE_CHECKING:
    from otelgw_exporters.blob_store import BlobStore

__all__ = ["Keeper"]

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds for one object
_PAUSE = 30.0  # seconds after a failure in which nothing is tried
_REMEMBERED = 4096  # objects
_FRESH = 3600.0  # seconds for which an object is taken to be there: a bucket's own rules may delete it
_QUIET = 60.0  # seconds between two lines in the log
_JSON, _TEXT = (".json", "application/json"), (".txt", "text/plain; charset=utf-8")
_decode = msgspec.json.Decoder().decode


class Keeper:
    """Keeps content of more than ``above`` bytes. To be called from any thread."""

    def __init__(self, store: BlobStore, above: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.above = above
        self._store = store
        self._clock = clock
        self._known: OrderedDict[str, float] = OrderedDict()
        self._counts = {"stored": 0, "known": 0, "failed": 0}
        self._not_before = float("-inf")
        self._told = float("-inf")
        self._writing: set[str] = set()
        self._lock = threading.Condition()

    def __call__(self, value: Any) -> str:
        """Return the URI of the object that holds ``value``, a text as it is and anything else as JSON; empty where the
        store does not take it."""
        data, (ending, media_type) = _encoded(value)
        key = self._store.key(data, ending)
        outcome = self._before(key)
        if not outcome:
            reason = "it failed"
            try:
                reason = self._store.put(key, data, media_type, time.monotonic() + _PATIENCE)
            finally:
                outcome = self._after(key, reason)
        return "" if outcome == "failed" else self._store.address + key

    def counts(self) -> Mapping[str, int]:
        """Return how many objects were stored, known, and failed."""
        with self._lock:
            return dict(self._counts)

    def close(self) -> None:
        """End what is under way."""
        self._store.close()

    def _before(self, key: str) -> str:
        """Return what is known of an object before it is written; nothing if it is to be written. Of several threads
        that have the same content one writes it, and the others wait."""
        with self._lock:
            self._lock.wait_for(lambda: key not in self._writing)
            now = self._clock()
            if now - self._known.get(key, float("-inf")) < _FRESH:
                self._known.move_to_end(key)
                outcome = "known"
            elif now < self._not_before:
                outcome = "failed"
            else:
                self._writing.add(key)
                return ""
            self._counts[outcome] += 1
        return outcome

    def _after(self, key: str, reason: str) -> str:
        now = self._clock()
        outcome = "failed" if reason else "stored"
        with self._lock:
            self._writing.discard(key)
            self._lock.notify_all()
            self._counts[outcome] += 1
            if not reason:
                self._known[key] = now
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
                return outcome
            self._not_before = now + _PAUSE
            quiet, failed = now - self._told < _QUIET, self._counts["failed"]
            self._told = self._told if quiet else now
        if not quiet:
            log.error("blob store: %s; long content is cut instead (%d so far)", reason, failed)
        return outcome


def _encoded(value: Any) -> tuple[bytes, tuple[str, str]]:
    if not isinstance(value, str):
        return semconv.json_text(value), _JSON
    data = value.encode("utf-8", "backslashreplace")  # a lone surrogate is no UTF-8
    if value[:64].lstrip()[:1] in ("{", "["):
        try:
            _decode(data)
        except (msgspec.DecodeError, RecursionError):
            return data, _TEXT
        return data, _JSON
    return data, _TEXT
