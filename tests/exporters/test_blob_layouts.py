from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from otelgw_exporters import catalog, options
from otelgw_exporters.blob_layouts import Blob, Layout
from otelgw_exporters.errors import DestinationConfigError
from tests.exporters.objects import request, text_of
from tests.exporters.samples import generation, span
from tests.exporters.test_payload import check
from tests.servers import require
from tests.servers.collector import Collector


def layout(**given: Any) -> Layout:
    return Layout("s3", options.resolve(catalog.row("s3"), given, {}))


def blobs(made: Layout, spans: Any) -> list[Blob]:
    return [blob for run in made.made(spans).runs for blob in run]


def lines(blob: Blob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(blob.key, blob.data).splitlines()]


@pytest.mark.parametrize(
    ("compression", "ending"), [("gzip", ".ndjson.gz"), ("zstd", ".ndjson.zst"), ("none", ".ndjson")]
)
def test_a_batch_is_lines_of_payloads_under_the_hour_in_which_they_ended(compression: str, ending: str) -> None:
    spans = [*request(0), *request(1), *request(2, hours=1)]

    first, second = blobs(layout(compression=compression, path="my/logs"), spans)

    assert re.fullmatch(rf"my/logs/date=2027-01-15/hour=08/18\d{{17}}-2-[0-9a-f]{{16}}{ending}", first.key)
    assert second.key.startswith("my/logs/date=2027-01-15/hour=09/")
    assert [line["id"] for line in lines(first)] == ["call-0", "call-1"]
    assert [line["id"] for line in lines(second)] == ["call-2"]
    assert (first.positions, second.positions) == (tuple(range(6)), (6, 7, 8))
    for line in lines(first):
        check(line)


def test_a_name_is_told_by_what_is_in_the_object() -> None:
    made = [blobs(layout(), spans)[0] for spans in (request(0), request(0), request(0, end=93_000_000), request(1))]
    assert made[0] == made[1]
    assert len({blob.key for blob in made}) == 3
    assert layout(compression="none") is not None
    names = {blobs(layout(compression=each), request(0))[0].key.partition(".")[0] for each in ("gzip", "zstd", "none")}
    assert len(names) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_what_is_left_of_a_delivery_is_cut_into_the_same_objects(hours: list[int], most: int, data: Any) -> None:
    """A run is written in order and left at its first failure; whatever was not written comes again, in order."""
    spans = [span for number, hour in enumerate(hours) for span in request(number, hours=hour)]
    made = layout(batch_size=most).made(spans)
    failed = {index: data.draw(st.integers(0, len(run))) for index, run in enumerate(made.runs)}
    left = sorted(at for index, run in enumerate(made.runs) for blob in run[failed[index] :] for at in blob.positions)

    again = blobs(layout(batch_size=most), [spans[at] for at in left])

    expected = {blob.key: blob.data for index, run in enumerate(made.runs) for blob in run[failed[index] :]}
    assert {blob.key: blob.data for blob in again} == expected


def test_an_object_holds_at_most_so_many_calls_and_bytes() -> None:
    spans = [span for number in range(5) for span in request(number)]
    assert [len(lines(blob)) for blob in blobs(layout(batch_size=2), spans)] == [2, 2, 1]
    assert [len(lines(blob)) for blob in blobs(layout(batch_bytes=1), spans)] == [1] * 5


def test_teams_and_keys_have_prefixes_of_their_own_and_who_has_none_has_none() -> None:
    spans = [
        *request(0, team="blue"),
        *request(1, team="../blue"),
        *request(2, team=""),
        *request(3, team="blue", key=""),
    ]
    made = blobs(layout(path="p", use_team_prefix=True, use_key_prefix=True), spans)
    prefixes = [blob.key.partition("/date=")[0] for blob in made]
    assert prefixes[0] == "p/blue/search"
    assert re.fullmatch(r"p/_blue-[0-9a-f]{8}/search", prefixes[1])
    assert prefixes[2:] == ["p/search", "p/blue"]


def test_a_team_without_an_alias_has_its_id() -> None:
    spans = generation(**{"otelgw.team.id": "t-7"})
    assert blobs(layout(use_team_prefix=True), [spans])[0].key.startswith("t-7/date=")


def test_per_request_every_call_is_a_document_of_its_own() -> None:
    spans = [*request(0, team="blue"), *request(1)]
    first, second = blobs(layout(layout="per_request", path="p", use_team_prefix=True), spans)
    assert first.key == f"p/blue/2027-01-15/time-08-00-00-000000_call-0_{10_001:016x}.json"
    assert (first.kind, json.loads(first.data)["id"]) == ("application/json", "call-0")
    assert len(layout(layout="per_request").made(spans).runs) == 2
    assert second.positions == (3, 4, 5)


