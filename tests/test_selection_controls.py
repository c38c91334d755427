"""What a destination sees of a request, by what the config, the key and the caller said about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Destination, Redaction, Selection, Tracing
from otelgw.pipeline_main import decoder
from otelgw.selection import Trace, selector
from otelgw.spool import Intent, killed
from otelgw.tracing import record as records
from otelgw.tracing.record import Audience, Caller, capture_whole
from otelgw_exporters import semconv
from tests.tracing.records import CALLER, record

SAID = "CANARY say hello"


def trace(**changes: Any) -> Trace:
    return decoder(Tracing(), "state")(records.encode(record(**changes)))


def seen(made: Trace, name: str = "console/one", **options: Any) -> Sequence[ReadableSpan]:
    return selector(Destination(name, name.partition("/")[0], **options))(made)


def text(spans: Sequence[ReadableSpan]) -> str:
    return repr([(span.name, dict(span.attributes or {}), span.status.description) for span in spans])


@pytest.mark.parametrize(
    ("audience", "sent"),
    [
        (Audience(), True),
        (Audience(without=("console/one",)), False),
        (Audience(without=("console",)), False),
        (Audience(without=("terminal",)), False),
        (Audience(without=("console/two", "otlp_grpc")), True),
        (Audience(only=("console/one",)), True),
        (Audience(only=("terminal", "x")), True),
        (Audience(only=("console/two",)), False),
        (Audience(only=()), False),
        (Audience(only=("console",), without=("console/one",)), False),
        (Audience(nobody=True), False),
    ],
)
def test_a_request_goes_where_its_record_says(audience: Audience, sent: bool) -> None:
    made = trace(audience=audience)
    assert len(seen(made, callbacks=("terminal",))) == (3 if sent else 0)

    must = seen(made, callbacks=("terminal",), required=True)
    assert len(must) == 3, "it is told of every request"
    assert (SAID in text(must)) == sent, "and what was said only where it is among those that it is for"


def test_a_required_destination_selects_all_the_same() -> None:
    made = trace(audience=Audience(nobody=True))
    assert seen(made, required=True, selection=Selection(model=("claude*",))) == ()
    assert seen(made, required=True, on="failure") == ()


def test_a_request_that_nobody_was_to_have_is_not_theirs_when_its_worker_is_killed() -> None:
    intent = Intent("call", "a" * 32, "b" * 16, 1, audience=Audience(without=("console",)))
    made = decoder(Tracing(), "state")(killed(msgspec.msgpack.encode(intent)))
    assert seen(made) == ()
    assert len(seen(made, "file")) == 1


def test_without_content_an_upstreams_url_has_no_query() -> None:
    made = trace(attempts=[record().attempts[0]])
    assert made.record is not None
    made.record.attempts[0].url = "https://h/v1?q=CANARYquery"
    again = trace(attempts=made.record.attempts)
    assert "CANARYquery" in text(seen(again))
    assert "https://h/v1" in text(seen(again, content=False))
    assert "CANARYquery" not in text(seen(again, content=False))


WHO = Caller(True, "ab" * 32, "search", "user-7", "ann@mail.example", "t-1", "blue")


def test_default_tags_are_added_for_the_destination_that_asks_and_for_no_other() -> None:
    made = trace(caller=WHO, metadata={"tags": ["own", "cache_hit:false"]})
    names = ("cache_hit", "cache_key", "proxy_base_url", "user_api_key_alias", "user_api_key_user_id")
    names += ("user_api_key_user_email", "user_api_key_team_alias", "cache_hit")
    found = seen(made, default_tags=names, base_url="https://proxy.example")
    for span in found:
        assert (span.attributes or {})[semconv.OTELGW_TAGS] == [
            *("own", "cache_hit:false", "proxy_base_url:https://proxy.example", "user_api_key_alias:search"),
            *("user_api_key_user_id:user-7", "user_api_key_user_email:ann@mail.example"),
            "user_api_key_team_alias:blue",
        ]
    for span in seen(made):
        assert (span.attributes or {})[semconv.OTELGW_TAGS] == ["own", "cache_hit:false"]
    anonymous = seen(made, default_tags=names, base_url="https://proxy.example", redact_user_api_key_info=True)
    for span in anonymous:
        assert (span.attributes or {})[semconv.OTELGW_TAGS] == [
            *("own", "cache_hit:false", "proxy_base_url:https://proxy.example"),
        ]
    assert all(
        semconv.OTELGW_TAGS not in (span.attributes or {}) for span in seen(trace(), default_tags=("cache_key",))
    )


def test_who_called_is_left_out_wherever_it_is_said() -> None:
    body = {"model": "gpt", "messages": [], "user": "user-7", "metadata": {"trace_user_id": "user-7", "feature": "x"}}
    answer = {"id": "r", "object": "response", "user": "user-7", "choices": []}
    made = trace(
        caller=WHO,
        request=capture_whole(json.dumps(body).encode(), "application/json"),
        response=capture_whole(json.dumps(answer).encode(), "application/json"),
        metadata={"user_api_key_user_id": "user-7", "user_api_key_alias": "search"},
        raw_request='curl --data-raw \'{"user":"user-7"}\'',
    )
    found = text(seen(made, redact_user_api_key_info=True))
    for told in ("user-7", "search'", "ann@mail", "blue", "ab" * 32):
        assert told in text(seen(made)) or told == "ann@mail"
        assert told not in found
    assert "otelgw.metadata.feature" in found


def test_destinations_that_redact_alike_share_the_copies_and_the_others_pay_nothing() -> None:
    made = trace(
        request=capture_whole(b'{"model":"m","messages":[{"role":"user","content":"a@mail.example"}]}', "json")
    )
    redaction = Redaction(("email",))
    one, two = (seen(made, name, redaction=redaction) for name in ("console/a", "console/b"))
    assert one is two
    assert "a@mail.example" not in text(one)
    assert seen(made, redaction=Redaction()) is made.spans
    assert "a@mail.example" in text(made.spans)


def test_what_a_caller_is_recorded_with_is_redacted_on_every_span() -> None:
    made = trace(caller=CALLER, metadata={"tags": ["to:a@mail.example"], "session_id": "a@mail.example"})
    assert "a@mail.example" in text(seen(made))
    assert "a@mail.example" not in text(seen(made, redaction=Redaction(("email",))))


@given(st.lists(st.sampled_from(["console", "console/one", "file", "terminal"])), st.booleans(), st.booleans())
def test_a_caller_can_only_take_away(names: list[str], nobody: bool, content: bool) -> None:
    plain, less = trace(), trace(audience=Audience(without=tuple(names), nobody=nobody))
    for required in (False, True):
        before = {span.name for span in seen(plain, content=content, required=required)}
        after = seen(less, content=content, required=required)
        assert {span.name for span in after} <= before
        assert SAID not in text(after) or SAID in text(seen(plain, content=content, required=required))
