"""Apache Kafka: spans as OTLP, which the Collector's kafkareceiver reads, or calls as the standard payload.

The key of a message is the trace's id in hex, as the Collector's kafkaexporter writes it, and keys go to partitions as
they do there: all spans of a trace are in one partition, whoever sent them. A batch that is too large for the topic is
sent again message by message, and a message that is, in halves.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_trace_id

from otelgw_exporters import catalog, http, options, payload
from otelgw_exporters.calls import Call
from otelgw_exporters.delivery import DONE, UNUSABLE, Exporter, Outcome, Reply, Verdict, all_retry
from otelgw_exporters.errors import DestinationConfigError, naming
from otelgw_exporters.kafka_client import Client, Message
from otelgw_exporters.otlp_encoder import encoder
from otelgw_exporters.otlp_wire import EncodedSpan, assemble, split
from otelgw_exporters.semconv import profile_of

__all__ = ["KafkaExporter"]

_TOPICS = {"otlp_proto": "otlp_spans", "payload": "otelgw_calls"}
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?")
_AROUND = 400  # bytes of a message beside its spans: the key, and what Kafka writes around it


class _Piece(NamedTuple):
    """A message, where its spans stand in what was given, and the spans themselves if it can be halved."""

    message: Message
    positions: tuple[int, ...]
    spans: tuple[EncodedSpan, ...] = ()


class KafkaExporter(Exporter):
    """Sends messages to a topic. Keywords are the options of the catalogue row ``kafka``; what is missing is read from
    the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or confluent-kafka is missing.
    """

    def __init__(self, *, name: str = "kafka", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("kafka"), given)
            brokers = _brokers(chosen["brokers"])
            http.Tls(*(chosen[path] or "" for path in ("certificate", "client_key", "client_certificate"))).check(name)
            further = {key: str(value) for key, value in (chosen["client"] or {}).items()}
            mask = http.Masked({**further, "": chosen["password"] or ""})
            self._topic: str = chosen["topic"] or _TOPICS[chosen["format"]]
            self._client = Client({**_settings(brokers, chosen), **further}, self._topic, mask)
        super().__init__(name, chosen["timeout"])
        self._brokers = brokers
        self._largest = max(chosen["max_message_bytes"] - _AROUND, 1)
        self._encode = encoder(profile_of(chosen))
        self._pieces = self._traces
        if chosen["format"] == "payload":
            self._pieces = self._calls
        else:
            self._encode.shared()
            self.ahead = self._encode.ready

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if self._stopped.is_set():
            return all_retry(len(spans), "the destination is shut down")
        verdicts = [DONE] * len(spans)
        pieces = self._pieces(spans, verdicts)
        rounds = deque([pieces] if pieces else [])
        while rounds:
            sent = rounds.popleft()
            replies = self._client.send([piece.message for piece in sent], deadline)
            for piece, reply in zip(sent, replies, strict=True):
                smaller = self._smaller(piece, alone=len(sent) == 1) if reply.kind == "too_large" else []
                rounds.extend([each] for each in smaller)
                verdict = _verdict(reply, len(piece.message.value))
                for position in piece.positions if not smaller else ():
                    verdicts[position] = verdict
        return Outcome(tuple(verdicts))

    def _traces(self, spans: Sequence[ReadableSpan], verdicts: list[Verdict]) -> list[_Piece]:
        """Return the messages of the spans' traces; a span that has no form in OTLP gets its verdict."""
        traces: dict[bytes, list[tuple[int, EncodedSpan]]] = {}
        for position, span in enumerate(spans):
            try:
                encoded = self._encode(span)
                key = format_trace_id(span.context.trace_id).encode() if span.context else b""
            except UNUSABLE as error:
                verdicts[position] = Verdict("dead", f"the span cannot be encoded ({type(error).__name__})")
                continue
            traces.setdefault(key, []).append((position, encoded))
        pieces: list[_Piece] = []
        for key, members in traces.items():
            positions = iter([position for position, _ in members])
            runs = split([encoded for _, encoded in members], self._largest)
            pieces += [_piece(key, tuple(next(positions) for _ in run), tuple(run)) for run in runs]
        return pieces

    def _calls(self, spans: Sequence[ReadableSpan], verdicts: list[Verdict]) -> list[_Piece]:
        """Return a message a call; the spans of one that cannot be encoded get their verdict."""
        pieces: list[_Piece] = []
        for call in payload.calls(spans):
            try:
                pieces.append(_Piece(Message(_trace(call), payload.encoded(call)), call.positions))
            except UNUSABLE as error:
                for position in call.positions:
                    verdicts[position] = Verdict("dead", f"the call cannot be encoded ({type(error).__name__})")
        return pieces

    def _smaller(self, piece: _Piece, *, alone: bool) -> list[_Piece]:
        """Return what to send instead of a message that was too large: by itself it may not be."""
        if not alone:
            return [piece]
        middle = len(piece.spans) // 2
        if not middle:
            return []
        key, spans, positions = piece.message.key, piece.spans, piece.positions
        return [_piece(key, positions[:middle], spans[:middle]), _piece(key, positions[middle:], spans[middle:])]

    def shutdown(self) -> None:
        super().shutdown()
        self._client.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._topic} at {','.join(self._brokers)}>"


