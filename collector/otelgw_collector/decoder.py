"""Decoding that no record can stop: what cannot be decoded is kept aside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from otelgw_collector import address
from otelgw_collector.address import Address
from otelgw_collector.aside import Aside
from otelgw_collector.quarantine import Quarantine
from otelgw_collector.segment_format import ADDRESSED, INTENT, SETTLED, VERSION, Entry

__all__ = ["Decoder"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SILENT = frozenset({INTENT, SETTLED})


class Decoder(Generic[T]):
    """Calls the function in ``decode`` for a record's kind. A record on which it fails is set ``aside``.

    ``failed`` counts those that could not be decoded, ``quarantined`` those that are not tried any more, and ``newer``
    those that a newer otelgw wrote.
    """

    def __init__(self, decode: Mapping[int, Callable[[bytes], T]], aside: Aside, quarantine: Quarantine) -> None:
        self._decode = decode
        self._aside = aside
        self._quarantine = quarantine
        self._named: tuple[Path | None, str] = (None, "")
        self.failed = 0
        self.quarantined = 0
        self.newer = 0

    def __call__(self, segment: Path, entry: Entry) -> list[tuple[T, Address | None]]:
        """Return the decoded record as a list of one, with its address if it is not for everybody; an empty list if it
        is none or cannot be decoded.
        """
        if entry.kind in _SILENT and entry.version <= VERSION:
            return []
        known = self._named  # of the record before this one, which mostly is in the same segment
        if known[0] is not segment:
            known = self._named = (segment, segment.name)
        record = f"{known[1]}@{entry.end}"
        if entry.version > VERSION:
            self._keep(segment, entry, "it was written by a newer otelgw", newer=True)
            return []
        if self._quarantine.deaths and self._quarantine.holds(record):
            self._keep(segment, entry, "decoding it has ended the pipeline three times")
            return []
        self._quarantine.note(record)
        try:
            decode = self._decode.get(entry.kind)
            return [(decode(entry.payload), None) if decode is not None else self._decoded(entry)]
        except Exception as error:  # noqa: BLE001 - whatever is in it, one record must not stop the others
            # The error's type only: its text may quote the record.
            self._keep(segment, entry, type(error).__name__)
            return []
        finally:
            self._quarantine.clear()

    def _decoded(self, entry: Entry) -> tuple[T, Address | None]:
        if entry.kind == ADDRESSED:
            found = address.decode(entry.payload)
            return self._of_kind(found.kind)(found.payload), found
        return self._of_kind(entry.kind)(entry.payload), None

    def _of_kind(self, kind: int) -> Callable[[bytes], T]:
        try:
            return self._decode[kind]
        except KeyError:
            raise ValueError(f"records of kind {kind} are not known") from None

    def _keep(self, segment: Path, entry: Entry, why: str, *, newer: bool = False) -> None:
        if not self._aside.keep(f"{segment.stem}-{entry.end}", entry.payload, newer=newer):
            return
        if newer:
            self.newer += 1
        elif self._quarantine.holds(f"{segment.name}@{entry.end}"):
            self.quarantined += 1
        else:
            self.failed += 1
        logger.error("%s: the record before offset %d cannot be decoded (%s): kept aside", segment.name, entry.end, why)
