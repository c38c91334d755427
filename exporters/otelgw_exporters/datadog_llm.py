"""Datadog LLM Observability: a span of each call.

At the site the public API takes them (``/api/intake/llm-obs/v1/trace/spans``). An agent passes on only what Datadog's
own SDK sends, by its EVP proxy, so an agent gets that form.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from otelgw_exporters import catalog, document, options, payload
from otelgw_exporters.calls import Call
from otelgw_exporters.datadog_intake import LARGEST, Place, cut, intake, tag, tags_of
from otelgw_exporters.delivery import Reply
from otelgw_exporters.errors import naming
from otelgw_exporters.http import origin
from otelgw_exporters.posting import Limits, Piece, Posting, Undeliverable

__all__ = ["DatadogLlmExporter"]

_PLACE = Place("api", "/api/intake/llm-obs/v1/trace/spans", "/evp_proxy/v4/api/v2/llmobs")
_AGENT_HEADERS = {"x-datadog-evp-subdomain": "llmobs-intake"}
_LIMITS = Limits(1000, 4_500_000)  # Datadog's is 5 MB
_SECOND = 1_000_000_000
_ML_APP = re.compile(r"[^a-z0-9_\-:./]+")
_KINDS = {"aembedding": "embedding"}
_NO_PARENT = "undefined"


class DatadogLlmExporter(Posting):
    """Sends spans. Keywords are the options of the catalog row ``datadog_llm_observability``; what is missing is read
    from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or there is no API key.
    """

    def __init__(self, *, name: str = "datadog_llm_observability", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("datadog_llm_observability"), given)
            self._intake = intake(name, chosen, _PLACE, _AGENT_HEADERS)
        super().__init__(name, timeout=chosen["timeout"], limits=_LIMITS)
        self._chosen = chosen
        self._max_age: int = chosen["max_age"]
        self._agent = bool(chosen["agent_host"])
        self._ml_app = _ML_APP.sub("_", (chosen["ml_app"] or chosen["service"]).lower())[:193] or "otelgw"

    def encode(self, call: Call) -> bytes | None:
        if time.time() - (call.span.start_time or 0) / _SECOND > self._max_age:
            raise Undeliverable("it is so old that Datadog would drop it without a word")
        text = payload.encoded(call)
        data = self._encoded(call, document.read(text))
        return data if len(data) <= LARGEST else self._encoded(call, cut(document.read(text), len(text)))

    def _encoded(self, call: Call, read: dict[str, Any]) -> bytes:
        span = self._span(call, read)
        return document.write(_as_sdk(span) if self._agent else span)

    def _span(self, call: Call, read: dict[str, Any]) -> dict[str, Any]:
        start, end = call.span.start_time or 0, call.span.end_time or 0
        own = [tag("ml_app", self._ml_app), *tags_of(self._chosen, read)]
        span: dict[str, Any] = {
            "trace_id": read["otelgw"]["trace_id"],
            "span_id": str(int(read["otelgw"]["span_id"] or "0", 16)),
            "parent_id": _NO_PARENT,
            "name": call.span.name,
            "start_ns": start,
            "duration": max(0, end - start),
            "status": "error" if read["status"] == "failure" else "ok",
            "tags": [*own, tag("user_id", read["end_user"])] if read["end_user"] else own,
            "meta": _meta(read),
            "metrics": dict(_metrics(read)),
        }
        session = read["otelgw"]["session_id"]
        return span | {"session_id": session} if session else span

    def send(self, part: Sequence[Piece], deadline: float) -> Reply:
        spans = b",".join(piece.data for piece in part)
        if self._agent:
            return self._intake.send(b"[" + spans + b"]", deadline)
        attributes = document.write({"ml_app": self._ml_app, "tags": [tag("ml_app", self._ml_app)]})
        body = b'{"data":{"type":"span","attributes":' + attributes[:-1] + b',"spans":[' + spans + b"]}}}"
        return self._intake.send(body, deadline)

    def shutdown(self) -> None:
        super().shutdown()
        self._intake.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {origin(self._intake.url)}>"


def _meta(read: Mapping[str, Any]) -> dict[str, Any]:
    kind = _KINDS.get(read["call_type"], "llm")
    meta: dict[str, Any] = {"kind": kind, "input": _input(kind, read["messages"]), "metadata": _metadata(read)}
    if kind == "llm":
        meta["output"] = {"messages": list(_said(read["response"]))}
    elif isinstance(vectors := read["response"].get("data"), list):
        meta["output"] = {"value": f"[{len(vectors)} embedding(s)]"}
    if read["status"] == "failure":
        told = read["error_information"]
        meta["error"] = {"message": told["error_message"], "type": told["error_class"], "stack": told["traceback"]}
    return meta


def _input(kind: str, messages: Sequence[Any]) -> dict[str, Any]:
    if kind == "embedding":
        return {"documents": [{"text": _text(_content(message))} for message in messages]}
    return {"messages": [_message(message) for message in messages]}


def _said(response: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of an answer, of whichever API."""
    for choice in response.get("choices") or ():
        if isinstance(choice, dict):
            message = choice.get("message")
            yield _message(message if message is not None else {"role": "assistant", "content": choice.get("text")})
    for item in response.get("output") or ():
        if isinstance(item, dict) and item.get("type") == "message":
            yield _message(item)