def test_parquet_has_typed_columns_and_text_for_the_rest() -> None:
    (blob,) = blobs(layout(layout="parquet", compression="zstd"), [*request(0), *request(1)])
    assert blob.key.endswith(".parquet")
    table = pq.read_table(io.BytesIO(blob.data))
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == ["call-0", "call-1"]
    assert rows[0]["start_time"].isoformat() == "2027-01-15T08:00:00+00:00"
    assert (rows[0]["prompt_tokens"], rows[0]["status_code"], rows[0]["team_alias"]) == (1117, 200, "blue")
    assert "CANARY" in rows[0]["messages"]
    assert str(table.schema.field("response_cost").type) == "double"


def test_parquet_takes_every_value_that_a_payload_may_hold() -> None:
    strange = [generation(**{"gen_ai.usage.input_tokens": 2**70, "gen_ai.request.model": "\ud800", "user.id": "x"})]
    (blob,) = blobs(layout(layout="parquet"), strange)
    assert pq.read_table(io.BytesIO(blob.data)).num_rows == 1


def test_otlp_is_a_trace_a_line_with_all_its_spans() -> None:
    (blob,) = blobs(layout(layout="otlp_json"), [*request(0), span(77, trace=0xFEED)])[:1]
    assert blob.key.endswith(".otlp.jsonl.gz")
    (line,) = lines(blob)
    (scope,) = line["resourceSpans"][0]["scopeSpans"]
    assert len(scope["spans"]) == 3


def test_the_collector_replays_what_is_written_as_otlp(tmp_path: Path) -> None:
    program = require("collector")
    spans = [*request(0), *request(1, trace_id="0af7651916cd43dd8448eb211c80319d"), *request(2, hours=2)]
    (tmp_path / "objects").mkdir()
    for number, blob in enumerate(blobs(layout(layout="otlp_json"), spans)):
        (tmp_path / "objects" / f"{number}.jsonl").write_bytes(gzip.decompress(blob.data))
    config = tmp_path / "config.yaml"
    receiver = {"include": [f"{tmp_path}/objects/*.jsonl"], "start_at": "beginning", "poll_interval": "50ms"}
    config.write_text(
        yaml.safe_dump(
            {
                "receivers": {"otlp": {"protocols": {"grpc": {}, "http": {}}}, "otlpjsonfile": receiver},
                "exporters": {"debug": {"verbosity": "detailed"}},
                "service": {"pipelines": {"traces": {"receivers": ["otlp", "otlpjsonfile"], "exporters": ["debug"]}}},
            }
        )
    )
    with Collector(program, config) as running:
        running.eventually(lambda: len(running.spans) >= len(spans))
        for each in spans:
            assert each.context is not None
            assert f"{each.context.span_id:016x}" in running.output


def test_a_span_that_cannot_be_encoded_is_dead_and_the_others_are_written() -> None:
    broken = generation(5)
    broken._start_time = "noon"  # type: ignore[assignment]
    made = layout().made([broken, *request(0)])
    assert made.verdicts[0].state == "dead"
    assert [len(run) for run in made.runs] == [1]


def test_files_can_be_left_out() -> None:
    message = [{"role": "user", "parts": [{"type": "text", "content": "data:image/png;base64," + "A" * 400}]}]
    spans = [generation(**{"gen_ai.input.messages": message})]
    (blob,) = blobs(layout(strip_base64_files=True), spans)
    assert b"AAAA" not in gzip.decompress(blob.data)
    assert b"[image/png, 300 bytes]" in gzip.decompress(blob.data)
    with pytest.raises(DestinationConfigError, match="strip_base64_files"):
        layout(layout="otlp_json", strip_base64_files=True)


def test_spans_of_no_call_are_in_no_object_of_payloads() -> None:
    assert layout().made([span(1)]).runs == []


@pytest.mark.parametrize("form", ["batch", "parquet"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_duckdb_reads_the_partitions(tmp_path: Path, form: str, compression: str) -> None:
    spans = [span for number in range(6) for span in request(number, hours=number % 3)]
    for blob in blobs(layout(layout=form, compression=compression), spans):
        path = tmp_path / blob.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob.data)
    files = f"{tmp_path}/**/*.parquet" if form == "parquet" else f"{tmp_path}/**/*.ndjson.*"
    read = f"read_parquet('{files}', hive_partitioning = true)"
    if form == "batch":
        read = f"read_json('{files}', hive_partitioning = true, format = 'newline_delimited', union_by_name = true)"
    found = duckdb.sql(f"SELECT hour::INT, count(*), sum(total_tokens) FROM {read} GROUP BY 1 ORDER BY 1").fetchall()
    assert [(hour, count) for hour, count, _ in found] == [(8, 2), (9, 2), (10, 2)]
