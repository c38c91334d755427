"""What a request used, in tokens and USD, read from its answer when it has ended: for the limits of its key.

Where an answer does not say (an upstream that reports nothing, a stream that the caller cut off) it is estimated, or
leaving early would be free: four characters of text are a token, and so is each event of a stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otelgw.dialects.facts import Usage
from otelgw.dialects.registry import dialect
from otelgw.dialects.sse import is_stream
from otelgw.http.exchange import Exchange
from otelgw.tracing.bodies import Body, readable
from otelgw.tracing.cost import cost
from otelgw_exporters import semconv

__all__ = ["consumption"]

_ERROR = 400
_CHARACTERS = 4  # of a token
_EVENT = b"data:"
_NO_TEXT = frozenset({"blob", "file", "uri"})  # kinds of message parts


def consumption(exchange: Exchange) -> tuple[int, float]:
    """Return tokens and USD of a request whose bodies are captured; (0, 0.0) for one that generated nothing."""
    target = exchange.target
    if not target.operation or not exchange.status or exchange.status >= _ERROR:
        return 0, 0.0
    answer = readable(exchange.response)
    content_type = exchange.response.content_type
    facts = dialect(target.dialect).read_response(answer.head, content_type, stream=exchange.stream, tail=answer.tail)
    usage = facts.usage
    if usage is None or (usage.input is None and usage.output is None):
        usage = _estimated(exchange, answer, facts.content)
    amount = exchange.cost if exchange.cost is not None else usage.cost
    if amount is None and target.price is not None:
        model = facts.attributes.get(semconv.GEN_AI_RESPONSE_MODEL) or ""
        amount = cost(target.price, usage, model, time_ns=exchange.started_wall)
    return (usage.input or 0) + (usage.output or 0), amount or 0.0


def _estimated(exchange: Exchange, answer: Body, content: Mapping[str, Any]) -> Usage:
    asked = readable(exchange.request)
    request = dialect(exchange.target.dialect).read_request(asked.head, exchange.request.content_type, tail=asked.tail)
    made = _characters(content) // _CHARACTERS
    if is_stream(exchange.response.content_type, exchange.stream) and answer.head:
        held = len(answer.head) + len(answer.tail)
        events = answer.head.count(_EVENT) + answer.tail.count(_EVENT)
        made = max(made, events * max(exchange.response.size, held) // held)
    return Usage(input=_characters(request.content) // _CHARACTERS, output=made)


def _characters(value: Any) -> int:
    """Return how much text there is in messages; images and files are none."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return 0 if value.get("type") in _NO_TEXT else sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0
