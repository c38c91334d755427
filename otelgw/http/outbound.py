"""Makes the upstream request out of the caller's: routed, rewritten as little as possible, with its own headers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from otelgw.config.settings import Deployment, Limits, Settings
from otelgw.errors import RequestRefused
from otelgw.http import multipart, routes, splice
from otelgw.http.body import Pace, Receive, check_declared, read, receive_part, too_large
from otelgw.http.capture import BodyCapture, Budget, is_text
from otelgw.http.client import build_request
from otelgw.http.exchange import Exchange
from otelgw.http.headers import to_upstream
from otelgw.http.routes import Route
from otelgw.http.routing import Router, Upstream
from otelgw.tracing.propagation import inject
from otelgw.tracing.record import Attempt, Capture

__all__ = ["Outbound", "prepare"]

_PEEK = 8 * 1024 * 1024  # bytes of a multipart body that are searched for its `model` field
_USAGE_ROUTES = frozenset({"chat/completions", "completions"})
_TIMEOUT_KEYS = ("connect", "first_byte", "idle", "total")
# Header spellings of the fields that redirect a call; the prefixes are LiteLLM's.
_REDIRECTING_HEADERS = frozenset(
    {b"x-litellm-api-base", b"x-otelgw-api-base", b"langfuse_host", b"langfuse_public_key", b"langfuse_secret",
     b"langfuse_secret_key"}
)  # fmt: skip


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

    @property
    def body_complete(self) -> bool:
        return self.rest is None

    def request(self, upstream: Upstream, attempt: Attempt, exchange: Exchange, *, inject_usage: bool) -> httpx.Request:
        """Return the request for one attempt."""
        deployment = upstream.deployment
        own = [*deployment.auth, *deployment.headers]
        if deployment.forward_trace:
            own += inject(
                deployment.forward_trace,
                exchange.trace_id,
                attempt.span_id,
                exchange.flags,
                exchange.state,
                exchange.headers.get(b"baggage", b"").decode("latin-1"),
            )
        headers = to_upstream(exchange.raw_headers, own, forward_credentials=deployment.forward_client_headers)
        content, length = self._body(deployment, inject_usage)
        body: bytes | AsyncIterator[bytes] = content if self.rest is None else _joined(content, self.rest)
        url = upstream.endpoint(self.path, self.query).url
        return build_request(exchange.method, url, headers, body, timeout=upstream.timeout, length=length)

    def _body(self, deployment: Deployment, inject_usage: bool) -> tuple[bytes, int | None]:
        model = deployment.model
        if self.fields is not None:
            drop = splice.GATEWAY_FIELDS
            if not deployment.forward_metadata:
                drop = _WITHOUT_METADATA
            if deployment.allow_client_params:
                drop -= splice.REDIRECTING_FIELDS - _CONNECTION_FIELDS
            body = splice.rewrite(
                self.content,
                self.fields,
                model=model if "model" in self.fields else "",
                inject_usage=inject_usage,
                defaults=deployment.defaults if self.route.kind == routes.MODEL else None,
                drop=drop,
            )
            return body, None
        if self.form_model is not None and self.form_model.value != model:
            body = multipart.replace_field(self.content, self.form_model, model)
            return body, None if self.length is None else self.length + len(body) - len(self.content)
        return self.content, self.length


_WITHOUT_METADATA = splice.GATEWAY_FIELDS | {"metadata"}
# Consumed by the gateway even where a deployment lets callers set them.
_CONNECTION_FIELDS = frozenset({"api_base", "base_url", "api_key", "api_version", "organization", "user_config"})


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def prepare(
    exchange: Exchange, match: routes.Match, receive: Receive, settings: Settings, router: Router
) -> Outbound:
    """Read the caller's request, find its upstreams, and note what the record needs of it.

    Raises:
        RequestRefused: 400, 404, 408, 413, 415.
        CallerGone: the caller closed the connection.
    """
    for name in _REDIRECTING_HEADERS:
        if name in exchange.headers:
            raise _redirected(name.decode(), "header")
    content_type = exchange.headers.get(b"content-type", b"").decode("latin-1")
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        return await _prepare_form(exchange, match, receive, settings, router, content_type)
    limits = settings.limits
    limit = limits.file_body if match.route.large else limits.body
    body = await read(receive, exchange.headers, limit, limits)
    return _prepare_body(exchange, match, settings, router, body, content_type)


def _prepare_body(
    exchange: Exchange, match: routes.Match, settings: Settings, router: Router, body: bytes, content_type: str
) -> Outbound:
    fields: splice.Fields | None = None
    is_model = match.route.kind == routes.MODEL
    if is_model or _looks_like_json(body, content_type):
        try:
            fields = splice.read_fields(body)
        except RequestRefused:
            exchange.request = _capture(splice.unparsed(body), content_type, settings.limits)
            raise
        exchange.request = _capture(
            splice.recordable(body, fields), content_type or "application/json", settings.limits
        )
        if len(body) > settings.limits.capture:
            exchange.metadata = _metadata(fields)  # it may stand where the capture is cut
        exchange.stream = splice.value_of(fields, "stream") is True
    elif body:
        exchange.request = _capture(body, content_type, settings.limits)
    query = exchange.scope.get("query_string", b"")
    model = _model_of(fields, query)
    if is_model:
        if not model:
            raise RequestRefused("invalid_request", "`model` is missing: name one of GET /v1/models.", param="model")
        upstreams = router.resolve(model)
    else:
        provider = exchange.headers.get(b"x-otelgw-provider", b"").decode("latin-1")
        upstreams = router.resolve_pass_through(model, provider)
    if fields is not None:
        upstreams = _redirect(upstreams, fields)
    return Outbound(
        route=match.route,
        path=match.upstream_path,
        query=query,
        upstreams=upstreams,
        content=body,
        fields=fields,
        wants_usage=exchange.stream and match.upstream_path in _USAGE_ROUTES and not _has_usage(fields),
    )


def _looks_like_json(body: bytes, content_type: str) -> bool:
    """JSON is taken under any content type but multipart: curl without a header sends a form's."""
    return body[:64].lstrip()[:1] == b"{" or (bool(body) and "json" in content_type.lower())


