"""Relays a request to its upstream and the answer back: the bytes as they come, a copy for the record.

A small non-streamed JSON answer is held until it is complete, so that its headers can carry cost and duration and its
record is written before any of it goes out. Everything else passes chunk by chunk; its record is written before the
last byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping

import httpx

from otelgw.config.settings import Settings
from otelgw.errors import GatewayError, StaleConnection, UpstreamError
from otelgw.http import routes
from otelgw.http.answer import Send, begin, gateway_lines
from otelgw.http.body import Receive
from otelgw.http.capture import BodyCapture, Budget, is_text
from otelgw.http.controls import Controls
from otelgw.http.exchange import Exchange
from otelgw.http.headers import AnswerHead, allow_listed, from_upstream
from otelgw.http.outbound import Outbound, prepare
from otelgw.http.passing import Answer, Passing
from otelgw.http.redaction import mask, mask_capture, values_of
from otelgw.http.roundtrip import RoundTrip
from otelgw.http.routing import Router, Upstream
from otelgw.http.sse import UsageFilter
from otelgw.http.stream import pairs_of
from otelgw.http.turns import LONGEST_WAIT, RETRIED_ERRORS, Turns, is_passing
from otelgw.http.usage import cost_of_answer
from otelgw.keys.gatekeeper import Gatekeeper
from otelgw.tracing.generation import facts_without_content
from otelgw.tracing.propagation import new_span_id
from otelgw.tracing.record import Attempt, Capture, Target

__all__ = ["Relay"]

RawHeaders = list[tuple[bytes, bytes]]

_OPTION = "stream_options_refused"
_OPTION_REFUSED = frozenset({400, 422})
_REFUSAL_SIZE = 64 * 1024
_EVENTS = "text/event-stream"
_JSON = frozenset({"application/json", "application/problem+json"})

# What a plugged-in httpx transport raises, most specific first.
_HTTPX_ERRORS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "upstream_timeout_connect"),
    (httpx.PoolTimeout, "upstream_timeout_connect"),
    (httpx.TimeoutException, "upstream_timeout_idle"),
    (httpx.ConnectError, "upstream_connect"),
    (httpx.RemoteProtocolError, "upstream_bad_response"),
    (httpx.TransportError, "upstream_reset"),
    (httpx.StreamError, "upstream_reset"),
)


# The targets of requests that are not routed yet, by template: such a record can still be read by the route's dialect.
_ASKED = {route.template: Target(operation=route.operation, dialect=route.dialect) for route in routes.ROUTES}


class Relay:
    """One worker's relay. ``commit`` writes an exchange's record before the last byte goes out, which waits for
    ``durable`` where there is one; ``intend`` notes a request that is routed."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        controls: Controls,
        transports: Mapping[str, httpx.AsyncBaseTransport],
        budget: Budget,
        commit: Callable[[Exchange], None],
        intend: Callable[[Exchange, Target], None],
        durable: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._tracing = settings.tracing
        self._router = router
        self._controls = controls
        self._transports = transports
        self._budget = budget
        self._commit = commit
        self._intend = intend
        self._durable = durable
        self.keys: Gatekeeper | None = None

    def transport(self, name: str) -> httpx.AsyncBaseTransport:
        """Return the transport that a deployment's ``transport`` names."""
        return self._transports[name]

    async def run(self, exchange: Exchange, match: routes.Match, receive: Receive, send: Send) -> None:
        """Relay one request.

        Raises:
            GatewayError: the caller gets this error, or a cut answer where one has begun.
        """
        exchange.target = _ASKED[match.route.template]
        grant = exchange.grant
        if grant is not None and self.keys is not None:
            await self.keys.enter(exchange, grant)
        outbound = await prepare(exchange, match, receive, self._settings, self._router, self._controls)
        if grant is not None:
            grant.check_model(outbound.upstreams[0].alias, match.route.template)
        if outbound.body_complete:
            exchange.watch(receive)
        exchange.upstream_start = exchange.now()
        if match.route.operation:
            exchange.generation_span_id = new_span_id()
        self._intend(exchange, outbound.upstreams[0].target(match.route))
        answer = await self._ask(exchange, outbound)
        if not exchange.watched:
            exchange.watch(receive)
        try:
            await self._relay(exchange, answer, send)
        finally:
            stream = answer.response.stream
            if isinstance(stream, RoundTrip):
                stream.close()
            else:
                await _close(answer.response)

    async def _ask(self, exchange: Exchange, outbound: Outbound) -> Answer:
        """Call upstreams until one answers in a way that is final."""
        tries = 0
        reason = ""
        fresh = False
        inject = outbound.wants_usage
        turns = Turns(len(outbound.upstreams))
        while True:
            upstream = outbound.upstreams[turns.position]
            injected = inject and upstream.stream_usage == "inject"
            last = tries >= upstream.deployment.retries or not outbound.body_complete
            attempt = self._begin(exchange, outbound, upstream, reason)
            try:
                request = outbound.request(upstream, attempt, exchange, inject_usage=injected)
                if exchange.wants_raw and exchange.content:
                    exchange.raw_request = outbound.command(upstream, request, attempt, self._limits.capture)
                if fresh:
                    request.extensions["otelgw.fresh"] = True
                wanted = self._tracing.capture_upstream_request_headers
                if wanted:
                    attempt.request_headers = allow_listed(request.headers.raw, wanted)
                response = await self._transports[upstream.deployment.transport].handle_async_request(request)
                head = self._note_head(exchange, attempt, response)
            except StaleConnection as error:
                self._fail(exchange, attempt, error)
                if fresh or not outbound.body_complete:
                    raise
                fresh, reason = True, "stale_connection"
                continue
            except (GatewayError, httpx.HTTPError, httpx.StreamError) as error:
                mapped = _mapped(error, attempt)
                self._fail(exchange, attempt, mapped)
                if last or mapped.error_type not in RETRIED_ERRORS:
                    raise mapped from None
                wait, reason = turns.next(), mapped.error_type
                if wait > LONGEST_WAIT:
                    raise mapped from None
            else:
                status = response.status_code
                if injected and status in _OPTION_REFUSED and await _refuses_option(response):
                    await self._abandon(exchange, attempt, response)
                    inject, reason = False, _OPTION
                    continue
                if reason == _OPTION and status < httpx.codes.BAD_REQUEST:
                    upstream.stream_usage = "as_is"  # it was the option, and nothing else
                if last or not is_passing(status) or (wait := turns.next(head.retry_after)) > LONGEST_WAIT:
                    return Answer(upstream, response, head, attempt, injected)
                await self._abandon(exchange, attempt, response)
                reason = str(status)
            tries += 1
            exchange.retries = tries
            await asyncio.sleep(wait)

    def _begin(self, exchange: Exchange, outbound: Outbound, upstream: Upstream, reason: str) -> Attempt:
        deployment = upstream.deployment
        exchange.target = upstream.target(outbound.route)
        exchange.answer_lines = upstream.answer_lines
        if not deployment.content and not exchange.more:
            exchange.content = False
        endpoint = upstream.endpoint(outbound.path, outbound.query_for(deployment))
        attempt = Attempt(
            span_id=new_span_id(),
            number=len(exchange.attempts) + 1,
            start=exchange.now(),
            method=exchange.method,
            url=endpoint.text,
            server_address=endpoint.host,
            server_port=endpoint.port,
            retry_reason=reason,
            provider=deployment.otel_provider,
            model=deployment.model,
        )
        exchange.attempts.append(attempt)
        return attempt

    def _note_head(self, exchange: Exchange, attempt: Attempt, response: httpx.Response) -> AnswerHead:
        """Note of an attempt what the head of its answer says."""
        first_byte_ns = response.extensions.get("otelgw.first_byte_ns")
        attempt.first_byte = first_byte_ns - exchange.started if first_byte_ns else exchange.now()
        attempt.status = response.status_code
        if response.status_code >= httpx.codes.BAD_REQUEST:
            attempt.error_type = str(response.status_code)
        raw = response.headers.raw
        if self._tracing.capture_upstream_response_headers:
            attempt.response_headers = allow_listed(raw, self._tracing.capture_upstream_response_headers)
        head = from_upstream(raw)
        attempt.request_id = head.request_id
        return head

    def _fail(self, exchange: Exchange, attempt: Attempt, error: GatewayError) -> None:
        attempt.error_type = attempt.error_type or error.error_type
        attempt.end = exchange.now()

    async def _abandon(self, exchange: Exchange, attempt: Attempt, response: httpx.Response) -> None:
        await _close(response)
        attempt.end = exchange.now()

    async def _relay(self, exchange: Exchange, answer: Answer, send: Send) -> None:
        """Pass the answer on, held or chunk by chunk."""
        status = answer.response.status_code
        content_type = answer.head.content_type.lower()
        exchange.status = status
        exchange.stream = exchange.stream or content_type.startswith(_EVENTS)
        exchange.usage_injected = answer.usage_injected
        if status >= httpx.codes.BAD_REQUEST:
            exchange.fail(str(status))
        capture = BodyCapture(self._limits.capture, self._budget, keep=is_text(content_type))
        passing = Passing(exchange, answer, capture)
        exchange.passing = passing
        try:
            if self._is_held(exchange, answer.head, content_type):
                await self._hold(exchange, passing, send)
            else:
                if answer.usage_injected and content_type.startswith(_EVENTS) and not passing.encoding:
                    passing.filter = UsageFilter()
                await self._pass(exchange, passing, send, [], None)
        except (httpx.HTTPError, httpx.StreamError) as error:
            mapped = _mapped(error, answer.attempt)
            self._fail(exchange, answer.attempt, mapped)
            raise mapped from None
        except GatewayError as error:
            self._fail(exchange, answer.attempt, error)
            raise

    def _is_held(self, exchange: Exchange, head: AnswerHead, content_type: str) -> bool:
        """JSON is held up to a size, unless it comes in answer to a stream and piece by piece: some stream JSON."""
        if content_type not in _JSON and content_type.partition(";")[0].rstrip() not in _JSON:
            return False
        if head.length < 0 and exchange.stream and exchange.status < httpx.codes.BAD_REQUEST:
            return False
        return head.length <= self._limits.hold

    async def _hold(self, exchange: Exchange, passing: Passing, send: Send) -> None:
        """Collect the whole answer, then send it unchanged with what is known by now."""
        stream = passing.answer.response.stream
        parts = stream.whole(self._limits.hold) if isinstance(stream, RoundTrip) else None
        if parts is None:
            parts = await self._collect(exchange, passing, send)
            if parts is None:
                return
        else:
            passing.finish_upstream()
            exchange.first_byte = exchange.generation_end if parts else 0
            for part in parts:
                passing.capture.add(part)
        passing.finish_upstream()
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        body = mask(whole, passing.answer.upstream.secrets)
        passing.secret = body is not whole
        if exchange.status == httpx.codes.OK and not passing.encoding:
            exchange.cost = cost_of_answer(passing.answer.upstream.deployment.price, body)
        exchange.sent_bytes = len(body)
        exchange.answered = True
        exchange.first_chunk = exchange.now()
        headers, lines = self._headers(exchange, passing, duration=exchange.first_chunk)
        self._commit(exchange)
        if self._durable is not None:
            await self._durable()
        outlet = exchange.outlet
        if outlet is None or not outlet.immediate:
            await begin(exchange, send, exchange.status, headers, lines, alone=False)
            await send({"type": "http.response.body", "body": body, "more_body": False})
            return
        outlet.begin(exchange.status, headers, lines, alone=False)
        if outlet.put_last(body):
            await outlet.concluded()

    async def _collect(self, exchange: Exchange, passing: Passing, send: Send) -> list[bytes] | None:
        """Return the chunks of the whole answer; None where it is larger than what is held, and was passed on."""
        parts: list[bytes] = []
        size = 0
        chunks = aiter(passing.answer.response.stream)  # type: ignore[arg-type]
        async for chunk in chunks:
            if not parts:
                exchange.first_byte = exchange.now()
            parts.append(chunk)
            size += len(chunk)
            passing.capture.add(chunk)
            if size > self._limits.hold:
                await self._pass(exchange, passing, send, parts, chunks)
                return None
        return parts

    def _headers(
        self, exchange: Exchange, passing: Passing, *, duration: int | None = None
    ) -> tuple[RawHeaders, bytes]:
        """Return the upstream's headers for the caller, and the gateway's own as lines."""
        answer = passing.answer
        kept = answer.head.kept
        if passing.filter is not None:
            kept = [header for header in kept if header[0] != b"content-length"]
        if exchange.grant is not None and exchange.grant.subjects:
            # The upstream's are those of the gateway's own key.
            kept = [header for header in kept if not header[0].startswith(b"x-ratelimit-")]
        overhead = None
        if duration is not None:
            # Until the upstream was called, and since its answer was there: what the span has as overhead, too.
            overhead = exchange.attempts[0].start + duration - answer.attempt.end
        lines = gateway_lines(exchange, cost=exchange.cost, duration_ns=duration, overhead_ns=overhead)
        if self._tracing.capture_response_headers:
            exchange.response_headers = [*kept, *pairs_of(lines)]
        return kept, lines

    async def _pass(
        self,
        exchange: Exchange,
        passing: Passing,
        send: Send,
        begun: list[bytes],
        chunks: AsyncIterable[bytes] | None,
    ) -> None:
        """Send chunk by chunk; ``begun`` has arrived already and ``chunks`` is the rest of it."""
        exchange.answered = True
        headers, lines = self._headers(exchange, passing)
        await begin(exchange, send, exchange.status, headers, lines)
        stream_filter = passing.filter
        length = passing.answer.head.length if stream_filter is None else -1
        if begun:
            exchange.first_chunk = exchange.now()
            exchange.sent_bytes = sum(map(len, begun))
            body = mask(b"".join(begun), passing.answer.upstream.secrets)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        source = chunks if chunks is not None else passing.answer.response.stream
        outlet = exchange.outlet
        if isinstance(source, RoundTrip) and outlet is not None and outlet.immediate and length < 0:
            # Of an answer whose length is not known no part is known to be the last. Every chunk is written as it is
            # read; a task that wakes for each would cost more than all the rest.
            sink, express = passing.sink(outlet.put_out), passing.express(outlet)
            while await source.pump(sink, express):
                await outlet.drained()
        else:
            outs: list[bytes] = []
            sink = passing.sink(outs.append)
            async for chunk in source:  # type: ignore[union-attr]
                sink(chunk)
                if outs:
                    out = outs.pop()
                    if exchange.sent_bytes == length:
                        passing.finish_upstream()
                        self._commit(exchange)
                        if self._durable is not None:
                            await self._durable()
                    await send({"type": "http.response.body", "body": out, "more_body": True})
        rest = stream_filter.flush() if stream_filter is not None else b""
        exchange.sent_bytes += len(rest)
        passing.finish_upstream()
        self._commit(exchange)
        if self._durable is not None:
            await self._durable()
        await send({"type": "http.response.body", "body": rest, "more_body": False})

    def settle(self, exchange: Exchange, *, recorded: bool) -> None:
        """Close the exchange's open ends; before its record is built withhold content that may not be recorded."""
        for attempt in exchange.attempts:
            if not attempt.end:
                attempt.end = exchange.now()
                attempt.error_type = attempt.error_type or exchange.cut_reason or exchange.error_type
        passing = exchange.passing
        if passing is not None:
            capture = passing.capture.finish(passing.answer.head.content_type, passing.encoding)
            upstream = passing.answer.upstream
            secrets = upstream.secrets if passing.secret else ()
            if upstream.deployment.forward_client_headers:
                secrets += values_of(exchange.raw_headers)
            exchange.response = mask_capture(capture, secrets)
            exchange.passing = None
        if exchange.grant is not None and self.keys is not None:
            self.keys.charge(exchange, exchange.grant)
        if exchange.generation_span_id and not exchange.generation_end:
            exchange.generation_end = exchange.now()
        if recorded and not exchange.content:
            self._withhold(exchange)

    def _withhold(self, exchange: Exchange) -> None:
        """Replace both bodies by what can be read of them without content."""
        request, response = exchange.request, exchange.response
        exchange.raw_request = ""
        for attempt in exchange.attempts:
            attempt.url = attempt.url.partition("?")[0]  # its query is the caller's text, too
        if request.size or response.size:
            exchange.facts = facts_without_content(exchange.target, request, response, exchange.status, exchange.stream)
        exchange.request, exchange.response = (
            Capture(content_type=body.content_type, encoding=body.encoding, size=body.size, withheld=True)
            for body in (request, response)
        )
        exchange.error_message = "" if exchange.error_type.isdigit() else exchange.error_message