def _piece(key: bytes, positions: tuple[int, ...], spans: tuple[EncodedSpan, ...]) -> _Piece:
    return _Piece(Message(key, assemble(spans)), positions, spans)


def _trace(call: Call) -> bytes:
    return call.identity.partition("-")[0].encode()


def _verdict(reply: Reply, size: int) -> Verdict:
    if reply.kind == "accepted":
        return DONE
    if reply.kind == "too_large":
        mend = "raise the topic's max.message.bytes and the destination's max_message_bytes"
        return Verdict("dead", f"{reply.reason}: it has {size} bytes ({mend})")
    return Verdict("retry" if reply.kind == "again" else "dead", reply.reason, reply.after)


def _brokers(given: Sequence[str]) -> tuple[str, ...]:
    for number, broker in enumerate(given, 1):
        if not _BROKER.fullmatch(broker):
            raise DestinationConfigError(f"brokers: entry {number} is not host:port, such as 127.0.0.1:9092")
    return tuple(given)


def _settings(brokers: Sequence[str], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what librdkafka is to know."""
    largest: int = chosen["max_message_bytes"]
    return {
        "bootstrap.servers": ",".join(brokers),
        "client.id": "otelgw",
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": chosen["compression"],
        "partitioner": "fnv1a_random",  # as Sarama does it, and with it the Collector
        "message.max.bytes": largest,
        "batch.size": min(largest, 1_000_000),
        "message.timeout.ms": 0,  # each delivery has its own deadline
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.propagation.max.ms": 3000,
        "socket.keepalive.enable": True,
        "log_level": 0,  # it would write to stderr; what it has to say comes as errors, too
        **_security(chosen),
    }


def _security(chosen: Mapping[str, Any]) -> dict[str, str]:
    named = {
        "ssl.ca.location": chosen["certificate"],
        "ssl.key.location": chosen["client_key"],
        "ssl.certificate.location": chosen["client_certificate"],
    }
    files = {name: str(path) for name, path in named.items() if path}
    login = bool(chosen["username"])
    if login != bool(chosen["password"]):
        raise DestinationConfigError("username and password go together: set both")
    # A password goes over a line in plain text only where that was asked for.
    wanted = chosen["security_protocol"] or ("sasl_ssl" if login else "ssl" if files else "plaintext")
    if login and not wanted.startswith("sasl"):
        raise DestinationConfigError(f"security_protocol: {wanted} has no login; write sasl_ssl, or leave out username")
    found = {"security.protocol": wanted, **files}
    if login:
        found |= {
            "sasl.mechanism": str(chosen["sasl_mechanism"]).upper(),
            "sasl.username": chosen["username"],
            "sasl.password": chosen["password"],
        }
    return found