def _has_usage(fields: splice.Fields | None) -> bool:
    options = splice.value_of(fields, "stream_options") if fields is not None else None
    return isinstance(options, dict) and options.get("include_usage") is True


def _model_of(fields: splice.Fields | None, query: bytes) -> str:
    model = splice.value_of(fields, "model") if fields is not None else None
    if model is None and query:
        model = dict(parse_qsl(query.decode("latin-1"))).get("model")
    if model is None:
        return ""
    if not isinstance(model, str):
        raise RequestRefused("invalid_request", "`model` must be a string.", param="model")
    return model


def _metadata(fields: splice.Fields) -> dict[str, Any]:
    """Return a body's ``metadata``, with its ``tags``."""
    metadata = splice.value_of(fields, "metadata")
    found: dict[str, Any] = splice.scrubbed(metadata) if isinstance(metadata, dict) else {}
    if "tags" in fields:
        found["tags"] = splice.value_of(fields, "tags")
    return found


def _redirected(name: str, where: str) -> RequestRefused:
    return RequestRefused(
        "invalid_request",
        f"{name} in a {where} would redirect the call; it is refused unless the deployment names it in "
        "litellm_params.allow_client_params.",
        param=name,
    )


def _redirect(upstreams: list[Upstream], fields: splice.Fields) -> list[Upstream]:
    """Refuse fields that redirect the call, or follow those that the deployment lets callers set."""
    named = splice.REDIRECTING_FIELDS.intersection(fields)
    if not named:
        return upstreams
    first = upstreams[0].deployment
    for name in sorted(named):
        if name not in first.allow_client_params:
            raise _redirected(name, "body")
    values = {name: splice.value_of(fields, name) for name in named}
    base = values.get("api_base") or values.get("base_url")
    changed = first
    if isinstance(base, str):
        if urlsplit(base).scheme not in {"http", "https"}:
            raise RequestRefused("invalid_request", "api_base must be an http or https URL.", param="api_base")
        changed = replace(changed, base_url=base, urls={}, auth=())
    key = values.get("api_key")
    if isinstance(key, str):
        names = [name for name, _ in first.auth] or [b"authorization"]
        prefix = "Bearer " if names[0] == b"authorization" else ""
        changed = replace(changed, auth=((names[0], f"{prefix}{key}".encode()),))
    return [Upstream(changed, upstreams[0].alias)]


def _capture(body: bytes, content_type: str, limits: Limits) -> Capture:
    if len(body) <= limits.capture and is_text(content_type or "application/json"):
        return Capture(content_type=content_type, size=len(body), head=body)
    capture = BodyCapture(limits.capture, Budget(2 * limits.capture), keep=is_text(content_type or "application/json"))
    capture.add(body)
    return capture.finish(content_type)


async def _prepare_form(
    exchange: Exchange,
    match: routes.Match,
    receive: Receive,
    settings: Settings,
    router: Router,
    content_type: str,
) -> Outbound:
    """Find ``model`` in a multipart body; what comes after it is streamed on as it arrives."""
    limits = settings.limits
    limit = limits.file_body if match.route.large else limits.body
    check_declared(exchange.headers, limit)
    boundary = multipart.boundary_of(content_type)
    if not boundary:
        raise RequestRefused("invalid_request", "The multipart Content-Type has no boundary.")
    upload = _Upload(exchange, receive, limits, limit, content_type)
    body = b""
    field = None
    while upload.more and field is None and len(body) <= _PEEK:
        body += await upload.part()
        field = multipart.find_field(body, boundary, "model")
    query = exchange.scope.get("query_string", b"")
    model = field.value if field is not None else _model_of(None, query)
    provider = exchange.headers.get(b"x-otelgw-provider", b"").decode("latin-1")
    if match.route.kind == routes.MODEL and not model:
        raise RequestRefused("invalid_request", "`model` is missing: name one of GET /v1/models.", param="model")
    upstreams = router.resolve_pass_through(model, provider)
    declared = exchange.headers.get(b"content-length", b"")
    return Outbound(
        route=match.route,
        path=match.upstream_path,
        query=query,
        upstreams=upstreams[:1] if upload.more else upstreams,
        content=body,
        form_model=field,
        rest=upload.rest() if upload.more else None,
        length=int(declared) if declared.isdigit() else None,
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

    async def part(self) -> bytes:
        part, self.more = await receive_part(self._receive, self._pace, self._capture.size)
        self._capture.add(part)
        if self._capture.size > self._limit:
            raise too_large(self._limit)
        if not self.more:
            self._exchange.request = self._capture.finish(self._content_type)
        return part

    async def rest(self) -> AsyncIterator[bytes]:
        while self.more:
            part = await self.part()
            if part:
                yield part
        self._exchange.watch(self._receive)