async def _close(response: httpx.Response) -> None:
    """Close the stream itself: ``Response.aclose`` wants a request attached, which a transport need not do."""
    await response.stream.aclose()  # type: ignore[union-attr]


def _mapped(error: Exception, attempt: Attempt) -> GatewayError:
    """Return the error of ours that an exception stands for."""
    if isinstance(error, GatewayError):
        return error
    error_type = next((name for kind, name in _HTTPX_ERRORS if isinstance(error, kind)), "upstream_reset")
    where = f"{attempt.server_address}:{attempt.server_port}"
    return UpstreamError(error_type, f"{where} gave no usable answer ({type(error).__name__}).")


async def _refuses_option(response: httpx.Response) -> bool:
    """Return whether a 400 is about ``stream_options``; the answer stays readable for the caller if it is not."""
    source = response.stream
    begun: list[bytes] = []
    chunks = aiter(source)  # type: ignore[arg-type]
    async for chunk in chunks:
        begun.append(chunk)
        if sum(map(len, begun)) > _REFUSAL_SIZE:
            break
    body = b"".join(begun)
    response.stream = _Again(body, chunks, source)  # type: ignore[arg-type]
    return b"stream_options" in body or b"include_usage" in body


class _Again(httpx.AsyncByteStream):
    """A stream whose beginning was read already."""

    def __init__(self, begun: bytes, rest: AsyncIterator[bytes], source: httpx.AsyncByteStream) -> None:
        self._begun = begun
        self._rest = rest
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._begun:
            yield self._begun
        async for chunk in self._rest:
            yield chunk

    async def aclose(self) -> None:
        await self._source.aclose()
