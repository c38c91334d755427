"""Makes the upstream request out of the caller's: routed, rewritten as little as possible, with its own headers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from otelgw.config.settings import Deployment, Limits, Settings
from otelgw.errors import RequestRefused
from otelgw.http import form, multipart, routes, splice
from otelgw.http.body import Pace, Receive, check_declared, checked, read, receive_part, too_large
from otelgw.http.capture import BodyCapture, Budget, is_text
from otelgw.http.client import build_request
from otelgw.http.controls import Controls
from otelgw.http.curl import command
from otelgw.http.exchange import Exchange
from otelgw.http.headers import to_upstream, without_secrets
from otelgw.http.lazy_headers import Block
from otelgw.http.routes import Route
from otelgw.http.routing import Router, Upstream
from otelgw.http.stream import Findings
from otelgw.tracing.propagation import inject
from otelgw.tracing.record import Attempt, Capture
from otelgw_exporters import semconv

__all__ = ["Outbound", "prepare"]

RawHeaders = list[tuple[bytes, bytes]]

_PEEK = 8 * 1024 * 1024  # bytes of an upload to a files route that are searched for a `model` field
_USAGE_ROUTES = frozenset({"chat/completions", "completions"})
# Fields whose plain names are headers of another meaning: the caller's key, OpenAI's organization, Azure's version.
_ORDINARY_HEADERS = frozenset({"api_key", "organization", "api_version"})
# Header spellings of the fields that redirect a call -> the field.
_REDIRECTING_HEADERS: dict[bytes, str] = {
    (prefix + spelling).encode(): field
    for field in splice.REDIRECTING_FIELDS
    for prefix in ("", "x-litellm-", "x-otelgw-")
    for spelling in {field, field.replace("_", "-")}
    if (prefix or field not in _ORDINARY_HEADERS) and prefix + spelling != "x-litellm-api-key"
}
_SPECIAL_HEADERS = frozenset(_REDIRECTING_HEADERS)
_KNOWN_UPSTREAMS = 16  # whose headers are kept for the next request of a connection
_IDENTIFIER = 1024  # characters of an id chosen by the caller
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_MULTIPART = "multipart/form-data"


@dataclass(slots=True)
class Outbound:
    """A request ready to be sent to any of ``upstreams``.

    ``content`` is the whole body, or its beginning when ``rest`` follows; then there is only one attempt.
    """

    route: Route
    path: str
    query: bytes
    upstreams: list[Upstream]
    content: bytes
    fields: splice.Fields | None = None
    form_model: multipart.Field | None = None
    rest: AsyncIterator[bytes] | None = None
    length: int | None = None  # the caller's Content-Length, where `rest` follows
    wants_usage: bool = False  # the caller asked for a stream without usage
    mislabelled: bool = False  # JSON under another Content-Type, as curl sends it without a header
    model_in_path: bool = False  # as Azure's client names it; the body may lack it
    model_in_query: bool = False

    @property
    def body_complete(self) -> bool:
        return self.rest is None

    def request(self, upstream: Upstream, attempt: Attempt, exchange: Exchange, *, inject_usage: bool) -> httpx.Request:
        """Return the request for one attempt."""
        deployment = upstream.deployment
        block = exchange.findings.upward.get((upstream, self.mislabelled)) or self._block(upstream, exchange)
        headers: RawHeaders | Block = block
        if deployment.forward_trace:
            headers = block.headers + inject(
                deployment.forward_trace,
                exchange.trace_id,
                attempt.span_id,
                exchange.flags,
                exchange.state,
                exchange.baggage_header,
            )
        content, length = self._body(deployment, inject_usage)
        body: bytes | AsyncIterator[bytes] = content if self.rest is None else _joined(content, self.rest)
        url = upstream.endpoint(self.path, self.query_for(deployment)).url
        timeout = upstream.stream_timeout if exchange.stream else upstream.timeout
        request = build_request(exchange.method, url, headers, body, timeout=timeout, length=length)
        if deployment.mock_response is not None:
            request.extensions["otelgw.mock_response"] = deployment.mock_response
        return request

    def _block(self, upstream: Upstream, exchange: Exchange) -> Block:
        """Return the headers for an upstream, but for those of the trace."""
        deployment = upstream.deployment
        own = [*deployment.auth, *deployment.headers]
        if self.mislabelled:
            own.append((b"content-type", b"application/json"))
        headers = to_upstream(exchange.raw_headers, own, forward_credentials=deployment.forward_client_headers)
        known = exchange.findings.upward
        if len(known) >= _KNOWN_UPSTREAMS:
            known.clear()
        block = known[upstream, self.mislabelled] = Block(headers)
        return block

    def command(self, upstream: Upstream, request: httpx.Request, attempt: Attempt, limit: int) -> str:
        """Return ``request`` as a curl command, keys replaced; at most ``limit`` bytes of its body."""
        body = b"".join(request.stream) if isinstance(request.stream, httpx.ByteStream) else b""
        if self.fields is not None:
            body = splice.recordable(body, splice.read_fields(body))
        elif body:
            body = _recordable_text(body, request.headers.get("content-type", ""))
        secrets = upstream.secrets
        return command(request.method, attempt.url or str(request.url), request.headers.raw, body, secrets, limit)

    def query_for(self, deployment: Deployment) -> bytes:
        """Return the caller's query, with the upstream's name of the model where the caller named it there."""
        if not self.model_in_query:
            return self.query
        pairs = parse_qsl(self.query.decode("latin-1"), keep_blank_values=True)
        return urlencode([(name, deployment.model if name == "model" else value) for name, value in pairs]).encode()

    def _defaults(self, deployment: Deployment) -> Mapping[str, Any] | None:
        if self.route.kind != routes.MODEL:
            return None
        return {**deployment.defaults, "model": deployment.model} if self.model_in_path else deployment.defaults

    def _body(self, deployment: Deployment, inject_usage: bool) -> tuple[bytes, int | None]:
        model = deployment.model
        if self.fields is not None:
            body = splice.rewrite(
                self.content,
                self.fields,
                model=model if "model" in self.fields else "",
                inject_usage=inject_usage,
                defaults=self._defaults(deployment),
                drop=splice.GATEWAY_FIELDS if deployment.forward_metadata else _WITHOUT_METADATA,
            )
            return body, None
        if self.form_model is not None and model and self.form_model.value != model:
            body = multipart.replace_field(self.content, self.form_model, model)
            return body, None if self.length is None else self.length + len(body) - len(self.content)
        return self.content, self.length


_WITHOUT_METADATA = splice.GATEWAY_FIELDS | {"metadata"}


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def prepare(
    exchange: Exchange,
    match: routes.Match,
    receive: Receive,
    settings: Settings,
    router: Router,
    controls: Controls,
) -> Outbound:
    """Read the caller's request, find its upstreams, and note what the record needs of it.

    Raises:
        RequestRefused: 400, 404, 408, 413, 415.
        CallerGone: the caller closed the connection.
    """
    special = not _SPECIAL_HEADERS.isdisjoint(exchange.headers)
    content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
    if content_type != _JSON and _essence(content_type) == _MULTIPART:
        outbound = await _prepare_form(exchange, match, receive, settings, router, controls, content_type)
    else:
        limits = settings.limits
        limit = limits.file_body if match.route.large else limits.body
        here = exchange.outlet.whole() if exchange.outlet is not None else None
        if here is None:
            body = await read(receive, exchange.headers, limit, limits)
        else:
            body = checked(here, exchange.headers, limit)
        exchange.body_read = True
        outbound = _prepare_body(exchange, match, settings, router, controls, body, content_type)
    redirecting: dict[str, tuple[str, Any]] = {}
    if special:
        redirecting = _redirecting_headers(exchange)
    if outbound.fields is not None and not splice.REDIRECTING_FIELDS.isdisjoint(outbound.fields):
        redirecting |= _redirecting_fields(outbound.fields)
    if redirecting:
        outbound.upstreams = [_redirect(outbound.upstreams[0], redirecting)]
        exchange.findings = Findings()  # the key may be one from the body, which is this request's only
    return outbound


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _prepare_body(
    exchange: Exchange,
    match: routes.Match,
    settings: Settings,
    router: Router,
    controls: Controls,
    body: bytes,
    content_type: str,
) -> Outbound:
    fields: splice.Fields | None = None
    limits = settings.limits
    is_model = match.route.kind == routes.MODEL
    if is_model or _looks_like_json(body, content_type):
        try:
            fields = splice.read_fields(body)
            controls.read_fields(exchange, fields)
        except RequestRefused:
            controls.unread(exchange, body)
            exchange.request = _capture(splice.unparsed(body), content_type or "application/json", limits)
            raise
        exchange.request = _capture(splice.recordable(body, fields), content_type or "application/json", limits)
        if len(body) > limits.capture:
            # They may stand where the capture is cut.
            exchange.metadata = _metadata(fields, exchange.metadata)
            _put_user(exchange, fields)
        exchange.stream = splice.value_of(fields, "stream") is True
    elif body:
        exchange.request = _capture(_recordable_text(body, content_type), content_type, limits)
    query = exchange.scope.get("query_string", b"")
    model = _model_of(fields)
    if is_model and "model" in match.parameters:
        model, query = match.parameters["model"], b""  # the api-version in it is the caller's, not the upstream's
    named_in_query = not model and bool(query) and bool(model := _model_in(query))
    if is_model:
        if not model:
            raise _no_model()
        upstreams = router.resolve(model)
    else:
        provider = exchange.headers.get(b"x-otelgw-provider", b"").decode("latin-1")
        upstreams = router.resolve_pass_through(model, provider)
    return Outbound(
        route=match.route,
        path=match.upstream_path,
        query=query,
        upstreams=upstreams,
        content=body,
        fields=fields,
        wants_usage=exchange.stream and match.upstream_path in _USAGE_ROUTES and not _has_usage(fields),
        mislabelled=fields is not None and "json" not in content_type,
        model_in_query=named_in_query,
        model_in_path=is_model and "model" in match.parameters,
    )


def _no_model() -> RequestRefused:
    return RequestRefused("invalid_request", "`model` is missing: name one of GET /v1/models.", param="model")


def _looks_like_json(body: bytes, content_type: str) -> bool:
    """JSON is taken under any content type but multipart: curl without a header sends a form's."""
    return body[:64].lstrip()[:1] == b"{" or (bool(body) and "json" in content_type.lower())


