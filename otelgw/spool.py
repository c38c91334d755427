"""The worker's side of the spool: records, intents, the quota of strangers, and the disk.

A record is in the segment file, safe from the death of any process, when ``append`` returns. With ``fsync`` an answer's
last byte also waits for ``commit``: one sync of the disk for everything that was appended while the last one ran, and
no timer that would delay an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from otelgw.config import settings
from otelgw.tracing.record import EVERYBODY, Audience, Caller, Capture, Record, Target, encode
from otelgw_collector.intents import IDENTITY
from otelgw_collector.retention import UNAUTHENTICATED
from otelgw_collector.segment_format import INTENT, SETTLED
from otelgw_collector.segments import SegmentWriter

__all__ = ["Intent", "Spool", "killed", "sync_and_close"]

log = logging.getLogger(__name__)

_STRANGERS = 50.0  # records a second without an accepted key, of all workers together
_QUIET = 60.0  # seconds between two log lines on records that are left out
_KILLED = "worker_killed"
_MESSAGE = "The worker was killed while the request was in flight."


class Intent(msgspec.Struct, array_like=True, frozen=True):
    """What is known of a request when it is routed; the fields are those of ``Record``. Nothing of its content."""

    call_id: str
    trace_id: str
    span_id: str
    start: int
    generation_span_id: str = ""
    parent_span_id: str = ""
    trace_flags: int = 1
    trace_state: str = ""
    sampled: bool = True
    link_trace_id: str = ""
    link_span_id: str = ""
    upstream_start: int = 0
    method: str = "POST"
    route: str = ""
    path: str = ""
    scheme: str = "http"
    http_version: str = "1.1"
    server_address: str = ""
    server_port: int = 0
    stream: bool = False
    target: Target = Target()
    caller: Caller = Caller()
    audience: Audience = EVERYBODY


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Intent).decode
_WITHHELD = Capture(withheld=True)


def killed(payload: bytes) -> bytes:
    """Return the record of a request whose worker died, from its intent as the spool has it, without the id.

    Raises:
        msgspec.DecodeError: the payload is no intent.
    """
    intent = _decode(payload)
    known = {name: getattr(intent, name) for name in Intent.__struct_fields__}
    record = Record(
        **known,
        error_type=_KILLED,
        error_message=_MESSAGE,
        content=False,
        request=_WITHHELD,
        response=_WITHHELD,
    )
    return encode(record)


class Spool:
    """The spool of one worker, on one event loop. ``worker`` names its files and must never come again.

    ``unsynced`` counts syncs that the disk refused, ``over_quota`` records of callers without a key that were left out.
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        options: settings.Spool | None = None,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        options = options or settings.Spool()
        self._fsync = options.fsync
        self._intents = options.intents
        self._records = SegmentWriter(directory, worker, durable=options.fsync)
        self._strangers = SegmentWriter(directory, worker + UNAUTHENTICATED, durable=options.fsync)
        self._rate = _STRANGERS / max(workers, 1)
        self._allowance = self._rate
        self._filled_at = clock()
        self._clock = clock
        self._told_at = float("-inf")
        self._unsettled: list[bytes] = []
        self._appended = self._synced = 0
        self._syncing: asyncio.Task[None] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self.over_quota = 0
        self.unsynced = 0

    def intend(self, intent: Intent) -> bytes:
        """Note a request that is routed; return what ``append`` is to be given as ``settles``.

        That is empty where nothing is noted. A disk that does not take the note costs the note, never the request.
        """
        if not self._intents:
            return b""
        identity = bytes.fromhex(intent.span_id)
        if len(identity) != IDENTITY:
            raise ValueError(f"a span id has {IDENTITY} bytes")
        try:
            self._records.append(identity + _encode(intent), INTENT)
        except OSError:
            return b""  # the record itself will say so
        return identity

    def append(self, payload: bytes, *, settles: bytes = b"", unauthenticated: bool = False) -> None:
        """Write a record. One of a caller who was refused for want of a key is left out beyond the quota, and counted.

        Raises:
            OSError: the record could not be written.
            ValueError: it is larger than 64 MiB.
        """
        if not unauthenticated:
            try:
                self._records.append(payload, settles=settles)
            except (OSError, ValueError):
                if settles:
                    self._unsettled.append(settles)
                raise
            if self._unsettled:
                self._settle()
        elif self._allows():
            self._strangers.append(payload)
        self._appended += 1

    def _settle(self) -> None:
        """Settle the intents whose records could not be written: these requests were answered, not killed."""
        with contextlib.suppress(OSError):
            while self._unsettled:
                self._records.append(self._unsettled[-1], SETTLED)
                self._unsettled.pop()

    def _allows(self) -> bool:
        now = self._clock()
        self._allowance = min(self._rate, self._allowance + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._allowance >= 1:
            self._allowance -= 1
            return True
        self.over_quota += 1
        if now - self._told_at >= _QUIET:
            self._told_at = now
            log.warning("too many requests without a key to record all of them (%d left out so far)", self.over_quota)
        return False

    async def commit(self) -> None:
        """Wait until everything that has been appended is on the disk; at once, unless ``fsync`` is set."""
        if not self._fsync:
            return
        mine = self._appended
        while self._synced < mine:
            if self._syncing is None:
                self._syncing = asyncio.get_running_loop().create_task(self._sync())
            await asyncio.shield(self._syncing)

    async def _sync(self) -> None:
        reached = self._appended
        try:
            handles = self._records.unsynced() + self._strangers.unsynced()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "fsync")
            await asyncio.get_running_loop().run_in_executor(self._executor, sync_and_close, handles)
        except OSError as error:
            self.unsynced += 1
            if self.unsynced.bit_count() == 1:  # the first, and then ever more rarely
                log.error("records may not survive a power loss: %s (%d so far)", error.strerror, self.unsynced)  # noqa: TRY400
        finally:
            # Also after a refusal: a disk that takes no record costs the record, never the answer.
            self._synced = reached
            self._syncing = None

    def close(self) -> None:
        """Sync and close the segments."""
        self._settle()
        if self._executor is not None:
            self._executor.shutdown()
        if self._fsync:
            try:
                sync_and_close(self._records.unsynced() + self._strangers.unsynced())
            except OSError as error:
                log.error("the last records may not survive a power loss: %s", error.strerror)  # noqa: TRY400
        self._records.close()
        self._strangers.close()


def sync_and_close(handles: Sequence[int]) -> None:
    """Sync and close descriptors; every one is closed, also when a sync fails.

    Raises:
        OSError: the last failure.
    """
    failure: OSError | None = None
    for handle in handles:
        try:
            os.fsync(handle)
        except OSError as error:
            failure = error
        finally:
            os.close(handle)
    if failure is not None:
        raise failure
