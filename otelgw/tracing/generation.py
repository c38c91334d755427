"""What a generation was: its parameters, messages, usage, cost and error, read from a record's bodies.

Where content may not be recorded, the gateway reads the bodies while it has them (``facts_without_content``) and the
record holds the result in place of the bodies; what comes out here is then the same, without content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from otelgw.dialects import sse
from otelgw.dialects.credentials import redacted_text
from otelgw.dialects.facts import NOTHING, Facts, Usage
from otelgw.dialects.fields import cut
from otelgw.dialects.labels import from_metadata, is_label, joined
from otelgw.dialects.registry import dialect
from otelgw.errors import ANSWERS
from otelgw.tracing.bodies import Body, readable
from otelgw.tracing.record import Capture, Record, Target
from otelgw.tracing.usage import USAGE
from otelgw_exporters import semconv

__all__ = ["Generation", "cost_of", "facts_without_content", "read"]

_CLIENT_ERROR = 400
_OPENING = (b"{", b"[")
_TRUNCATED = "upstream_truncated"
_NO_JSON = "upstream_bad_response"
_FETCH = "fetch_response"  # the conventions: no usage for an answer that is only fetched again
_REFUSED_KEY = (401, 403)
# Messages of the gateway's own that can repeat what stands in a body.
_QUOTING = frozenset({"invalid_json", "invalid_request", "upstream_bad_response"})
_PLAIN_MESSAGES = frozenset(ANSWERS) - _QUOTING | {"client_disconnect", "worker_killed"}

_USAGE_FIELDS = frozenset(Usage.__struct_fields__)


class Generation(NamedTuple):
    """``labels`` belong on every span of the request, the rest on the generation's span.

    ``error_type`` is empty for a success; ``error_message`` is empty where it could carry content that may not be
    recorded, or a credential.
    """

    attributes: dict[str, Any]
    content: Mapping[str, Any]
    labels: dict[str, Any]
    error_type: str
    error_message: str


class _Bodies(NamedTuple):
    """What was read of the two bodies of a request."""

    request: Mapping[str, Any]
    response: Mapping[str, Any]
    content: Mapping[str, Any]
    usage: Usage | None
    error_type: str
    error_message: str


def read(record: Record) -> Generation:
    """Return what ``record`` says of its generation; of a route without one, its labels and its error."""
    bodies = _read_bodies(record, as_sent=True) if record.content else _bodies_from_facts(record.facts)
    attributes = dict(bodies.request)
    labels = {key: attributes.pop(key) for key in bodies.request if is_label(key)}
    if record.metadata:
        labels = joined(labels, from_metadata(record.metadata))
    if record.labels:
        labels = joined(labels, record.labels)
    attributes |= bodies.response
    if record.target.operation != _FETCH:
        attributes |= _usage_attributes(record, bodies.usage, bodies.response)
    return Generation(
        attributes,
        bodies.content,
        labels,
        record.error_type or _status_error(record.status) or bodies.error_type,
        _error_message(record, bodies),
    )


def _read_bodies(record: Record, *, as_sent: bool = False) -> _Bodies:
    """Read both bodies; ``as_sent`` adds them to the content as they are."""
    reader = dialect(record.target.dialect)
    asked, answered = readable(record.request), readable(record.response)
    content_type = record.response.content_type
    request = response = NOTHING
    if asked.head or asked.tail:
        request = reader.read_request(asked.head, record.request.content_type, tail=asked.tail)
    if answered.head or answered.tail or record.status:
        stream = record.stream and record.status < _CLIENT_ERROR
        response = reader.read_response(answered.head, content_type, stream=stream, tail=answered.tail)
    content = {**request.content, **response.content}
    if as_sent:
        _add_whole_bodies(content, record.status, asked, answered, response)
    return _Bodies(
        request.attributes,
        response.attributes,
        content,
        response.usage,
        response.error_type or _end_error(response, record.response, record.status, record.stream),
        response.error_message or _error_text(record.status, content_type, answered),
    )


def _add_whole_bodies(content: dict[str, Any], status: int, asked: Body, answered: Body, response: Facts) -> None:
    """Add the JSON of the two bodies, as far as it is there whole.

    The text of an upstream's refusal is left to ``_error_message``: it likes to repeat a key.
    """
    if _is_json(asked):
        content[semconv.OTELGW_REQUEST_BODY] = asked.head.decode("utf-8", "replace")
    if status >= _CLIENT_ERROR or answered.tail:
        return
    if response.answer is not None:
        try:
            content[semconv.OTELGW_RESPONSE_BODY] = msgspec.json.encode(response.answer).decode()
        except (ValueError, RecursionError):  # a lone surrogate, endless nesting
            return
    elif _is_json(answered):
        content[semconv.OTELGW_RESPONSE_BODY] = answered.head.decode("utf-8", "replace")


def _is_json(body: Body) -> bool:
    head = body.head
    return not body.tail and (head[:1] in _OPENING or head[:64].lstrip()[:1] in _OPENING)


def _end_error(facts: Facts, capture: Capture, status: int, stream: bool) -> str:
    """Return the error of an answer that ended in good order as HTTP, but not as the stream or JSON that it was."""
    recorded = bool(capture.head or capture.tail) or not capture.size
    if facts.complete or status >= _CLIENT_ERROR or not status or capture.encoding or not recorded:
        return ""
    if sse.is_stream(capture.content_type, stream):
        return _TRUNCATED
    return _NO_JSON if "json" in capture.content_type and not capture.tail else ""


def _error_text(status: int, content_type: str, body: Body) -> str:
    """Return the text of an error answer that is no JSON."""
    if status < _CLIENT_ERROR or "json" in content_type:
        return ""
    return cut(body.head[:2048].decode("utf-8", "replace").strip())


def _bodies_from_facts(facts: Mapping[str, Any]) -> _Bodies:
    given = facts.get("usage")
    usage = Usage(**{key: given[key] for key in given if key in _USAGE_FIELDS}) if given else None
    return _Bodies(
        facts.get("request") or {}, facts.get("response") or {}, {}, usage, str(facts.get("error_type") or ""), ""
    )


def facts_without_content(
    target: Target, request: Capture, response: Capture, status: int, stream: bool
) -> dict[str, Any]:
    """Return ``Record.facts`` for bodies that will not be recorded: attributes, usage and error type, no content.

    ``status`` is the answer's, ``stream`` says that one was asked for. Keys: ``request`` and ``response`` (attributes),
    ``usage`` (fields of ``Usage``), ``error_type``. The text of an upstream's error can repeat the prompt and is left
    out.
    """
    record = Record(
        call_id="", trace_id="", span_id="", start=0, target=target, request=request, response=response, status=status
    )
    record.stream = stream
    bodies = _read_bodies(record)
    facts: dict[str, Any] = {"request": dict(bodies.request), "response": dict(bodies.response)}
    if bodies.usage is not None:
        known = {field: getattr(bodies.usage, field) for field in _USAGE_FIELDS}
        facts["usage"] = {field: value for field, value in known.items() if value is not None}
    if bodies.error_type:
        facts["error_type"] = bodies.error_type
    return facts


def _usage_attributes(record: Record, usage: Usage | None, response: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {semconv.OTELGW_USAGE_SOURCE: "none"}
    if usage is not None:
        for field, attribute in USAGE:
            value = getattr(usage, field)
            if value is not None:
                found[attribute] = value
        if usage.input is not None or usage.output is not None:
            found[semconv.OTELGW_USAGE_SOURCE] = "provider"
    amount, source = cost_of(record, usage, response.get(semconv.GEN_AI_RESPONSE_MODEL) or "")
    if amount is not None:
        found[semconv.GEN_AI_USAGE_COST] = amount
        found[semconv.OTELGW_COST_AMOUNT] = amount
        found[semconv.OTELGW_COST_CURRENCY] = "USD"
        found[semconv.OTELGW_COST_SOURCE] = source
    return found


def cost_of(record: Record, usage: Usage | None, response_model: str) -> tuple[float | None, str]:
    """Return the cost in USD and who says so: the provider, or the price list it was computed with."""
    price = record.target.price
    reported = usage.cost if usage is not None else None
    computed_by = price.source if price is not None else "provider"
    if record.cost is not None:
        return record.cost, "provider" if record.cost == reported else computed_by
    if reported is not None:
        return reported, "provider"
    if usage is None or price is None:
        return None, ""
    from otelgw.tracing.cost import cost

    return cost(price, usage, response_model, time_ns=record.start), computed_by


def _status_error(status: int) -> str:
    return str(status) if status >= _CLIENT_ERROR else ""


def _error_message(record: Record, bodies: _Bodies) -> str:
    """Return the text for the span's status: the gateway's own message, else the upstream's."""
    own = record.error_message
    if own and (record.content or record.error_type in _PLAIN_MESSAGES):
        return redacted_text(cut(own))
    if not record.content or record.error_type == "unauthorized":
        return ""
    if record.status in _REFUSED_KEY:
        return bodies.error_type  # the text of such an answer likes to repeat the key
    return redacted_text(bodies.error_message)
