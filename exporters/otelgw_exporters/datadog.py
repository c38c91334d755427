"""Datadog Logs, API v2: a log of each call, its message the standard payload, as LiteLLM's ``datadog`` sends it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from otelgw_exporters import catalog, document, options, payload
from otelgw_exporters.calls import Call
from otelgw_exporters.datadog_intake import LARGEST, Place, cut, intake, tags_of
from otelgw_exporters.delivery import Reply
from otelgw_exporters.errors import naming
from otelgw_exporters.http import origin
from otelgw_exporters.posting import Limits, Piece, Posting, write_array

__all__ = ["DatadogExporter"]

_PLACE = Place("http-intake.logs", "/api/v2/logs", "/api/v2/logs")
_LIMITS = Limits(1000, 4_900_000)  # Datadog's are 1000 logs and 5 MB


class DatadogExporter(Posting):
    """Sends logs. Keywords are the options of the catalog row ``datadog``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or there is no API key.
    """

    def __init__(self, *, name: str = "datadog", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("datadog"), given)
            self._intake = intake(name, chosen, _PLACE, {})
        super().__init__(name, timeout=chosen["timeout"], limits=_LIMITS)
        self._chosen = chosen

    def encode(self, call: Call) -> bytes | None:
        text = payload.encoded(call)
        read = document.read(text)
        log = self._log(read, text.decode())
        data = document.write(log)
        if len(data) <= LARGEST:
            return data
        return document.write(log | {"message": document.write(cut(read, len(text))).decode()})

    def _log(self, read: dict[str, Any], message: str) -> dict[str, Any]:
        chosen = self._chosen
        at = read["startTime"]
        log = {
            "message": message,
            "ddsource": chosen["source"],
            "ddtags": ",".join(tags_of(chosen, read)),
            "service": chosen["service"],
            "status": "error" if read["status"] == "failure" else "info",
            "timestamp": _time(at),
            "trace_id": read["otelgw"]["trace_id"],
            "span_id": read["otelgw"]["span_id"],
        }
        if chosen["hostname"]:
            log["hostname"] = chosen["hostname"]
        if time.time() - at > chosen["max_age"]:
            # Datadog would drop it otherwise; the payload says when it was.
            log["timestamp"] = _time(time.time())
        return log

    def send(self, part: Sequence[Piece], deadline: float) -> Reply:
        return self._intake.send(write_array(part), deadline)

    def shutdown(self) -> None:
        super().shutdown()
        self._intake.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {origin(self._intake.url)}>"


def _time(seconds: float) -> str:
    """Return a time in RFC 3339: every further attribute of a log is text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
