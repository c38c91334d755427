"""Elasticsearch and OpenSearch by ``_bulk``: a document a span, in OpenTelemetry's data stream names and fields.

The documents are those of the Collector's elasticsearch exporter in its OTel mode, so that dashboards read both. A
document's id is the span's trace id and span id and it is only ever created, so that a span that is sent twice is
stored once (in one backing index: a stream that rolls over between two tries may hold it twice).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from otelgw_exporters import catalog, document, http, options
from otelgw_exporters.calls import identity
from otelgw_exporters.delivery import (
    DONE,
    OPERATOR_DELAY,
    UNUSABLE,
    Exporter,
    Outcome,
    Reply,
    Verdict,
    all_retry,
    deliver_in_parts,
    to_outcome,
)
from otelgw_exporters.elasticsearch_template import OPENSEARCH, STOCK, Flavor, template
from otelgw_exporters.errors import DestinationConfigError, naming
from otelgw_exporters.posting import classify, explanation, packed
from otelgw_exporters.semconv import profile_of
from otelgw_exporters.turn import offer_turn

__all__ = ["ElasticsearchExporter", "document_of"]

_SECOND = 1_000_000_000
_DOCUMENTS = 200  # in one request: the answer tells of each, and no more than its first 64 KiB are read
_ANSWER = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.]*")  # of a data stream's part: no hyphen, no upper case
_LONGEST = 100  # characters of such a part
_FIELD = re.compile(r"field \[([^\]]{1,100})\]")  # the reason goes on with a preview of the field's value
_OK, _DENIED = 200, 403
_REFUSAL = b" is unauthorized for "
_TAKEN = frozenset({200, 201, 409})  # 409: a try before this one has stored it
_AGAIN = frozenset({408, 429, *range(500, 600)})
_OPERATOR = {
    401: "the credentials are not accepted: mend api_key, or username and password",
    403: "the key or user may not write there: mend its rights (create_doc and auto_configure on traces-*)",
    404: "no index template makes this a data stream: mend it by template: true, or put one",
}
_TEMPLATE_DENIED = (
    "the key or user may not put an index template (manage_index_templates): mend that, or set template: false"
)


@dataclass(frozen=True, slots=True)
class _Stream:
    """The parts of a data stream's name."""

    dataset: str
    namespace: str

    @property
    def name(self) -> str:
        return f"traces-{self.dataset}-{self.namespace}"

    @property
    def facts(self) -> dict[str, str]:
        return {"type": "traces", "dataset": self.dataset, "namespace": self.namespace}


class _Entry(NamedTuple):
    """A span as two lines of a bulk request, and where it stands in what was given."""

    data: bytes
    position: int


