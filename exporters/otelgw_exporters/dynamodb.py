"""Amazon DynamoDB: one item a call.

The item's key is the call's trace and span id, so that a repetition is the same item. Numbers and names are attributes
of their own; the whole payload is the attribute ``payload`` as JSON text, or ``payload_gzip`` (binary) or
``payload_s3`` (its URI) where an item of 400 KB could not hold it.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_exporters import aws, catalog, document, http, options, payload
from otelgw_exporters.base64_files import stripped
from otelgw_exporters.calls import Call, verdicts_of
from otelgw_exporters.delivery import (
    DONE,
    OPERATOR_DELAY,
    UNUSABLE,
    Exporter,
    Outcome,
    Reply,
    Verdict,
    all_retry,
)
from otelgw_exporters.errors import naming
from otelgw_exporters.overflow import Overflow, Place

__all__ = ["COLUMNS", "DynamoDbExporter"]

_PUT, _BATCH = "DynamoDB_20120810.PutItem", "DynamoDB_20120810.BatchWriteItem"
_ITEMS = 25
_REQUEST = 15 * 1024 * 1024  # bytes of a batch; Amazon takes 16 MiB
_LARGEST = 400 * 1024 - 512  # bytes of an item: names and values
_AT_ONCE = 4
_SECOND = 1_000_000_000
_DAY = 86_400
_MOST = 10**37  # DynamoDB's numbers have 38 digits
_LATE = Reply("again", "the time for one delivery was over")
_SCHEMA = "the table's keys are others: mend the destination's partition_key and sort_key"

# Attribute -> where it stands in the payload. What is no text, number or truth value there is left out.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "call_id": ("id",),
    "trace_id": ("trace_id",),
    "span_id": ("otelgw", "span_id"),
    "call_type": ("call_type",),
    "status": ("status",),
    "error_str": ("error_str",),
    "startTime": ("startTime",),
    "endTime": ("endTime",),
    "response_time": ("response_time",),
    "model": ("model",),
    "model_group": ("model_group",),
    "custom_llm_provider": ("custom_llm_provider",),
    "prompt_tokens": ("prompt_tokens",),
    "completion_tokens": ("completion_tokens",),
    "total_tokens": ("total_tokens",),
    "response_cost": ("response_cost",),
    "end_user": ("end_user",),
    "user_api_key_hash": ("metadata", "user_api_key_hash"),
    "user_api_key_alias": ("metadata", "user_api_key_alias"),
    "user_api_key_team_id": ("metadata", "user_api_key_team_id"),
    "user_api_key_team_alias": ("metadata", "user_api_key_team_alias"),
}
_TEXT = 2048  # bytes of a text that is an attribute of its own; whole it is in the payload


class _Item(NamedTuple):
    """What one call is in the table, in DynamoDB's JSON, and its size there."""

    call: Call
    attributes: dict[str, dict[str, Any]]
    size: int


