from __future__ import annotations

import io
import json
import os
import pty
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind, Status, StatusCode

from otelgw_exporters.console import ConsoleExporter, render_json, render_tree
from tests.exporters.samples import generation, span


def written(spans: list[Any], **options: Any) -> str:
    stream = io.StringIO()
    outcome = ConsoleExporter(stream=stream, **options).deliver(spans, time.monotonic() + 1)
    assert {verdict.state for verdict in outcome.verdicts} <= {"done"}
    return stream.getvalue()


def trace() -> list[Any]:
    attempts = [
        span(3, {"http.response.status_code": 429, "error.type": "429"}, name="POST", parent=2, kind=SpanKind.CLIENT),
        span(4, {"http.response.status_code": 200}, name="POST", parent=2, kind=SpanKind.CLIENT),
    ]
    return [span(1), generation(2, parent=1), *attempts]


def test_the_tree_has_one_line_a_span() -> None:
    assert render_tree(trace()).splitlines() == [
        "POST /v1/chat/completions  12.3 ms  200",
        "└─ chat echo  12.3 ms  12→34 tokens  $0.000210  ok  “hello”",
        "   ├─ POST  12.3 ms  429",
        "   └─ POST  12.3 ms  200",
    ]


def test_a_failure_is_named() -> None:
    failed = span(1, {"error.type": "upstream_reset"}, status=Status(StatusCode.ERROR))
    refused = span(2, {"http.response.status_code": 401, "error.type": "unauthorized"}, trace=2)

    assert render_tree([failed, refused]).splitlines() == [
        "POST /v1/chat/completions  12.3 ms  upstream_reset",
        "POST /v1/chat/completions  12.3 ms  401 unauthorized",
    ]


def test_a_span_whose_parent_is_elsewhere_is_a_root() -> None:
    assert render_tree([span(1, parent=99)]).startswith("POST /v1")


def test_the_first_words_are_the_last_users_and_lines_end_at_the_width() -> None:
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": "earlier"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "answer"}]},
        {"role": "user", "parts": [{"type": "blob"}, {"type": "text", "content": "the\n  last " + "word " * 90}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": 1}]},
    ]
    (line,) = render_tree([generation(2, **{"gen_ai.input.messages": messages})], width=90).splitlines()

    assert "“the last word word" in line
    assert len(line) == 90
    assert line.endswith("…")


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=30))
def test_no_outside_text_reaches_the_terminal_as_a_command(name: str, words: str, error: str) -> None:
    hostile = generation(2, text=f"{words}\x1b]0;title\x07\u202e\x9b31m", **{"error.type": error})
    hostile._name = name

    tree = render_tree([hostile], width=10_000)

    assert tree.endswith("\n")
    assert len(tree.splitlines()) == 1
    assert tree[:-1].isprintable()


@pytest.mark.parametrize("messages", ["text", 5, [], [5], [{"parts": "x"}], [{"parts": [{"content": 5}]}], {"a": 1}])
def test_messages_of_any_shape_are_no_trouble(messages: Any) -> None:
    assert "chat echo" in render_tree([generation(2, **{"gen_ai.input.messages": messages})])


def test_json_is_the_sdks_with_content_as_text() -> None:
    output = written([generation(2)], format="json")

    shown = json.loads(output)
    assert shown["name"] == "chat echo"
    assert shown["context"]["trace_id"] == f"0x{0xABCDEF:032x}"
    assert json.loads(shown["attributes"]["gen_ai.input.messages"])[0]["role"] == "user"
    assert shown["resource"]["attributes"]["service.name"] == "tests"


def test_a_stream_that_is_no_terminal_gets_json_without_being_asked() -> None:
    assert json.loads(written([span(1)]))["kind"] == "SpanKind.SERVER"


def test_json_shows_values_that_json_lacks_as_text() -> None:
    assert json.loads(render_json(span(1, {"raw": b"\x00", "n": 1})))["attributes"] == {"raw": "b'\\x00'", "n": 1}


def on_a_terminal(**options: Any) -> str:
    leader, follower = pty.openpty()
    try:
        with os.fdopen(follower, "w") as stream:
            ConsoleExporter(stream=stream, **options).deliver(trace(), time.monotonic() + 1)
            return os.read(leader, 65536).decode()
    finally:
        os.close(leader)


def test_a_terminal_gets_the_tree_in_colours_unless_there_are_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER", raising=False)
    assert "\x1b[31m429\x1b[0m" in on_a_terminal()
    assert "└─ POST" in on_a_terminal(color=False)
    assert "\x1b" not in on_a_terminal(color=False)

    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_a_terminal()
    monkeypatch.setenv("OTEL_EXPORTER", "console")
    assert json.loads(on_a_terminal().split("\r\n}\r\n")[0] + "}")["name"].startswith("POST /v1")


def test_a_terminal_without_unicode_gets_escapes() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as stream:
        ConsoleExporter(stream=stream, format="tree").deliver(trace(), time.monotonic() + 1)
        assert b"\\u2514" in raw.getvalue()


def test_a_reader_that_is_gone_makes_spans_dead_instead_of_keeping_them_for_ever() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    outcome = ConsoleExporter(stream=stream, format="json").deliver([span(1)], time.monotonic() + 1)
    with pytest.raises(BrokenPipeError):
        stream.close()

    assert [verdict.state for verdict in outcome.verdicts] == ["dead"]
