"""The base of vendors that take OTLP over HTTP: one exporter, told apart by their rows' ``wire`` in the catalogue.

What a span becomes (attributes, name, parent) is made once for all destinations of one dialect.
"""

from __future__ import annotations

import base64
import copy
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit
from weakref import WeakKeyDictionary

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Status, StatusCode

from otelgw_exporters import calls, catalog, http, options, otlp_post, semconv
from otelgw_exporters.delivery import DONE, Exporter, Outcome, Reply
from otelgw_exporters.dialects import TABLES
from otelgw_exporters.errors import naming
from otelgw_exporters.otlp_wire import EncodedSpan, Encoder, Singly, assemble, split
from otelgw_exporters.reading import Reading
from otelgw_exporters.rows import Pairs, Row, Wire

__all__ = ["ReadableExporter", "Shape", "VendorExporter", "filled", "joined", "regional", "secrets_of"]

_NAME = re.compile(r"\{(\w+)\}")
_BASIC = "basic:"
_OK = 200
_REFUSED = 400  # HTTP statuses from here on


def filled(template: str, values: Mapping[str, Any]) -> str | None:
    """Return a template with its ``{option}`` filled in; None where one of them has no value."""
    names = _NAME.findall(template)
    if any(values.get(name) in (None, "", ()) for name in names):
        return None
    text = _NAME.sub(lambda found: str(values[found[1]]), template)
    if not text.startswith(_BASIC):
        return text
    return f"Basic {base64.b64encode(text.removeprefix(_BASIC).encode()).decode()}"


def _filled(pairs: Pairs, values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = ((name, filled(template, values)) for name, template in pairs)
    return tuple((name, value) for name, value in found if value is not None)


def joined(endpoint: str, path: str) -> str:
    """Return the URL of ``path`` at an endpoint that may hold the path already, or a beginning of it."""
    parts = urlsplit(endpoint)
    have = [each for each in parts.path.split("/") if each]
    want = [each for each in path.split("/") if each]
    for size in range(len(want), -1, -1):
        if have[len(have) - size :] == want[:size]:
            return parts._replace(path="/" + "/".join(have + want[size:])).geturl()
    raise AssertionError("a run of no parts is always found")


def regional(wire: Wire, values: Mapping[str, Any]) -> str:
    """Return the endpoint of the region that is set, or that a key names; the first one's where none is."""
    regions = dict(wire.regions)
    named = values.get("region")
    if named is None and wire.region_in:
        words = re.split(r"[_-]", str(values.get(wire.region_in) or ""))
        named = next((word for word in words[:4] if word in regions), None)
    return regions[named or next(iter(regions))]


class Shape:
    """What a span becomes for a dialect. Instances are compared by value, so that destinations share encoders."""

    def __init__(self, dialect: str, parent: str = "keep", constants: Pairs = ()) -> None:
        self._dialect = TABLES[dialect]
        self._detach = parent == "detach"
        self._constants = dict(constants)
        self.given = (dialect, parent, constants)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Shape) and self.given == other.given

    def __hash__(self) -> int:
        return hash((type(self), self.given))

    def __call__(self, span: ReadableSpan, generation: ReadableSpan | None = None) -> ReadableSpan:
        """Return a copy; ``generation`` is that of the request, where the span is its SERVER span."""
        reading = Reading(span)
        asked = Reading(generation) if generation is not None else None
        made = self._dialect.attributes(reading, asked)
        attributes = {**self._constants, **made}
        changed = copy.copy(span)
        if self._dialect.failed_root and reading.role == "server" and (status := _failure(span, generation)):
            changed._status = status
        self.change(changed, reading, attributes)
        return semconv.with_attributes(changed, attributes)

    def change(self, span: ReadableSpan, reading: Reading, attributes: dict[str, Any]) -> None:
        """Change a copy of a span, and its attributes: the parent, here."""
        parent = span.parent
        if self._detach and reading.role == "server" and parent is not None:
            attributes[semconv.OTELGW_CALLER_TRACE_ID] = f"{parent.trace_id:032x}"
            attributes[semconv.OTELGW_CALLER_SPAN_ID] = f"{parent.span_id:016x}"
            span._parent = None


def _failure(server: ReadableSpan, generation: ReadableSpan | None) -> Status | None:
    """Return the error of a request whose SERVER span has none: its generation's, or that it was refused."""
    if not server.status.is_unset:
        return None
    if generation is not None and generation.status.status_code is StatusCode.ERROR:
        return generation.status
    attributes = server.attributes or {}
    code = attributes.get(semconv.HTTP_RESPONSE_STATUS_CODE)
    if not isinstance(code, int) or code < _REFUSED:
        return None
    return Status(StatusCode.ERROR, str(attributes.get(semconv.OTELGW_ERROR_MESSAGE) or "") or None)


def _same(value: Any) -> Any:
    return value


class _Encoding:
    """Encodes shaped spans; what several destinations want in one shape is made once."""

    def __init__(self, shape: Shape) -> None:
        none: frozenset[str] = frozenset()
        self._shape = shape
        self._encode = Encoder(_same, Singly(_same, none, none, none))
        self._done: WeakKeyDictionary[ReadableSpan, EncodedSpan] = WeakKeyDictionary()

    def __call__(self, span: ReadableSpan, generation: ReadableSpan | None) -> EncodedSpan:
        known = self._done.get(span)
        if known is None:
            known = self._done[span] = self._encode(self._shape(span, generation))
        return known


@lru_cache(maxsize=32)
def _encoding(shape: Shape) -> _Encoding:
    return _Encoding(shape)