class ElasticsearchExporter(Exporter):
    """Keywords are the options of the catalog row ``elasticsearch``; what is missing is read from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used.
    """

    def __init__(self, *, name: str = "elasticsearch", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("elasticsearch"), given)
            authorization = _authorization(chosen)
            self._stream = _stream(chosen)
        super().__init__(name, chosen["timeout"])
        self._url = str(chosen["endpoint"]).rstrip("/")
        self._gzip = chosen["compression"] == "gzip"
        self._max_bytes: int = chosen["max_request_bytes"]
        self._shape = profile_of(chosen).attributes
        self._templated = not chosen["template"]
        self._strict = False  # the server is known to take require_data_stream
        secrets = {key: str(chosen[key] or "") for key in ("api_key", "password")}
        self._mask = http.Masked({**authorization, **secrets})
        tls = http.Tls(chosen["certificate"] or "")
        tls.check(name)
        fixed = {"user-agent": "otelgw", "accept-encoding": "identity"}
        self._http = http.client(name, headers=fixed | authorization, tls=tls)

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if self._stopped.is_set():
            return all_retry(len(spans), "the destination is shut down")
        verdicts = [DONE] * len(spans)
        entries: list[_Entry] = []
        for position, span in enumerate(spans):
            offer_turn()
            try:
                entries.append(_Entry(self._lines(span), position))
            except UNUSABLE as error:
                verdicts[position] = Verdict("dead", f"the span cannot be encoded ({type(error).__name__})")
        told: dict[int, Verdict] = {}

        def send(part: Sequence[_Entry]) -> Reply:
            return self._send(part, deadline, told)

        parts = deliver_in_parts(_runs(entries, self._max_bytes), send, deadline)
        for entry, verdict in zip(entries, to_outcome(parts).verdicts, strict=True):
            verdicts[entry.position] = told.get(entry.position, verdict)
        return Outcome(tuple(verdicts))

    def _lines(self, span: ReadableSpan) -> bytes:
        action = document.write({"create": {"_id": identity(span)}})
        attributes = self._shape(span.attributes or {})
        return action + b"\n" + document.write(document_of(span, attributes, self._stream.facts)) + b"\n"

    def _send(self, part: Sequence[_Entry], deadline: float, told: dict[int, Verdict]) -> Reply:
        """Send one bulk request; what became of single documents goes to ``told``, by their positions."""
        waiting = next((verdict for verdict in told.values() if verdict.state == "retry"), None)
        if waiting is not None:  # a document of this delivery was sent away for now: so would these be
            return Reply("again", waiting.reason, waiting.after)
        if refusal := self._prepare(deadline):
            return refusal
        body = b"".join(entry.data for entry in part)
        strict = "&require_data_stream=true" if self._strict else ""
        answer = self._post(f"/{self._stream.name}/_bulk?{_ANSWER}{strict}", "application/x-ndjson", body, deadline)
        if isinstance(answer, Reply):
            return answer
        reply = classify(answer, self._mask(explanation(answer)), _OPERATOR)
        return self._read(answer, part, told) if reply.kind == "accepted" else reply

    def _read(self, answer: http.Answer, part: Sequence[_Entry], told: dict[int, Verdict]) -> Reply:
        tree = document.read(answer.body)
        if isinstance(tree, dict) and tree.get("errors") is False:
            return Reply("accepted")
        items = tree.get("items") if isinstance(tree, dict) else None
        if not isinstance(items, list) or len(items) != len(part):
            # The answer is longer than what is read of it, or none of a bulk request's: fewer documents, a shorter one.
            reason = f"HTTP {answer.status}: no answer of a bulk request: mend the endpoint"
            return Reply("too_large", reason) if len(part) > 1 else Reply("again", reason, OPERATOR_DELAY)
        for entry, item in zip(part, items, strict=True):
            verdict = self._verdict(item)
            if verdict is not DONE:
                told[entry.position] = verdict
        return Reply("accepted")

    def _verdict(self, item: Any) -> Verdict:
        """Return what became of one document; its values, which the server may quote, are not repeated."""
        result = next(iter(item.values()), None) if isinstance(item, dict) else None
        status = result.get("status") if isinstance(result, dict) else None
        if not isinstance(result, dict) or not isinstance(status, int):
            return Verdict("retry", "the answer does not tell what became of the document")
        if status in _TAKEN:
            return DONE
        error = result.get("error")
        error = error if isinstance(error, dict) else {}
        reason = f"HTTP {status}: {self._mask(str(error.get('type', '')))}"
        if status in _AGAIN:
            return Verdict("retry", reason)
        if status in _OPERATOR:
            return Verdict("retry", f"{reason} ({_OPERATOR[status]})", OPERATOR_DELAY)
        field = _FIELD.search(str(error.get("reason", "")))
        return Verdict("dead", f"{reason}: field {self._mask(field[1])}" if field else reason)

    def _prepare(self, deadline: float) -> Reply | None:
        """Put the index template, once; return why that cannot be done for now.

        Elasticsearch's own template for OTel traces has a higher priority, and applies where there is one.
        """
        if self._templated:
            return None
        answer = self._put_template(STOCK, deadline)
        if isinstance(answer, http.Answer) and answer.status == 400 and not _genuine(answer):
            answer = self._put_template(OPENSEARCH, deadline)
        if isinstance(answer, Reply):
            return answer
        reply = classify(answer, self._mask(explanation(answer)), {**_OPERATOR, 403: _TEMPLATE_DENIED})
        # A key may have rights for documents only: the stream has its template, or Elasticsearch refuses the documents.
        if reply.kind == "accepted" or (answer.status == _DENIED and _genuine(answer)):
            self._templated, self._strict = True, _genuine(answer)
            return None
        return Reply("again", f"the index template: {reply.reason}", reply.after or OPERATOR_DELAY)

    def _put_template(self, flavor: Flavor, deadline: float) -> http.Answer | Reply:
        path = f"/_index_template/otelgw-traces-{self._stream.dataset}"
        return self._post(path, "application/json", document.write(template(self._stream.dataset, flavor)), deadline)

    def _post(self, path: str, kind: str, body: bytes, deadline: float) -> http.Answer | Reply:
        headers = {"content-type": kind}
        if self._gzip:
            headers["content-encoding"] = "gzip"
            body = packed(body)
        return http.send(self._http, self._url + path, body, deadline, self._mask, headers)

    def read_back(self, spans: Sequence[ReadableSpan], deadline: float) -> str:
        """Return nothing if every one of ``spans`` is found in the data stream; else what is wrong.

        Raises:
            PermissionError: the key or user may write there, and not read.
        """
        query = document.write({"query": {"ids": {"values": [identity(span) for span in spans]}}})
        answer = self._post(f"/{self._stream.name}/_count", "application/json", query, deadline)
        if isinstance(answer, Reply):
            return answer.reason
        if answer.status == _DENIED:
            raise PermissionError("the key or user may not read there")
        if answer.status != _OK:
            return classify(answer, self._mask(explanation(answer))).reason
        tree = document.read(answer.body)
        found = tree.get("count") if isinstance(tree, dict) else None
        return "" if found == len(spans) else f"{found or 0} of {len(spans)} documents are there"

    def shutdown(self) -> None:
        super().shutdown()
        self._http.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {http.origin(self._url)} {self._stream.name}>"


