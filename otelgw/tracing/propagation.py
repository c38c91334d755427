"""Trace context in from callers and out to upstreams: W3C Trace Context level 2, B3, baggage.

W3C rules are those of https://www.w3.org/TR/trace-context-2/: exactly one ``traceparent``; an invalid one restarts the
trace and drops ``tracestate``; a higher version is read as version 00. W3C wins over B3. The caller's ``sampled`` and
``random`` flags travel on unchanged; what is recorded is the gateway's own decision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import urandom
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.baggage import get_all as get_all_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

__all__ = [
    "RANDOM",
    "SAMPLED",
    "TRACE_HEADERS",
    "Remote",
    "extract",
    "extract_baggage",
    "inject",
    "new_span_id",
    "new_trace_id",
    "parse_traceparent",
    "parse_tracestate",
    "ratio_sampled",
]

SAMPLED = 0x01
RANDOM = 0x02

# Never forwarded as the caller sent them; what goes upstream is the attempt span's own context.
TRACE_HEADERS = frozenset(
    {
        b"traceparent", b"tracestate", b"baggage", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid",
        b"x-b3-sampled", b"x-b3-flags", b"uber-trace-id", b"x-datadog-trace-id", b"x-datadog-parent-id",
        b"x-datadog-sampling-priority", b"x-datadog-origin", b"x-datadog-tags", b"x-amzn-trace-id",
        b"x-cloud-trace-context", b"sentry-trace", b"newrelic", b"grpc-trace-bin", b"x-ot-span-context",
    }
)  # fmt: skip

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_TRACESTATE_KEY = re.compile(rb"[a-z0-9][a-z0-9_\-*/@]{0,255}")
_TRACESTATE_VALUE = re.compile(rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MAX_MEMBERS = 32
_MAX_TRACESTATE = 8192
_ZERO_TRACE = b"0" * 32
_ZERO_SPAN = b"0" * 16


class _Entropy:
    """The system's random bytes, fetched many at a time: ids appear in answers, so no caller may predict the next."""

    __slots__ = ("_at", "_hex")

    def __init__(self) -> None:
        self._hex = ""
        self._at = 0

    def digits(self, count: int) -> str:
        """Return ``count`` random hex digits, not all of them 0."""
        start = self._at
        self._at = start + count
        if self._at > len(self._hex):
            self._hex = urandom(_ENTROPY).hex()
            start, self._at = 0, count
        found = self._hex[start : self._at]
        return found if found.strip("0") else self.digits(count)


_ENTROPY = 4096  # bytes
_entropy = _Entropy()


class Remote(NamedTuple):
    """A caller's span context, ids in lower-case hex. Empty ids: only a sampling decision came (B3's ``b3: 0``)."""

    trace_id: str
    span_id: str
    flags: int
    state: str = ""


def new_trace_id() -> str:
    """Return a random trace id; all of its bits are random, so the ``random`` flag may be set."""
    return _entropy.digits(32)


def new_span_id() -> str:
    return _entropy.digits(16)


def parse_traceparent(value: bytes) -> tuple[str, str, int] | None:
    """Return (trace id, parent id, flags), or None where the level-2 rules say to restart the trace."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or trace_id == _ZERO_TRACE or span_id == _ZERO_SPAN:
        return None
    if rest is not None and version == b"00":
        return None
    return trace_id.decode(), span_id.decode(), int(flags, 16) & (SAMPLED | RANDOM)


def parse_tracestate(values: Sequence[bytes]) -> str:
    """Return the joined, validated ``tracestate``; empty where it must be or may be discarded."""
    members: list[bytes] = []
    for value in values:
        for raw in value.split(b","):
            member = raw.strip(b" \t")
            if not member:
                continue
            key, separator, text = member.partition(b"=")
            if not separator or _TRACESTATE_KEY.fullmatch(key) is None or _TRACESTATE_VALUE.fullmatch(text) is None:
                return ""
            members.append(member)
    if len(members) > _MAX_MEMBERS:
        return ""
    joined = b",".join(members)
    return joined.decode("ascii") if len(joined) <= _MAX_TRACESTATE else ""


class _ByteHeaders(Getter[Sequence[tuple[bytes, bytes]]]):
    """Getter over ASGI headers for OpenTelemetry's propagators."""

    def get(self, carrier: Sequence[tuple[bytes, bytes]], key: str) -> list[str] | None:
        wanted = key.lower().encode("latin-1")
        found = [value.decode("latin-1") for name, value in carrier if name == wanted]
        return found or None

    def keys(self, carrier: Sequence[tuple[bytes, bytes]]) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_getter = _ByteHeaders()
