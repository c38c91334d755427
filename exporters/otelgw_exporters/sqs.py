"""Amazon SQS: one message a call, ten messages a request.

A message is the payload as JSON. One that is too large is packed (gzip in Base64, message attribute
``content-encoding: gzip``), and if that does not help it is a pointer into S3 as Amazon's extended client library has
it. A FIFO queue drops what comes twice within five minutes, by the call's trace and span id.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import aws, blob_keys, catalog, http, options, payload, semconv
from otelgw_exporters.base64_files import stripped
from otelgw_exporters.batches import Batches
from otelgw_exporters.calls import Call, verdicts_of
from otelgw_exporters.delivery import (
    DONE,
    UNUSABLE,
    Exporter,
    Outcome,
    Reply,
    Verdict,
    all_retry,
    deliver_in_parts,
    to_outcome,
)
from otelgw_exporters.errors import DestinationConfigError, naming
from otelgw_exporters.overflow import Overflow, Place

__all__ = ["SqsExporter"]

_TARGET = "AmazonSQS.SendMessageBatch"
_ENTRIES = 10
_LARGEST = 1_048_576
_POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"
_LEAST = 1024  # bytes that every queue takes
_SHORTER = re.compile(r"(?:shorter|longer) than (\d{4,7}) bytes")
_NO_XML = re.compile("[\ufffe\uffff]")  # the only characters that JSON leaves and SQS refuses
_NO_GROUP = re.compile(r"[^!-~]")
_ENCODED = {"content-encoding": {"DataType": "String", "StringValue": "gzip"}}
_TOO_LONG = frozenset({"BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong"})


class _Message(NamedTuple):
    """One entry of a request, without its id, and what of it counts against the limit."""

    call: Call
    entry: dict[str, Any]
    size: int


class SqsExporter(Exporter):
    """Sends messages to a queue. Keywords are the options of the catalogue row ``aws_sqs``; what is missing is read
    from the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or a library is missing.
    """

    def __init__(self, *, name: str = "aws_sqs", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("aws_sqs"), given)
            self._queue: str = chosen["queue_url"]
            parts = urlsplit(self._queue)
            if not parts.path.strip("/"):
                raise DestinationConfigError("queue_url: names no queue; it is like https://sqs.REGION…/ACCOUNT/QUEUE")
            if not chosen["region"] and chosen["endpoint_url"]:
                chosen["region"] = aws.region_of(name, chosen, self._queue)
            url = str(chosen["endpoint_url"] or f"{parts.scheme}://{parts.netloc}").rstrip("/") + "/"
            self._service = aws.JsonService(name, "sqs", url, chosen)
            self._overflow = Overflow(name, chosen)
        super().__init__(name, chosen["timeout"])
        self._most = min(chosen["max_message_bytes"], _LARGEST)
        self._fifo = parts.path.endswith(".fifo")
        self._group: str = chosen["message_group"]
        self._strip = chosen["strip_base64_files"]
        self.batching = Batches(chosen["batch_size"], _ENTRIES * _LARGEST, chosen["flush_interval"])

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if self._stopped.is_set():
            return all_retry(len(spans), "the destination is shut down")
        messages: list[_Message] = []
        found: list[tuple[Call, Verdict]] = []
        for call in payload.calls(spans):
            made = self._message(call, deadline)
            if isinstance(made, _Message):
                messages.append(made)
            else:
                found.append((call, made))
        entries: dict[int, Verdict] = {}

        def send(part: Sequence[_Message]) -> Reply:
            return self._send(part, min(deadline, time.monotonic() + self.timeout), entries)

        decided = deliver_in_parts(self._requests(messages), send, deadline)
        outcome = to_outcome(decided)
        for message, verdict in zip(messages, outcome.verdicts, strict=True):
            found.append((message.call, entries.get(id(message), verdict) if verdict is DONE else verdict))
        return Outcome(verdicts_of(len(spans), found))

    def _message(self, call: Call, deadline: float) -> _Message | Verdict:
        """Return the message of a call, or what becomes of it without one."""
        try:
            data = payload.encoded(call)
            entry = self._ordered(call)
            text = _xml_safe(stripped(data) if self._strip else data)
        except UNUSABLE as error:
            return Verdict("dead", f"the call cannot be encoded ({type(error).__name__})")
        if len(text) <= self._most:
            return _Message(call, {**entry, "MessageBody": text.decode()}, len(text))
        around = sum(len(name) + len("Stringgzip") for name in _ENCODED)
        fitted = self._overflow.fit(
            call, text, lambda packed: -(-len(packed) // 3) * 4 + around <= self._most, deadline
        )
        if isinstance(fitted, Reply):
            return _verdict(fitted)
        if isinstance(fitted, Place):
            return _pointing(call, entry, fitted)
        body = base64.b64encode(fitted).decode()
        return _Message(call, {**entry, "MessageBody": body, "MessageAttributes": _ENCODED}, len(body) + around)

    def _ordered(self, call: Call) -> dict[str, Any]:
        """Return what a FIFO queue wants to know."""
        if not self._fifo:
            return {}
        attributes = call.span.attributes or {}
        held = {
            "team": attributes.get(semconv.OTELGW_TEAM_ID) or attributes.get(semconv.OTELGW_TEAM_ALIAS),
            "key": attributes.get(semconv.OTELGW_KEY_HASH),
        }.get(self._group)
        group = _NO_GROUP.sub("_", blob_keys.segment(str(held)))[:128] if held else "otelgw"
        return {"MessageGroupId": group, "MessageDeduplicationId": call.identity}

    def _requests(self, messages: Sequence[_Message]) -> list[Sequence[_Message]]:
        """Return the messages in runs of at most ten and of at most the largest size together."""
        runs: list[list[_Message]] = []
        size = 0
        for message in messages:
            if not runs or len(runs[-1]) >= _ENTRIES or size + message.size > self._most:
                runs.append([])
                size = 0
            runs[-1].append(message)
            size += message.size
        return list(runs)

    def _send(self, part: Sequence[_Message], deadline: float, entries: dict[int, Verdict]) -> Reply:
        """Send one request; what is told of single messages goes into ``entries``, by the message's ``id()``."""
        numbered = [{"Id": str(number), **message.entry} for number, message in enumerate(part)]
        body = msgspec.json.encode({"QueueUrl": self._queue, "Entries": numbered})
        answer = self._service.call(_TARGET, body, deadline)
        if isinstance(answer, Reply):
            return answer
        reply = self._learnt(self._service.classify(answer))
        if reply.kind == "refused" and any(code in reply.reason for code in _TOO_LONG):
            return Reply("too_large", reply.reason)
        if reply.kind == "accepted":
            for number, failed in _failed(answer, self._service):
                if 0 <= number < len(part):
                    entries[id(part[number])] = _verdict(self._learnt(failed))
        return reply

    def _learnt(self, reply: Reply) -> Reply:
        """Return the reply; one that says that the queue takes less than was thought is tried again, with less."""
        told = _SHORTER.search(reply.reason) if reply.kind == "refused" else None
        if told is None or not _LEAST <= int(told[1]) < self._most:
            return reply
        self._most = int(told[1])
        return Reply("again", f"the queue takes {self._most} bytes at most; what is larger is packed from now on")

    def shutdown(self) -> None:
        super().shutdown()
        self._service.close()
        self._overflow.close()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r} {urlsplit(self._queue).path.rpartition('/')[2]} at {self._service}>"
        )