def _has_usage(fields: splice.Fields | None) -> bool:
    options = splice.value_of(fields, "stream_options") if fields is not None else None
    return isinstance(options, dict) and options.get("include_usage") is True


def _model_of(fields: splice.Fields | None) -> str:
    model = splice.value_of(fields, "model") if fields is not None else None
    if model is None:
        return ""
    if not isinstance(model, str):
        raise RequestRefused("invalid_request", "`model` must be a string.", param="model")
    return model


def _model_in(query: bytes) -> str:
    return dict(parse_qsl(query.decode("latin-1"))).get("model", "")


def _recordable_text(body: bytes, content_type: str) -> bytes:
    """Return a body that is no JSON as it may be recorded."""
    if _essence(content_type) == _FORM:
        return without_secrets(body)
    return splice.unparsed(body) if is_text(content_type) else body


def _metadata(fields: splice.Fields, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body's ``metadata``, with its ``tags``; what was ``given`` by header wins, tags are joined."""
    found: dict[str, Any] = {}
    tags: list[Any] = []
    for name in ("litellm_metadata", "metadata"):
        metadata = splice.value_of(fields, name)
        if isinstance(metadata, dict):
            found |= splice.scrubbed(metadata)
            tags += _tags(metadata.get("tags"))
    tags += [*_tags(splice.value_of(fields, "tags")), *_tags(given.get("tags"))]
    return {**found, **given, **({"tags": tags} if tags else {})}


def _put_user(exchange: Exchange, fields: splice.Fields) -> None:
    user = splice.value_of(fields, "user")
    if isinstance(user, str) and user:
        exchange.labels.setdefault(semconv.USER_ID, user[:_IDENTIFIER])


def _tags(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _redirecting_headers(exchange: Exchange) -> dict[str, tuple[str, Any]]:
    """Return redirecting fields that came as headers: name -> (where, value)."""
    return {
        _REDIRECTING_HEADERS[name]: ("header", value.decode("latin-1"))
        for name, value in exchange.headers.items()
        if name in _REDIRECTING_HEADERS
    }


def _redirecting_fields(fields: splice.Fields) -> dict[str, tuple[str, Any]]:
    return {name: ("body", splice.value_of(fields, name)) for name in splice.REDIRECTING_FIELDS.intersection(fields)}


def _redirect(upstream: Upstream, given: Mapping[str, tuple[str, Any]]) -> Upstream:
    """Refuse fields that redirect the call, or follow those that the deployment lets callers set.

    A call to another address goes without the deployment's own key.
    """
    deployment = upstream.deployment
    for name, (where, _) in sorted(given.items()):
        if name not in deployment.allow_client_params:
            raise RequestRefused(
                "invalid_request",
                f"{name} in a {where} would redirect the call; it is refused unless the deployment names it in "
                "litellm_params.allow_client_params.",
                param=name,
            )
    values = {name: value for name, (_, value) in given.items() if isinstance(value, str) and value}
    changed = deployment
    base = values.get("api_base") or values.get("base_url")
    if base is not None:
        if urlsplit(base).scheme not in {"http", "https"}:
            raise RequestRefused("invalid_request", "api_base must be an http or https URL.", param="api_base")
        changed = replace(changed, base_url=base, urls={}, query="", auth=())
    key = values.get("api_key")
    if key is not None:
        header = deployment.auth[0][0] if deployment.auth else b"authorization"
        prefix = "Bearer " if header == b"authorization" else ""
        changed = replace(changed, auth=((header, f"{prefix}{key}".encode()),))
    organization = values.get("organization")
    if organization is not None:
        kept = [header for header in changed.headers if header[0] != b"openai-organization"]
        changed = replace(changed, headers=(*kept, (b"openai-organization", organization.encode())))
    return Upstream(changed, upstream.alias)


def _capture(body: bytes, content_type: str, limits: Limits) -> Capture:
    keep = is_text(content_type)
    if keep and len(body) <= limits.capture:
        return Capture(content_type=content_type, size=len(body), head=body)
    capture = BodyCapture(limits.capture, Budget(2 * limits.capture), keep=keep)
    capture.add(body)
    return capture.finish(content_type)


async def _prepare_form(
    exchange: Exchange,
    match: routes.Match,
    receive: Receive,
    settings: Settings,
    router: Router,
    controls: Controls,
    content_type: str,
) -> Outbound:
    """Find ``model`` in a multipart body; what comes after it is streamed on as it arrives."""
    route = match.route
    if route.kind == routes.MODEL:
        raise RequestRefused("unsupported_media_type", f"{route.template} takes JSON; send application/json.")
    if exchange.headers.get(b"content-encoding", b"identity").strip().lower() not in {b"", b"identity"}:
        raise RequestRefused("unsupported_media_type", "A multipart body must not have a Content-Encoding.")
    limits = settings.limits
    limit = limits.file_body if route.large else limits.body
    check_declared(exchange.headers, limit)
    boundary = multipart.boundary_of(content_type)
    if not boundary:
        raise RequestRefused("invalid_request", "The multipart Content-Type has no boundary.")
    upload = _Upload(exchange, receive, limits, limit, content_type)
    search = multipart.Search(boundary, "model")
    # Files of a files route name no model; those of the others come before or after it, as the caller likes.
    peek = _PEEK if route.group else limits.body
    while upload.more and (
        (search.field is None and upload.size <= peek) or (upload.size < form.HEAD and not form.has_file(search.body))
    ):
        search.feed(await upload.part())
    field = search.field
    query = exchange.scope.get("query_string", b"")
    model = field.value if field is not None else ""
    named_in_query = not model and bool(query) and bool(model := _model_in(query))
    provider = exchange.headers.get(b"x-otelgw-provider", b"").decode("latin-1")
    upstreams = router.resolve_pass_through(model, provider)
    declared = exchange.headers.get(b"content-length", b"")
    begun = bytes(search.body)
    own = form.read(begun, boundary, keep_metadata=upstreams[0].deployment.forward_metadata)
    if own.fields:
        controls.read_fields(exchange, own.fields)
        exchange.metadata = _metadata(own.fields, exchange.metadata)
        _put_user(exchange, own.fields)
    return Outbound(
        route=route,
        path=match.upstream_path,
        query=query,
        upstreams=upstreams[:1] if upload.more else upstreams,
        content=own.body,
        form_model=field if own.body is begun else multipart.find_field(own.body, boundary, "model"),
        rest=upload.rest() if upload.more else None,
        length=int(declared) - len(begun) + len(own.body) if declared.isdigit() else None,
        model_in_query=named_in_query,
    )


class _Upload:
    """A body that is read while it is sent on; only its size and hash are recorded."""

    def __init__(self, exchange: Exchange, receive: Receive, limits: Limits, limit: int, content_type: str) -> None:
        self._exchange = exchange
        self._receive = receive
        self._limit = limit
        self._pace = Pace(limits)
        self._content_type = content_type
        self._capture = BodyCapture(limits.capture, Budget(0), keep=False)
        self.more = True

    @property
    def size(self) -> int:
        return self._capture.size

    async def part(self) -> bytes:
        part, self.more = await receive_part(self._receive, self._pace, self._capture.size)
        self._capture.add(part)
        if self._capture.size > self._limit:
            raise too_large(self._limit)
        if not self.more:
            self._finish()
            self._exchange.body_read = True
        return part

    async def rest(self) -> AsyncIterator[bytes]:
        """Yield what comes; an upstream that answers before the end of it ends this early."""
        try:
            while self.more:
                part = await self.part()
                if part:
                    yield part
            self._exchange.watch(self._receive)
        finally:
            if self.more:
                self._finish()

    def _finish(self) -> None:
        self._exchange.request = self._capture.finish(self._content_type)