_b3_single = B3SingleFormat()
_b3_multi = B3MultiFormat()
_baggage = W3CBaggagePropagator()


def extract(headers: Sequence[tuple[bytes, bytes]], propagators: Sequence[str]) -> Remote | None:
    """Return the caller's span context from ASGI headers (lower-case names), or None for a new trace."""
    parents: list[bytes] = []
    states: list[bytes] = []
    b3_seen = False
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
        elif name == b"b3" or name.startswith(b"x-b3-"):
            b3_seen = True
    if parents and "tracecontext" in propagators:
        parsed = parse_traceparent(parents[0].strip(b" \t")) if len(parents) == 1 else None
        return None if parsed is None else Remote(*parsed, parse_tracestate(states))
    if b3_seen:
        return _extract_b3(headers, propagators)
    return None


def _extract_b3(headers: Sequence[tuple[bytes, bytes]], propagators: Sequence[str]) -> Remote | None:
    """Read B3, single header first (https://github.com/openzipkin/b3-propagation).

    The library turns an absent sampling decision into "no" for the multi-header form and into "yes" for the single
    one; both mean "decide yourself", so an absent decision is read as sampled here. A debug flag implies sampled.
    """
    values = {name: value.strip() for name, value in headers if name == b"b3" or name.startswith(b"x-b3-")}
    single = values.get(b"b3")
    if single is not None and "b3" in propagators:
        context = _b3_single.extract([(b"b3", single)], Context(), _getter)
        parts = single.split(b"-")
        decision = parts[2] if len(parts) > 2 else b""
    elif "b3multi" in propagators:
        context = _b3_multi.extract(headers, Context(), _getter)
        decision = b"d" if values.get(b"x-b3-flags") == b"1" else values.get(b"x-b3-sampled", b"")
    else:
        return None
    span_context = trace.get_current_span(context).get_span_context()
    if not span_context.is_valid:
        denied = single == b"0" or (single is None and decision.lower() in {b"0", b"false"})
        return Remote("", "", 0) if denied else None
    flags = 0 if decision.lower() in {b"0", b"false"} else SAMPLED
    return Remote(f"{span_context.trace_id:032x}", f"{span_context.span_id:016x}", flags)


def extract_baggage(headers: Sequence[tuple[bytes, bytes]], allow: Sequence[str]) -> dict[str, str]:
    """Return the allow-listed baggage entries; a caller's baggage is untrusted input, so nothing else is read."""
    if not allow or not any(name == b"baggage" for name, _ in headers):
        return {}
    # Several headers are one list (W3C Baggage, 3.2); the propagator reads the first only.
    joined = b",".join(value for name, value in headers if name == b"baggage")
    entries = get_all_baggage(_baggage.extract([(b"baggage", joined)], Context(), _getter))
    return {key: str(entries[key])[:4096] for key in allow if key in entries}


def inject(
    formats: Sequence[str], trace_id: str, span_id: str, flags: int, state: str = "", baggage: str = ""
) -> list[tuple[bytes, bytes]]:
    """Return the headers that make ``span_id`` the upstream's parent, in each of ``formats``."""
    headers: list[tuple[bytes, bytes]] = []
    for name in formats:
        if name == "tracecontext":
            headers.append((b"traceparent", f"00-{trace_id}-{span_id}-{flags:02x}".encode()))
            if state:
                headers.append((b"tracestate", state.encode()))
        elif name in {"b3", "b3multi"}:
            carrier: dict[str, str] = {}
            span_context = SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(flags & SAMPLED))
            context = trace.set_span_in_context(NonRecordingSpan(span_context), Context())
            (_b3_single if name == "b3" else _b3_multi).inject(carrier, context)
            headers.extend((key.lower().encode(), value.encode()) for key, value in carrier.items())
        elif name == "baggage" and baggage:
            headers.append((b"baggage", baggage.encode()))
    return headers


def ratio_sampled(trace_id: str, ratio: float) -> bool:
    """Return the ``TraceIdRatioBased`` decision of the OpenTelemetry SDK: the lower 64 bits below ratio times 2**64."""
    return int(trace_id[16:], 16) < round(ratio * (1 << 64))
