"""The spans of one request as a tree, whichever way they came: from the SDK, over OTLP, or as the console's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as ProtoStatus
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

__all__ = ["Node", "Tree", "trees"]

_KINDS = {Span.SPAN_KIND_SERVER: "SERVER", Span.SPAN_KIND_CLIENT: "CLIENT", Span.SPAN_KIND_INTERNAL: "INTERNAL"}
# Facts of the generation that stand on other spans under names of their own.
_CONTENT = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions")


@dataclass(frozen=True)
class Node:
    """One span. Ids are hex, times nanoseconds; messages are decoded where they came as JSON."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    failed: bool
    attributes: Mapping[str, Any]

    @classmethod
    def of_sdk(cls, span: ReadableSpan) -> Self:
        assert span.context is not None
        return cls(
            span.name,
            span.kind.name,
            f"{span.context.trace_id:032x}",
            f"{span.context.span_id:016x}",
            f"{span.parent.span_id:016x}" if span.parent else "",
            span.start_time or 0,
            span.end_time or 0,
            span.status.status_code is StatusCode.ERROR,
            {key: _plain(value) for key, value in (span.attributes or {}).items()},
        )

    @classmethod
    def of_otlp(cls, span: Span) -> Self:
        return cls(
            span.name,
            _KINDS[span.kind],
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code == ProtoStatus.STATUS_CODE_ERROR,
            _read(_pairs(span.attributes)),
        )

    @classmethod
    def of_console(cls, span: Mapping[str, Any]) -> Self:
        """``span`` is one JSON object of the SDK's ``ReadableSpan.to_json``."""
        return cls(
            span["name"],
            span["kind"].removeprefix("SpanKind."),
            span["context"]["trace_id"].removeprefix("0x"),
            span["context"]["span_id"].removeprefix("0x"),
            (span["parent_id"] or "").removeprefix("0x"),
            _nanoseconds(span["start_time"]),
            _nanoseconds(span["end_time"]),
            span["status"]["status_code"] == "ERROR",
            _read(span["attributes"]),
        )


@dataclass(frozen=True)
class Tree:
    """SERVER, the generation's span (None for a call that is no generation, or that was refused), its attempts."""

    server: Node
    generation: Node | None = None
    attempts: Sequence[Node] = field(default_factory=tuple)

    @property
    def spans(self) -> list[Node]:
        return [self.server, *([self.generation] if self.generation else []), *self.attempts]

    @property
    def model(self) -> Node:
        """The generation's span, where there must be one."""
        assert self.generation is not None, f"{self.server.name} has no generation"
        return self.generation

    def usage(self) -> tuple[Any, Any]:
        """Return input and output tokens."""
        found = self.model.attributes
        return found.get("gen_ai.usage.input_tokens"), found.get("gen_ai.usage.output_tokens")

    def said(self) -> str:
        """Return the text of the answer."""
        messages = self.model.attributes["gen_ai.output.messages"]
        return "".join(part["content"] for message in messages for part in message["parts"] if part["type"] == "text")


def trees(nodes: Iterable[Node]) -> list[Tree]:
    """Return the trees that ``nodes`` make, by time.

    Asserts what holds of every one: it is whole, one generation at most, children within their parents, and
    ``gen_ai.*`` on the generation's span only.
    """
    found = list(nodes)
    servers = sorted((node for node in found if node.kind == "SERVER"), key=lambda node: node.start)
    made = [_tree(server, [node for node in found if node.trace_id == server.trace_id]) for server in servers]
    known = {node.span_id for tree in made for node in tree.spans}
    assert [node for node in found if node.span_id not in known] == [], "spans that hang under no SERVER span"
    return made


def _tree(server: Node, trace: Sequence[Node]) -> Tree:
    below = [node for node in trace if node.parent_id == server.span_id]
    generations = [node for node in below if "gen_ai.operation.name" in node.attributes]
    assert len(generations) <= 1, f"{server.name} has {len(generations)} generations"
    generation = generations[0] if generations else None
    parent = generation or server
    attempts = sorted((node for node in trace if node.parent_id == parent.span_id), key=lambda node: node.start)
    tree = Tree(server, generation, tuple(attempts))
    if generation is not None:
        assert below == [generation]
        _assert_within(generation, server)
    for attempt in attempts:
        assert attempt.kind == "CLIENT"
        _assert_within(attempt, parent)
    for node in (server, *attempts):
        assert [key for key in node.attributes if key.startswith("gen_ai.")] == []
    for node in tree.spans:
        assert node.attributes["otelgw.call_id"] == server.attributes["otelgw.call_id"]
    return tree


def _assert_within(child: Node, parent: Node) -> None:
    assert parent.start <= child.start <= child.end <= parent.end, f"{child.name} is not within {parent.name}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: json.loads(value) if key in _CONTENT and isinstance(value, str) else value
        for key, value in attributes.items()
    }


def _pairs(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _pairs(value.kvlist_value.values)
    return getattr(value, kind) if kind else None


def _nanoseconds(time: str) -> int:
    moment = datetime.fromisoformat(time)
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