class DynamoDbExporter(Exporter):
    """Puts items into a table. Keywords are the options of the catalogue row ``dynamodb``; what is missing is read from
    the environment.

    Raises:
        DestinationConfigError: an option or variable cannot be used, or a library is missing.
    """

    def __init__(self, *, name: str = "dynamodb", **given: Any) -> None:
        with naming(name):
            chosen = options.complete(catalog.row("dynamodb"), given)
            url = str(chosen["endpoint_url"] or "") or _endpoint(aws.region_of(name, chosen))
            self._service = aws.JsonService(name, "dynamodb", url.rstrip("/") + "/", chosen)
            self._overflow = Overflow(name, chosen)
        super().__init__(name, chosen["timeout"])
        self._table: str = chosen["table"]
        self._key, self._sort = chosen["partition_key"], chosen["sort_key"]
        self._ttl = (chosen["ttl_attribute"], (chosen["ttl_days"] or 0) * _DAY)
        self._strip = chosen["strip_base64_files"]
        self._together = chosen["write"] == "batch"
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def deliver(self, spans: Sequence[ReadableSpan], deadline: float) -> Outcome:
        if self._stopped.is_set():
            return all_retry(len(spans), "the destination is shut down")
        items: list[_Item] = []
        found: list[tuple[Call, Verdict]] = []
        for call in payload.calls(spans):
            made = self._item(call, deadline)
            if isinstance(made, _Item):
                items.append(made)
            else:
                found.append((call, _verdict(made)))
        replies = self._in_batches(items, deadline) if self._together else self._one_by_one(items, deadline)
        found += ((item.call, _verdict(reply)) for item, reply in zip(items, replies, strict=True))
        return Outcome(verdicts_of(len(spans), found))

    # What an item is

    def _item(self, call: Call, deadline: float) -> _Item | Reply:
        try:
            data = payload.encoded(call)
            data = stripped(data) if self._strip else data
            attributes = self._attributes(call, document.read(data))
        except UNUSABLE as error:
            return Reply("refused", f"the call cannot be encoded ({type(error).__name__})")
        size = sum(len(name.encode()) + _size(value) for name, value in attributes.items())
        if size + len("payload") + len(data) <= _LARGEST:
            attributes["payload"] = {"S": data.decode()}
            return _Item(call, attributes, size + len(data))
        room = _LARGEST - size - len("payload_gzip")
        fitted = self._overflow.fit(call, data, lambda packed: len(packed) <= room, deadline)
        if isinstance(fitted, Reply):
            return fitted
        if isinstance(fitted, Place):
            attributes["payload_s3"] = {"S": f"s3://{fitted.bucket}/{fitted.key}"}
            return _Item(call, attributes, size + len(fitted.key))
        attributes["payload_gzip"] = {"B": base64.b64encode(fitted).decode()}
        return _Item(call, attributes, size + len(fitted))

    def _attributes(self, call: Call, tree: Any) -> dict[str, dict[str, Any]]:
        end = call.span.end_time or call.span.start_time or 0
        attributes = dict(_columns(tree))
        name, lasts = self._ttl
        if lasts:
            attributes[name] = {"N": str(end // _SECOND + lasts)}
        attributes[self._key] = {"S": call.identity}
        if self._sort:
            at = datetime.fromtimestamp(end // _SECOND, UTC).replace(microsecond=end % _SECOND // 1000)
            attributes[self._sort] = {"S": f"{at.isoformat(timespec='microseconds')}#{call.identity}"}
        return attributes

    # How items are written

    def _one_by_one(self, items: Sequence[_Item], deadline: float) -> list[Reply]:
        """Put each item by itself, if it is not there; some at a time. After one that has to wait all others do.

        The first goes alone: it shows whether anybody is there.
        """
        stopped: list[Reply] = []

        def put(item: _Item) -> Reply:
            if stopped:
                return stopped[0]
            if time.monotonic() >= deadline:
                return _LATE
            reply = self._put(item, deadline)
            if reply.kind == "again":
                stopped.append(reply)
            return reply

        first = [put(item) for item in items[:1]]
        if len(items) < 2 or stopped:
            return first * len(items)
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="otelgw dynamodb")
            pool = self._pool
        try:
            return first + list(pool.map(put, items[1:]))
        except (CancelledError, RuntimeError):  # shutdown
            return [Reply("again", "the destination is shut down")] * len(items)

    def _put(self, item: _Item, deadline: float) -> Reply:
        request = {
            "TableName": self._table,
            "Item": item.attributes,
            "ConditionExpression": "attribute_not_exists(#key)",
            "ExpressionAttributeNames": {"#key": self._key},
        }
        answer, reply = self._call(_PUT, request, deadline)
        if answer is not None and "ConditionalCheckFailedException" in reply.reason:
            return Reply("accepted")  # it is there from an earlier try
        return reply

    def _in_batches(self, items: Sequence[_Item], deadline: float) -> list[Reply]:
        replies: list[Reply] = []
        for run in _runs(items):
            halt = next((reply for reply in replies if reply.kind == "again"), None)
            replies += [halt] * len(run) if halt else self._batch(run, deadline)
        return replies

    def _batch(self, items: Sequence[_Item], deadline: float) -> list[Reply]:
        """Write one batch; items that DynamoDB names as unprocessed are to be tried again."""
        if time.monotonic() >= deadline:
            return [_LATE] * len(items)
        by_key = {item.call.identity: item for item in items}  # twice the same key is an error
        puts = [{"PutRequest": {"Item": item.attributes}} for item in by_key.values()]
        answer, reply = self._call(_BATCH, {"RequestItems": {self._table: puts}}, deadline)
        if reply.kind == "refused" and len(items) > 1:
            # One item may be at fault; by themselves the others are not.
            return [each for item in items for each in self._batch([item], deadline)]
        if answer is None or reply.kind != "accepted":
            return [reply] * len(items)
        left = _unprocessed(answer, self._key)
        wait = Reply("again", f"{self._service}: the table's throughput is used up (UnprocessedItems)")
        return [wait if item.call.identity in left else reply for item in items]

    def _call(self, target: str, request: Mapping[str, Any], deadline: float) -> tuple[http.Answer | None, Reply]:
        body = msgspec.json.encode(request)
        answer = self._service.call(target, body, min(deadline, time.monotonic() + self.timeout))
        if isinstance(answer, Reply):
            return None, answer
        reply = self._service.classify(answer)
        if reply.kind == "refused" and "ValidationException" in reply.reason and " key" in reply.reason:
            return answer, Reply("again", f"{reply.reason} ({_SCHEMA})", OPERATOR_DELAY)
        return answer, reply

    def shutdown(self) -> None:
        super().shutdown()
        self._service.close()
        self._overflow.close()
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._table} at {self._service}>"


def _endpoint(region: str) -> str:
    return f"https://dynamodb.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _verdict(reply: Reply) -> Verdict:
    if reply.kind == "accepted":
        return DONE
    return Verdict("retry" if reply.kind == "again" else "dead", reply.reason, reply.after)


def _columns(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, path in COLUMNS.items():
        value = tree
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, bool):
            yield name, {"BOOL": value}
        elif isinstance(value, int | float) and -_MOST < value < _MOST:
            yield name, {"N": repr(value)}
        elif isinstance(value, str):
            yield name, {"S": value.encode()[:_TEXT].decode("utf-8", "ignore")}


def _size(value: Mapping[str, Any]) -> int:
    """Return what an attribute's value counts, or a little more."""
    ((_, held),) = value.items()
    return len(held.encode()) + 1 if isinstance(held, str) else 1


def _runs(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    run: list[_Item] = []
    size = 0
    for item in items:
        if run and (len(run) >= _ITEMS or size + item.size > _REQUEST):
            yield run
            run, size = [], 0
        run.append(item)
        size += item.size
    if run:
        yield run


def _unprocessed(answer: http.Answer, key: str) -> set[str]:
    try:
        tables = msgspec.json.decode(answer.body).get("UnprocessedItems") or {}
        return {each["PutRequest"]["Item"][key]["S"] for table in tables.values() for each in table}
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        return set()
