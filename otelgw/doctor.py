"""``otelgw doctor``: one marked trace to each configured destination, what became of it, and what to mend.

The trace is one request as the gateway records them, of the model ``otelgw-doctor``. It passes what the destination's
settings withhold and redact, but no selection: it is to arrive.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Destination, Selection, Settings
from otelgw.errors import ConfigError
from otelgw.pipeline_main import decoder
from otelgw.selection import Trace, selector
from otelgw.tracing import record as records
from otelgw.tracing.generation import facts_without_content
from otelgw.tracing.record import Attempt, Capture, Record, Target, capture_whole
from otelgw_exporters import catalog
from otelgw_exporters.delivery import Exporter
from otelgw_exporters.errors import DestinationError

__all__ = ["MODEL", "Diagnosis", "ReadsBack", "advice", "diagnose", "made_up"]

MODEL = "otelgw-doctor"
"""The model of the test trace, and its tag: what to look for, and what to leave out of statistics."""

_TIME = 20.0  # seconds for the delivery to one destination
_FOUND = 10.0  # seconds until what was delivered must be there
_PAUSE = 0.5
_MS = 1_000_000
_QUESTION = "otelgw doctor: is this destination reached?"
_ANSWER = "If you can read this, it is."
# What a destination's own options leave out is sent all the same: "delivered" is to mean that something was.
_UNFILTERED = {"event_types": ("llm_api_success", "llm_api_failure")}


@runtime_checkable
class ReadsBack(Protocol):
    """An exporter that can see what has arrived."""

    def read_back(self, spans: Sequence[ReadableSpan], deadline: float) -> str:
        """Return nothing if all of ``spans`` that it sends are there; else what is wrong.

        Raises:
            PermissionError: with what is configured nobody can look.
        """


class Diagnosis(NamedTuple):
    """What became of the test trace at one destination. ``said`` is the result in words, ``mend`` what would help."""

    name: str
    ok: bool
    said: str
    mend: str = ""


# What is said in a reason -> what would help, the more telling first.
_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"expired|ExpiredToken|TokenRefreshRequired|Lifetime validation failed",
        "the token or key has expired: get a new one",
    ),
    (r"RequestTimeTooSkewed|Signature expired|clock", "this machine's clock is wrong: set it"),
    (
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|wrong region|region.{0,20}expecting",
        "it is in another region: mend `region`",
    ),
    (
        r"NoSuchBucket|bucket does not exist|bucket.{0,40}not found|ContainerNotFound|NonExistent|NotFoundException",
        "it is not there: make the bucket, container, queue or table, or mend its name",
    ),
    (
        r"Name or service not known|nodename nor servname|name resolution|(?i:dns )|lookup address|Domain name not",
        "the host name does not exist: mend the endpoint, or the region or site that it is made of",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|UnknownIssuer|self.signed",
        "the server's certificate is not trusted: set `certificate` to its authority's PEM file",
    ),
    (
        r"WRONG_VERSION_NUMBER|record layer failure|InvalidContentType|wrong version number",
        "no TLS is spoken there: write http:// in the endpoint, or take the server's TLS port",
    ),
    (
        r"illegal (request|status) line|illegal header line",
        "no HTTP/1 is spoken there: for OTLP over gRPC use the destination otlp_grpc, or the receiver's HTTP port",
    ),
    (
        r"Connection refused|ConnectError|connection attempts failed|Failed to connect|tcp connect error",
        "nobody listens there: mend host and port, or start the server",
    ),
    (r"no answer in time|timed out|[Tt]imeout", "nothing answers: mend the host, or open the firewall or proxy"),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AuthenticationFailed|HTTP 40[13]|UNAUTHENTICATED|PERMISSION_DENIED",
        "the key is wrong or may not write there: mend it",
    ),
    (r"HTTP 404|UNIMPLEMENTED", "nothing takes spans there: mend the endpoint's path"),
)


def advice(reason: str) -> str:
    """Return what would help, going by a reason; nothing where the reason itself says what to mend, or nothing is
    known.
    """
    if re.search(r"\(.*(mend|set|make|GRANT)\b.*\)|pip install|; mend ", reason):
        return ""
    return next((text for pattern, text in _ADVICE if re.search(pattern, reason)), "")


def diagnose(settings: Settings, name: str = "", seconds: float = _TIME) -> Iterator[Diagnosis]:
    """Send the test trace to each destination called ``name``, or of that type, or to all; yield what became of it.

    Raises:
        ConfigError: there is no such destination.
    """
    chosen = [each for each in settings.destinations if not name or name in {each.name, each.type}]
    if not chosen:
        there = ", ".join(each.name for each in settings.destinations) or "none"
        what = f"no destination {name!r} is configured" if name else "no destination is configured"
        raise ConfigError([f"{what}; there are: {there}. `otelgw destinations` lists what there could be"])
    payload = records.encode(made_up(content=settings.tracing.content))
    trace = decoder(settings.tracing, settings.state_dir)(payload)
    for destination in chosen:
        yield _examined(destination, trace, seconds)


def _examined(destination: Destination, trace: Trace, seconds: float) -> Diagnosis:
    unfiltered = {name: value for name, value in _UNFILTERED.items() if name in destination.options}
    everything = replace(
        destination,
        on="all",
        sampling="all",
        selection=Selection(),
        options={**destination.options, **unfiltered},
    )
    spans = selector(everything)(trace)
    try:
        exporter = catalog.build(everything.type, everything.name, everything.options)
    except DestinationError as error:
        return Diagnosis(destination.name, ok=False, said=str(error), mend=advice(str(error)))
    try:
        return _delivered(exporter, spans, seconds)
    finally:
        exporter.shutdown()


def _delivered(exporter: Exporter, spans: Sequence[ReadableSpan], seconds: float) -> Diagnosis:
    began = time.monotonic()
    outcome = exporter.deliver(spans, began + seconds)
    took = f"{(time.monotonic() - began) * 1000:.0f} ms"
    if outcome.rejected or any(verdict.state != "done" for verdict in outcome.verdicts):
        reason = outcome.reason or outcome.message or "it was rejected without a word"
        return Diagnosis(exporter.name, ok=False, said=reason, mend=advice(reason))
    if not isinstance(exporter, ReadsBack):
        return Diagnosis(exporter.name, ok=True, said=f"delivered in {took}")
    try:
        missing = _looked_for(exporter.read_back, spans, seconds)
    except PermissionError as error:
        return Diagnosis(exporter.name, ok=True, said=f"delivered in {took}; not looked for: {error}")
    if missing:
        said = f"delivered in {took}, but not to be found there: {missing}"
        return Diagnosis(exporter.name, ok=False, said=said, mend=advice(missing))
    return Diagnosis(exporter.name, ok=True, said=f"delivered in {took} and read back")


def _looked_for(
    read_back: Callable[[Sequence[ReadableSpan], float], str], spans: Sequence[ReadableSpan], seconds: float
) -> str:
    """Return what is still missing of ``spans`` when the time is over."""
    deadline = time.monotonic() + min(_FOUND, seconds)
    while (missing := read_back(spans, deadline)) and time.monotonic() + _PAUSE < deadline:
        time.sleep(_PAUSE)
    return missing


def made_up(*, content: bool = True) -> Record:
    """Return the record of the request that the doctor makes up, ids of its own each time."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": _QUESTION}], "metadata": {"tags": [MODEL]}}
    answered = {
        "id": f"chatcmpl-{MODEL}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": _ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17},
    }
    bodies = [capture_whole(msgspec.json.encode(body), "application/json") for body in (asked, answered)]
    target = Target(alias=MODEL, model=MODEL, provider="otelgw", operation="chat", dialect="openai_chat")
    facts = {} if content else facts_without_content(target, bodies[0], bodies[1], 200, stream=False)
    if not content:
        bodies = [Capture(content_type=body.content_type, size=body.size, withheld=True) for body in bodies]
    return Record(
        call_id=f"{MODEL}-{secrets.token_hex(8)}",
        trace_id=secrets.token_hex(16),
        span_id=secrets.token_hex(8),
        generation_span_id=secrets.token_hex(8),
        start=time.time_ns() - 20 * _MS,
        upstream_start=1 * _MS,
        first_byte=10 * _MS,
        first_chunk=17 * _MS,
        generation_end=16 * _MS,
        end=18 * _MS,
        route="/v1/chat/completions",
        path="/v1/chat/completions",
        server_address="127.0.0.1",
        server_port=4000,
        user_agent=MODEL,
        status=200,
        target=target,
        attempts=[
            Attempt(span_id=secrets.token_hex(8), number=1, start=2 * _MS, end=16 * _MS, status=200, provider="otelgw")
        ],
        request=bodies[0],
        response=bodies[1],
        content=content,
        facts=facts,
    )
