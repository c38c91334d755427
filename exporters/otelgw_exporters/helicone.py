"""Helicone's custom model logging: what was asked and answered, as it was, and its labels as headers among the data."""

from __future__ import annotations

from typing import Any

from otelgw_exporters import content, semconv
from otelgw_exporters.calls import Call
from otelgw_exporters.failure import failure_of
from otelgw_exporters.json_vendor import JsonVendor
from otelgw_exporters.reading import Reading

__all__ = ["HeliconeExporter"]

_SECOND, _MILLISECOND = 1_000_000_000, 1_000_000


class HeliconeExporter(JsonVendor):
    """Helicone. Keywords are the options of the catalog row ``helicone``; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or the key is missing.
    """

    ROW = "helicone"

    def document_of(self, call: Call, reading: Reading) -> dict[str, Any]:
        asked, answered = content.read_bodies(reading.held)
        failure = failure_of(call.span, call.server, call.attempts[-1] if call.attempts else None)
        status = int(failure.code) if failure.code.isdecimal() else 500 if failure.type else 200
        request: dict[str, Any] = dict(asked) or {"model": reading.model, "messages": reading.messages}
        answer: dict[str, Any] = dict(answered)
        if not answer and reading.choices:
            answer = {"model": reading.model, "choices": reading.choices}
        if reading.total_tokens is not None and "usage" not in answer:
            counts = (reading.input_tokens or 0, reading.output_tokens or 0, reading.total_tokens)
            answer["usage"] = dict(zip(("prompt_tokens", "completion_tokens", "total_tokens"), counts, strict=True))
        if failure.type and "error" not in answer:
            answer["error"] = {"message": failure.message or failure.type}
        return {
            "providerRequest": {"url": "custom-model-nopath", "json": request, "meta": self._meta(call, reading)},
            "providerResponse": {"status": status, "json": answer, "headers": {}},
            "timing": {"startTime": _moment(reading.start), "endTime": _moment(reading.end)},
        }

    def _meta(self, call: Call, reading: Reading) -> dict[str, str]:
        named = {
            "Helicone-User-Id": reading.user,
            "Helicone-Session-Id": reading.session,
            "Helicone-Property-OtelId": call.identity,
            "Helicone-Property-Provider": reading.text(semconv.GEN_AI_PROVIDER_NAME),
            "Helicone-Property-Tags": ",".join(reading.tags),
        }
        named |= {f"Helicone-Property-{key}": str(value) for key, value in reading.metadata.items()}
        return {key: value for key, value in named.items() if value}


def _moment(time_ns: int) -> dict[str, int]:
    return {"seconds": time_ns // _SECOND, "milliseconds": time_ns % _SECOND // _MILLISECOND}
