"""Lunary: a call is two events, its start and its end or error, and the answer says of each what became of it.

Cost is computed there. Both events go in one request, the start first: an end without its start is lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from otelgw_exporters import document, http, semconv
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import Reply, Verdict
from otelgw_exporters.json_vendor import JsonVendor
from otelgw_exporters.posting import Piece
from otelgw_exporters.reading import Reading, iso_time

__all__ = ["LunaryExporter", "events"]

_NAMESPACE = uuid.UUID("5b7c1f7e-2b53-5f10-8f5d-1f2a6a0d9c12")
_EXISTS = "already exists"


class LunaryExporter(JsonVendor):
    """Lunary. Keywords are the options of the catalog row ``lunary``; what is missing is read from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or the key is missing.
    """

    ROW = "lunary"
    CALLS = 100
    HINTS = {402: "the key has the wrong form: mend the destination's key"}  # noqa: RUF012 - not changed

    def document_of(self, call: Call, reading: Reading) -> list[dict[str, Any]]:
        return events(call, reading)

    def body(self, part: Sequence[Piece]) -> bytes:
        return b'{"events":[' + b",".join(piece.data[1:-1] for piece in part) + b"]}"

    def judge(self, answer: http.Answer, part: Sequence[Piece]) -> Reply:
        reply = super().judge(answer, part)
        if reply.kind == "accepted":
            told = document.read(answer.body)
            results = told.get("results") if isinstance(told, dict) else None
            by_run = {run_id(piece.call): piece.call for piece in part}
            for each in results if isinstance(results, list) else ():
                if not isinstance(each, dict) or each.get("success") is not False:
                    continue
                reason = self.mask(str(each.get("error") or "refused"))
                if str(each.get("id")) in by_run and _EXISTS not in reason:
                    self.tell(by_run[str(each["id"])], Verdict("dead", reason))
        return reply


def run_id(call: Call) -> str:
    return str(uuid.uuid5(_NAMESPACE, call.identity))


def _metadata(call: Call, reading: Reading) -> dict[str, Any]:
    """Return what Lunary keeps of metadata: texts, numbers, truths and lists of them."""
    simple = (str, int, float, bool, list, tuple)
    kept = {key: value for key, value in reading.metadata.items() if isinstance(value, simple)}
    labels = {"session_id": reading.session, "provider": reading.text(semconv.GEN_AI_PROVIDER_NAME)}
    return kept | {key: value for key, value in labels.items() if value} | {"otel_id": call.identity}


def events(call: Call, reading: Reading) -> list[dict[str, Any]]:
    """Return the start and the end of a call."""
    common = {"type": "embed" if reading.get(semconv.GEN_AI_OPERATION_NAME) == "embeddings" else "llm"}
    common |= {"runId": run_id(call), "name": reading.text(semconv.GEN_AI_REQUEST_MODEL) or reading.span.name}
    start: dict[str, Any] = {
        **common,
        "event": "start",
        "timestamp": iso_time(reading.start),
        "userId": reading.user,
        "tags": reading.tags or None,
        "metadata": _metadata(call, reading),
        "params": reading.parameters | ({"tools": reading.tools} if reading.tools else {}),
        "extra": reading.parameters,
        "input": reading.messages or None,
    }
    end: dict[str, Any] = {**common, "timestamp": iso_time(reading.end)}
    if reading.error is not None:
        end |= {"event": "error", "error": {"message": reading.error or "error"}}
    else:
        end |= {"event": "end", "output": reading.answer}
    if reading.total_tokens is not None:
        usage = {
            "prompt": reading.input_tokens,
            "completion": reading.output_tokens,
            "promptCached": reading.cache_read_tokens,
        }
        end["tokensUsage"] = {key: value for key, value in usage.items() if value is not None}
    return [{key: value for key, value in event.items() if value is not None} for event in (start, end)]
