"""OTLP's JSON mapping: protobuf's, but for ids, which are in hex (OTLP specification, "JSON Protobuf Encoding")."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["from_json", "to_json"]

_IDS = ("traceId", "spanId", "parentSpanId")


def from_json(body: bytes) -> ExportTraceServiceRequest:
    """Return the request in ``body``. An id that is no hex becomes one that is not valid; unknown fields are ignored.

    Raises:
        ValueError: the body is no such request.
    """
    try:
        data = json.loads(body.decode("utf-8"))
        if not isinstance(data, dict):
            raise TypeError("the top level is no object")
        for holder in _holders(data):
            for name in _IDS:
                if name in holder:
                    holder[name] = _base64_of_hex(holder[name])
        request = ExportTraceServiceRequest()
        json_format.ParseDict(data, request, ignore_unknown_fields=True)
    except (json_format.Error, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # The type only: the text may quote what was sent.
        raise ValueError(f"the body is no ExportTraceServiceRequest in JSON ({type(error).__name__})") from None
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    return request


def to_json(message: Message) -> bytes:
    """Return an answer: enums as numbers, 64-bit integers as text."""
    return json.dumps(json_format.MessageToDict(message, use_integers_for_enums=True)).encode()


def _holders(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield everything in ``request`` that has ids: spans and their links."""
    for resource in _mappings(request.get("resourceSpans")):
        for scope in _mappings(resource.get("scopeSpans")):
            for span in _mappings(scope.get("spans")):
                yield span
                yield from _mappings(span.get("links"))


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _base64_of_hex(value: Any) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(value)).decode()
    except (ValueError, TypeError):
        return base64.b64encode(b"?").decode()
