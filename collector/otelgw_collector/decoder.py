"""Decoding that no record can stop: what cannot be decoded is kept aside."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from otelgw_collector.segments import RECORD, Entry

__all__ = ["Decoder"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_KEPT = 1000  # files; what comes after is counted and logged only


class Decoder(Generic[T]):
    """Calls ``decode``; writes the payloads on which it fails to the directory ``aside``, one file each.

    ``failed`` counts them.
    """

    def __init__(self, decode: Callable[[bytes], T], aside: Path) -> None:
        self._decode = decode
        self._aside = aside
        self.failed = 0

    def __call__(self, segment: Path, entry: Entry) -> list[T]:
        """Return the decoded record as a list of one; an empty list if it cannot be decoded."""
        try:
            if entry.kind != RECORD:
                raise ValueError(f"records of kind {entry.kind} are not known")
            return [self._decode(entry.payload)]
        except Exception as error:  # noqa: BLE001 - whatever is in it, one record must not stop the others
            self._keep(segment, entry, type(error).__name__)
            return []

    def _keep(self, segment: Path, entry: Entry, why: str) -> None:
        path = self._aside / f"{segment.stem}-{entry.end}.record"
        if path.exists():  # met before: by the head, by another lane or before a restart
            return
        self.failed += 1
        # The error's type only: its text may quote the record.
        logger.error("%s: the record before offset %d cannot be decoded (%s): kept aside", segment.name, entry.end, why)
        try:
            self._aside.mkdir(mode=0o700, exist_ok=True)
            if sum(1 for _ in self._aside.iterdir()) < _KEPT:
                path.touch(mode=0o600)
                path.write_bytes(entry.payload)
        except OSError as error:
            logger.warning("an undecodable record cannot be kept: %s", error.strerror)