def _genuine(answer: http.Answer) -> bool:
    """Say whether it is Elasticsearch that answers: OpenSearch knows neither its mappings nor its parameters.

    Where rights are missing Elasticsearch leaves its header out; OpenSearch says "no permissions for" then.
    """
    return "x-elastic-product" in answer.headers or (answer.status == _DENIED and _REFUSAL in answer.body)


def document_of(span: ReadableSpan, attributes: Mapping[str, Any], stream: Mapping[str, str]) -> dict[str, Any]:
    """Return a span as the Collector's elasticsearch exporter writes it in OTel mode; ``duration`` is in nanoseconds.

    ``attributes`` are the span's, as the destination reads them; ``stream`` names the data stream.
    """
    context, start = span.context, span.start_time or 0
    made: dict[str, Any] = {"@timestamp": _time(start), "data_stream": dict(stream)}
    if context is not None:
        made |= {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}
        if state := context.trace_state.to_header() if context.trace_state else "":
            made["trace_state"] = state
    if span.parent is not None:
        made["parent_span_id"] = format_span_id(span.parent.span_id)
    made |= {
        "name": span.name,
        "kind": span.kind.name.capitalize(),
        "duration": max(0, (span.end_time or start) - start),
        "attributes": dict(attributes),
        "links": [_link(link.context, link.attributes) for link in span.links],
        "status": _status(span),
        "resource": {"attributes": dict(span.resource.attributes) if span.resource else {}},
    }
    if scope := span.instrumentation_scope:
        made["scope"] = {"name": scope.name} | ({"version": scope.version} if scope.version else {})
    if span.events:
        made["events"] = [
            {"name": event.name, "@timestamp": _time(event.timestamp), "attributes": dict(event.attributes or {})}
            for event in span.events
        ]
    return made


def _link(context: Any, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
        "attributes": dict(attributes or {}),
    }


def _status(span: ReadableSpan) -> dict[str, str]:
    code = span.status.status_code
    if code is StatusCode.UNSET:
        return {}
    return {"code": code.name.capitalize()} | ({"message": span.status.description} if span.status.description else {})


def _time(nanoseconds: int) -> str:
    """Return a time with all of its nanoseconds, which the field's type keeps."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _runs(entries: Sequence[_Entry], max_bytes: int) -> list[Sequence[_Entry]]:
    runs: list[Sequence[_Entry]] = []
    run: list[_Entry] = []
    size = 0
    for entry in entries:
        if run and (len(run) >= _DOCUMENTS or size + len(entry.data) > max_bytes):
            runs.append(run)
            run, size = [], 0
        run.append(entry)
        size += len(entry.data)
    return [*runs, run] if run else runs


def _authorization(chosen: Mapping[str, Any]) -> dict[str, str]:
    key, user, password = chosen["api_key"], chosen["username"], chosen["password"]
    if key:
        text = str(key).strip()
        return {"authorization": f"ApiKey {_base64(text) if ':' in text else text}"}
    if bool(user) != bool(password):
        raise DestinationConfigError("elasticsearch: username and password go together: set both")
    return {"authorization": f"Basic {_base64(f'{user}:{password}')}"} if user else {}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _stream(chosen: Mapping[str, Any]) -> _Stream:
    for option in ("dataset", "namespace"):
        if not _NAME.fullmatch(str(chosen[option])) or len(str(chosen[option])) > _LONGEST:
            raise DestinationConfigError(
                f"elasticsearch: {option}: {chosen[option]!r} is no part of a data stream's name: lower-case letters, "
                f"digits, _ and ., no hyphen, at most {_LONGEST}"
            )
    return _Stream(f"{str(chosen['dataset']).removesuffix('.otel')}.otel", str(chosen["namespace"]))