def _pointing(call: Call, entry: dict[str, Any], place: Place) -> _Message:
    """Return the message that Amazon's extended client library reads the payload for."""
    pointer = {"s3BucketName": place.bucket, "s3Key": place.key}
    body = msgspec.json.encode([_POINTER, pointer]).decode()
    size = {"DataType": "Number", "StringValue": str(place.size)}
    whole = {**entry, "MessageBody": body, "MessageAttributes": {"ExtendedPayloadSize": size}}
    return _Message(call, whole, len(body) + len("ExtendedPayloadSizeNumber") + len(str(place.size)))


def _xml_safe(data: bytes) -> bytes:
    """Return JSON without the characters that SQS does not take, each as JSON's escape of it."""
    text = data.decode()
    if not _NO_XML.search(text):
        return data
    return _NO_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _verdict(reply: Reply) -> Verdict:
    return Verdict("retry" if reply.kind == "again" else "dead", reply.reason, reply.after)


def _failed(answer: http.Answer, service: aws.JsonService) -> list[tuple[int, Reply]]:
    """Return the messages that were not taken of a request that was: by number, with what that means for each."""
    try:
        failed = msgspec.json.decode(answer.body).get("Failed") or ()
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        return []
    found = []
    for each in failed:
        code, message = str(each.get("Code", "")), str(each.get("Message") or "")
        reply = service.explain(code, message, final=bool(each.get("SenderFault")))
        number = str(each.get("Id", ""))
        found.append((int(number) if number.isdecimal() else -1, reply))
    return found
