"""Long content in the blob store: as the destination may see it, once, and never at the cost of a span."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otelgw.config.settings import Destination, Pattern, Redaction, Tracing
from otelgw.pipeline_main import decoder
from otelgw.redaction.offloading import Keeper
from otelgw.selection import Trace, selector
from otelgw.tracing import record as records
from otelgw.tracing.record import capture_whole
from otelgw_exporters import payload, semconv
from otelgw_exporters.blob_store import open_store
from tests.redaction.test_spans import span
from tests.tracing.records import record

CANARY = "QZL-canary@mail.example"
LONG = f"{CANARY} " + "said again and again " * 200
ASKED = {"model": "gpt", "messages": [{"role": "user", "content": LONG}], "user": "u-1"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def keeper(directory: Path, above: int = 1024, clock: Any = time.monotonic) -> Keeper:
    return Keeper(open_store("directory", {"path": str(directory)}, "said/"), above, clock)


def trace(**changes: Any) -> Trace:
    asked = capture_whole(json.dumps(ASKED).encode(), "application/json")
    return decoder(Tracing(), "state")(records.encode(record(**{"request": asked, **changes})))


def seen(made: Trace, keep: Keeper | None, **options: Any) -> Sequence[ReadableSpan]:
    return selector(Destination("file", "file", **options), keep)(made)


def generation(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    return next(dict(each.attributes or {}) for each in spans if each.name.startswith("chat"))


def kept(directory: Path) -> dict[str, bytes]:
    return {path.as_uri(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def everything(directory: Path) -> bytes:
    return b"".join(kept(directory).values())


def test_long_content_is_in_the_store_and_the_span_says_where(tmp_path: Path) -> None:
    attributes = generation(seen(trace(), keeper(tmp_path)))

    for name in (semconv.GEN_AI_INPUT_MESSAGES, semconv.OTELGW_REQUEST_BODY):
        assert name not in attributes
        uri = attributes[name + "_ref"]
        assert uri.startswith((tmp_path / "said").as_uri())
        assert uri.endswith(".json")
        assert LONG in json.dumps(json.loads(kept(tmp_path)[uri]))
    assert attributes[semconv.GEN_AI_OUTPUT_MESSAGES], "what is short stays"
    assert semconv.OTELGW_CONTENT_CUT not in attributes
    assert len(kept(tmp_path)) == 2


def test_the_same_content_is_one_object_however_often_it_is_delivered(tmp_path: Path) -> None:
    first = generation(seen(trace(), keeper(tmp_path)))
    before = kept(tmp_path)
    keep = keeper(tmp_path)
    again = generation(seen(trace(), keep))
    other = generation(seen(trace(call_id="another"), keep, redact_user_api_key_info=True))

    assert again == first
    assert kept(tmp_path) == before
    name = semconv.GEN_AI_INPUT_MESSAGES + "_ref"
    assert other[name] == first[name]
    assert keep.counts() == {"stored": 2, "known": 1, "failed": 0}, "the body says who called and is not for the other"


@pytest.mark.parametrize(
    "options",
    [
        {"content": False},
        {"redaction": Redaction(("email",))},
        {"redaction": Redaction(patterns=(Pattern("mine", r"QZL[\w@.-]+"),), limit=512)},
        {"required": True, "content": False},
    ],
)
def test_nothing_is_reachable_through_the_store_that_the_destination_may_not_see(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    spans = seen(trace(), keeper(tmp_path), **options)

    held = everything(tmp_path)
    assert CANARY.encode() not in held
    assert b"QZL" not in b"".join(json.dumps(dict(each.attributes or {})).encode() for each in spans)
    assert (b"[REDACTED:" in held) == ("redaction" in options)
    assert any(name.endswith("_ref") for name in generation(spans)) == ("redaction" in options)


def test_what_cannot_be_redacted_is_not_in_the_store_either(tmp_path: Path) -> None:
    deep: Any = CANARY * 100
    for _ in range(200):
        deep = [deep]
    made = Trace(None, [span({semconv.GEN_AI_INPUT_MESSAGES: deep, semconv.GEN_AI_TOOL_DEFINITIONS: LONG})])
    (found,) = seen(made, keeper(tmp_path), redaction=Redaction(("email",)))
    assert (found.attributes or {})[semconv.OTELGW_REDACTION_FAILED] is True
    assert CANARY.encode() not in everything(tmp_path)


def test_each_destination_has_what_it_may_see_from_the_same_store(tmp_path: Path) -> None:
    made, keep = trace(), keeper(tmp_path)
    name = semconv.GEN_AI_INPUT_MESSAGES + "_ref"
    whole = generation(seen(made, keep))[name]
    redacted = generation(seen(made, keep, redaction=Redaction(("email",))))[name]
    inline = generation(seen(made, keep, blob_store=False))

    assert CANARY.encode() in kept(tmp_path)[whole]
    assert CANARY.encode() not in kept(tmp_path)[redacted]
    assert inline[semconv.GEN_AI_INPUT_MESSAGES]
    assert name not in inline


def test_a_lower_limit_of_the_destination_counts(tmp_path: Path) -> None:
    keep = keeper(tmp_path, above=1024 * 1024)
    assert not any(name.endswith("_ref") for name in generation(seen(trace(), keep)))
    assert semconv.GEN_AI_INPUT_MESSAGES + "_ref" in generation(seen(trace(), keep, redaction=Redaction(limit=300)))


def test_a_payload_says_where_the_content_is_that_it_has_no_room_for(tmp_path: Path) -> None:
    (call,) = payload.calls(seen(trace(), keeper(tmp_path)))
    found = json.loads(payload.encoded(call))
    assert found["messages"] == []
    refs = found["otelgw"]["content_refs"]
    assert refs.keys() == {semconv.GEN_AI_INPUT_MESSAGES, semconv.OTELGW_REQUEST_BODY}
    assert json.loads(kept(tmp_path)[refs[semconv.OTELGW_REQUEST_BODY]])["messages"] == ASKED["messages"]
    (short,) = payload.calls(seen(trace(), None))
    assert "content_refs" not in json.loads(payload.encoded(short))["otelgw"]


def test_where_the_store_takes_nothing_content_is_cut_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "said").write_text("a file where the directory would be")
    clock = Clock()
    keep = keeper(tmp_path, clock=clock)
    with caplog.at_level(logging.ERROR):
        for clock.now in (0, 1, 31, 59, 61, 93):
            attributes = generation(seen(trace(), keep))
            assert set(attributes[semconv.OTELGW_CONTENT_CUT]) == {
                semconv.GEN_AI_INPUT_MESSAGES,
                semconv.OTELGW_REQUEST_BODY,
            }
            body = attributes[semconv.OTELGW_REQUEST_BODY]
            assert len(body.encode()) <= 1024
            assert "cut]" in json.loads(body)["messages"][0]["content"]
            assert not any(name.endswith("_ref") for name in attributes)
    assert keep.counts() == {"stored": 0, "known": 0, "failed": 12}
    assert len(caplog.messages) == 2, "once a minute"
    assert all("Not a directory" in each or "File exists" in each for each in caplog.messages)
    assert not any("QZL" in each for each in caplog.messages)


def test_a_store_that_is_back_is_used_again(tmp_path: Path) -> None:
    blocker = tmp_path / "said"
    blocker.write_text("")
    clock = Clock()
    keep = keeper(tmp_path, clock=clock)
    assert keep(LONG) == ""
    blocker.unlink()
    assert keep(LONG) == "", "for a while it is not asked"
    clock.now = 31
    assert keep(LONG) in kept(tmp_path)


def test_what_somebody_deleted_is_written_again_within_the_hour(tmp_path: Path) -> None:
    clock = Clock()
    keep = keeper(tmp_path, clock=clock)
    uri = keep(LONG)
    path = next(path for path in tmp_path.rglob("*.txt"))
    path.unlink()
    clock.now = 3599
    assert keep(LONG) == uri
    assert not path.exists()
    clock.now = 3601
    assert keep(LONG) == uri
    assert path.read_text() == LONG


def test_where_another_applications_content_is_is_not_for_who_may_not_have_content() -> None:
    made = Trace(None, [span({"gen_ai.input.messages_ref": "s3://b/canary", "gen_ai.operation.name": "chat"})])
    (whole,), (bare,) = seen(made, None), seen(made, None, content=False)
    assert "gen_ai.input.messages_ref" in (whole.attributes or {})
    assert "gen_ai.input.messages_ref" not in (bare.attributes or {})


def test_threads_with_the_same_content_write_it_once(tmp_path: Path) -> None:
    store = open_store("directory", {"path": str(tmp_path)})
    begun, writes = threading.Barrier(8), []

    def slowly(*given: Any) -> str:
        writes.append(given)
        time.sleep(0.05)
        return store.put(*given)

    keep = Keeper(store._replace(put=slowly), 256)

    def run(_: int) -> str:
        begun.wait(10)
        return keep(LONG)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(run, range(8)))) == 1
    assert len(writes) == 1
    assert keep.counts() == {"stored": 1, "known": 7, "failed": 0}


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    keeper(tmp_path / "new")(LONG)
    for path in (tmp_path / "new").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_file_in_use_looks_young(tmp_path: Path) -> None:
    keeper(tmp_path)(LONG)
    (path,) = (each for each in tmp_path.rglob("*") if each.is_file())
    os.utime(path, (1, 1))
    keeper(tmp_path)(LONG)
    assert path.stat().st_mtime > 1


JSONS = st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=8)


@given(value=st.text() | st.lists(JSONS) | JSONS.map(json.dumps))
def test_whatever_was_said_is_kept_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    directory = tmp_path_factory.mktemp("any")
    uri = keeper(directory)(value)
    data = kept(directory)[uri]
    if isinstance(value, str):
        assert data == value.encode("utf-8", "backslashreplace")
    else:
        assert json.loads(data) == json.loads(json.dumps(value))
    if uri.endswith(".json"):
        json.loads(data)
