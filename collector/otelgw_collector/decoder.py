"""Decoding that no record can stop: what cannot be decoded is kept aside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from otelgw_collector import address
from otelgw_collector.address import Address
from otelgw_collector.quarantine import Quarantine
from otelgw_collector.segments import ADDRESSED, INTENT, SETTLED, VERSION, Entry

__all__ = ["Decoded", "Decoder"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_KEPT = 1000  # files; what comes after is counted and logged only
_SILENT = frozenset({INTENT, SETTLED})


class Decoded(NamedTuple, Generic[T]):
    """A record, and for whom it is if not for everybody."""

    subject: T
    address: Address | None = None


class Decoder(Generic[T]):
    """Calls the function in ``decode`` for a record's kind. A payload on which it fails is written to ``aside``.

    That is a directory, with one file for each such record, and one more below it, ``newer``, for records that a newer
    otelgw wrote. ``failed`` counts those that could not be decoded, ``quarantined`` those that are not tried any more.
    """

    def __init__(self, decode: Mapping[int, Callable[[bytes], T]], aside: Path, quarantine: Quarantine) -> None:
        self._decode = decode
        self._aside = aside
        self._quarantine = quarantine
        self.failed = 0
        self.quarantined = 0

    def __call__(self, segment: Path, entry: Entry) -> list[Decoded[T]]:
        """Return the decoded record as a list of one; an empty list if it is none or cannot be decoded."""
        if entry.kind in _SILENT and entry.version <= VERSION:
            return []
        record = f"{segment.name}@{entry.end}"
        if entry.version > VERSION:
            self._keep(segment, entry, "it was written by a newer otelgw", self._aside / "newer")
            return []
        if self._quarantine.deaths and self._quarantine.holds(record):
            self._keep(segment, entry, "decoding it has ended the pipeline three times", self._aside)
            return []
        self._quarantine.note(record)
        try:
            return [self._decoded(entry)]
        except Exception as error:  # noqa: BLE001 - whatever is in it, one record must not stop the others
            # The error's type only: its text may quote the record.
            self._keep(segment, entry, type(error).__name__, self._aside)
            return []
        finally:
            self._quarantine.clear()

    def _decoded(self, entry: Entry) -> Decoded[T]:
        if entry.kind == ADDRESSED:
            found = address.decode(entry.payload)
            return Decoded(self._of_kind(found.kind)(found.payload), found)
        return Decoded(self._of_kind(entry.kind)(entry.payload))

    def _of_kind(self, kind: int) -> Callable[[bytes], T]:
        try:
            return self._decode[kind]
        except KeyError:
            raise ValueError(f"records of kind {kind} are not known") from None

    def _keep(self, segment: Path, entry: Entry, why: str, directory: Path) -> None:
        path = directory / f"{segment.stem}-{entry.end}.record"
        if path.exists():  # met before: by the head, by another lane or before a restart
            return
        held = self._quarantine.holds(f"{segment.name}@{entry.end}")
        self.failed += not held
        self.quarantined += held
        logger.error("%s: the record before offset %d cannot be decoded (%s): kept aside", segment.name, entry.end, why)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if directory.name == "newer" or sum(1 for _ in directory.iterdir()) < _KEPT:
                path.touch(mode=0o600)
                path.write_bytes(entry.payload)
        except OSError as error:
            logger.warning("an undecodable record cannot be kept: %s", error.strerror)
