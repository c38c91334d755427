"""OpenMeter: a CloudEvent for each successful call. Its id is the call's, so that one that comes twice counts once."""

from __future__ import annotations

from typing import Any

from otelgw_exporters import semconv
from otelgw_exporters.calls import Call
from otelgw_exporters.failure import failure_of
from otelgw_exporters.json_vendor import JsonVendor
from otelgw_exporters.reading import Reading, iso_time

__all__ = ["OpenmeterExporter"]

_SOURCE = "otelgw"
_HINTS = {412: "a precondition is not met: mend the meter or the subject in OpenMeter"}


class OpenmeterExporter(JsonVendor):
    """OpenMeter. Keywords are the options of the catalog row ``openmeter``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or the key is missing.
    """

    ROW = "openmeter"
    CALLS = 100
    CONTENT_TYPE = "application/cloudevents-batch+json"
    HINTS = _HINTS

    def document_of(self, call: Call, reading: Reading) -> dict[str, Any] | None:
        """Return the event; None for a failed call, which is not to be billed."""
        attempt = call.attempts[-1] if call.attempts else None
        if failure_of(call.span, call.server, attempt).type or reading.role == "server":
            return None
        data = {
            "model": reading.model,
            "provider": reading.text(semconv.GEN_AI_PROVIDER_NAME),
            "prompt_tokens": reading.input_tokens,
            "completion_tokens": reading.output_tokens,
            "total_tokens": reading.total_tokens,
            "cached_tokens": reading.cache_read_tokens,
            "reasoning_tokens": reading.reasoning_tokens,
            "cost": reading.cost,
            "duration_ms": (reading.end - reading.start) // 1_000_000,
            "team": reading.text(semconv.OTELGW_TEAM_ID),
            "key": reading.text(semconv.OTELGW_KEY_ALIAS),
        }
        return {
            "specversion": "1.0",
            "id": call.identity,
            "source": _SOURCE,
            "type": self.options["event_type"],
            "subject": self._subject(reading),
            "time": iso_time(reading.end),
            "data": {key: value for key, value in data.items() if value is not None},
        }

    def _subject(self, reading: Reading) -> str:
        """Return who is to pay: the key or its team, unless the caller's word for it is trusted."""
        named = reading.user if self.options["trust_user"] else None
        whose = (semconv.OTELGW_TEAM_ID, semconv.OTELGW_KEY_ALIAS, semconv.OTELGW_KEY_HASH)
        return named or next(filter(None, map(reading.text, whose)), None) or self.options["subject"]