class _Resources:
    """A resource as it is encoded, with further attributes."""

    def __init__(self, attributes: Pairs) -> None:
        self._more = dict(attributes)
        self._encode = Encoder(_same)
        self._known: dict[bytes, bytes] = {}

    def __call__(self, span: ReadableSpan, encoded: EncodedSpan) -> EncodedSpan:
        if not self._more:
            return encoded
        resource = self._known.get(encoded.resource)
        if resource is None:
            if len(self._known) > 1000:
                self._known.clear()
            widened = copy.copy(span)
            given = span.resource
            widened._resource = Resource({**given.attributes, **self._more}, given.schema_url)
            resource = self._known[encoded.resource] = self._encode(widened).resource
        return encoded._replace(resource=resource)


class VendorExporter(Exporter):
    """OTLP over HTTP to the vendor of a row. Keywords are the row's options; what is missing is read from the
    environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or one that is required is missing.
    """

    ROW = ""

    def __init__(self, *, name: str = "", **given: Any) -> None:
        row = catalog.row(self.ROW)
        name = name or row.name
        with naming(name):
            self.options = options.complete(row, given)
        super().__init__(name, self.options["timeout"])
        self._wire = row.wire or Wire("", "otel-1.41")
        self._url = self.url()
        headers = self._headers(self._wire.headers)
        self.mask = http.Masked({**headers, **secrets_of(row, self.options), "": urlsplit(self._url).password or ""})
        self._gzip = self.options["compression"] == "gzip"
        headers |= {"content-type": "application/x-protobuf"} | ({"content-encoding": "gzip"} if self._gzip else {})
        self._http = http.client(
            name, headers={"user-agent": otlp_post.agent(), "accept-encoding": "identity"} | headers
        )
        self._max_bytes: int = self.options["max_request_bytes"]
        self._shape = self.shape()
        self._encode = _encoding(self._shape)
        self._resource = _Resources(_filled(self._wire.resource, self.options))

    def url(self) -> str:
        """Return where spans are sent."""
        path = filled(self._wire.path, self.options) or self._wire.path
        return joined(self.options["endpoint"] or regional(self._wire, self.options), path)

    def _headers(self, templates: Pairs) -> dict[str, str]:
        return dict(_filled(templates, self.options)) | dict(self.options["headers"] or {})

    def shape(self) -> Shape:
        """Return what spans become here."""
        parent = self.options["parent"] or self._wire.parent
        return Shape(self._wire.dialect, parent, _filled(self._wire.attributes, self.options))

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        found = calls.calls(spans)
        generations = {id(call.server): call.span for call in found if call.server not in (None, call.span)}
        wanted = list(range(len(spans)))
        if self._wire.spans == "generations":
            wanted = [at for at in wanted if Reading(spans[at]).role == "generation"]

        def encode(span: ReadableSpan) -> EncodedSpan:
            return self._resource(span, self._encode(span, generations.get(id(span))))

        def send(part: Sequence[EncodedSpan]) -> Reply:
            return self.send(assemble(part), deadline)

        cut = _split_scopes if self._wire.one_scope else split
        outcome = otlp_post.deliver_encoded([spans[at] for at in wanted], encode, send, self._max_bytes, deadline, cut)
        verdicts = [DONE] * len(spans)
        for at, verdict in zip(wanted, outcome.verdicts, strict=True):
            verdicts[at] = verdict
        return Outcome(tuple(verdicts), outcome.rejected, self.mask(outcome.message))

    def send(self, request: bytes, deadline: float) -> Reply:
        """Send one assembled request."""
        deadline = min(deadline, time.monotonic() + self.timeout)
        body = otlp_post.packed(request) if self._gzip else request
        return otlp_post.post(self._http, self._url, body, deadline, self.mask)

    def shutdown(self) -> None:
        super().shutdown()
        self._http.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {http.origin(self._url)}>"


class ReadableExporter(VendorExporter):
    """A vendor whose traces can be read with the key that writes them, at its row's ``wire.trace``."""

    def read_back(self, spans: Sequence[ReadableSpan], deadline: float) -> str:
        """Return nothing if every generation of ``spans`` is there; else what is wrong."""
        base = self._url.removesuffix(self._wire.path)
        quoted = {name: quote(value, safe="") for name, value in self.options.items() if isinstance(value, str)}
        for call in calls.calls(spans):
            trace, span_id = f"{call.span.context.trace_id:032x}", call.span.context.span_id.to_bytes(8, "big")
            path = filled(self._wire.trace, {**quoted, "trace": trace}) or ""
            answer = http.send(self._http, base + path, b"", deadline, self.mask, method="GET")
            if isinstance(answer, Reply):
                return answer.reason
            forms = (span_id.hex().encode(), base64.b64encode(span_id))
            if answer.status != _OK or not any(form in answer.body for form in forms):
                return f"the trace {trace} is not there yet (HTTP {answer.status})"
        return ""


def _split_scopes(spans: Sequence[EncodedSpan], max_bytes: int) -> list[Sequence[EncodedSpan]]:
    """Return runs within ``max_bytes`` that have one resource and one scope each."""
    runs: list[Sequence[EncodedSpan]] = []
    for run in split(spans, max_bytes):
        start = 0
        for at in range(1, len(run) + 1):
            if at == len(run) or run[at][:2] != run[start][:2]:
                runs.append(run[start:at])
                start = at
    return runs


def secrets_of(row: Row, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of secret options, by names of their own."""
    return {
        f"option {option.name}": str(values[option.name])
        for option in row.options
        if option.secret and option.kind != "headers" and values[option.name]
    }