def _message(message: Any) -> dict[str, Any]:
    """Return a message in Datadog's form: the content is text, whatever it was."""
    if not isinstance(message, dict):
        return {"role": "user", "content": _text(message)}
    made: dict[str, Any] = {"role": str(message.get("role") or "user"), "content": _text(message.get("content"))}
    calls = [_tool_call(each) for each in message.get("tool_calls") or () if isinstance(each, dict)]
    return made | {"tool_calls": calls} if calls else made


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    inner = call.get("function") or call.get("custom")
    held: Mapping[str, Any] = inner if isinstance(inner, dict) else call
    given = held.get("arguments", held.get("input"))
    arguments = document.read(given)
    return {
        "name": str(held.get("name") or ""),
        "arguments": arguments if isinstance(arguments, dict) else {"value": given},
        "tool_id": str(call.get("id") or ""),
        "type": str(call.get("type") or "function"),
    }


def _content(message: Any) -> Any:
    return message.get("content") if isinstance(message, dict) else message


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if all(isinstance(text, str) for text in texts):
        return "\n".join(map(str, texts))
    return document.write(content).decode()


def _metadata(read: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Datadog takes as metadata: text, numbers and truths."""
    held = {**read["metadata"]["requester_metadata"], **read["model_parameters"]}
    found = {key: value for key, value in held.items() if isinstance(value, str | int | float) and value != ""}
    return {
        **found,
        "model_name": read["response"].get("model") or read["model"],
        "model_provider": read["custom_llm_provider"] or "custom",
        "call_id": read["id"],
    }


def _metrics(read: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    usage, beyond = read["metadata"]["usage_object"], read["otelgw"]
    if beyond["usage_source"] != "none":
        yield "input_tokens", read["prompt_tokens"]
        yield "output_tokens", read["completion_tokens"]
        yield "total_tokens", read["total_tokens"]
        cached = (usage["prompt_tokens_details"] or {}).get("cached_tokens")
        reasoning = (usage["completion_tokens_details"] or {}).get("reasoning_tokens")
        yield from ((name, value) for name, value in (
            ("cache_read_input_tokens", cached), ("reasoning_output_tokens", reasoning)
        ) if value is not None)  # fmt: skip
    for name in ("input_cost", "output_cost", "total_cost"):
        value = (read["cost_breakdown"] or {}).get(name)
        if value is not None:
            yield name, value
    if beyond["time_to_first_chunk"] is not None:
        yield "time_to_first_token", beyond["time_to_first_chunk"]


def _as_sdk(span: dict[str, Any]) -> dict[str, Any]:
    """Return a span in the envelope of Datadog's SDK."""
    meta = dict(span["meta"])
    kind, metadata = meta.pop("kind"), dict(meta.pop("metadata"))
    model = {name: metadata.pop(name) for name in ("model_name", "model_provider")}
    identity = {"span_id": span["span_id"], "trace_id": span["trace_id"], "apm_trace_id": span["trace_id"]}
    return {
        "_dd.stage": "raw",
        "_dd.tracer_version": "otelgw",
        "event_type": "span",
        "spans": [{**span, "meta": {"span": {"kind": kind}, **meta, **model, "metadata": metadata}, "_dd": identity}],
    }
