"""The queries of docs/how-to/query-with-duckdb.md answer as printed, on objects as they are written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from otelgw_exporters import catalog, options
from otelgw_exporters.blob_layouts import Layout
from tests.exporters.objects import request

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "query-with-duckdb.md").read_text()
QUERIES = [text for text in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if text.startswith("SELECT")]
TABLE = next(text for text in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if text.startswith("CREATE"))
ADDRESS = "s3://logs-bucket/llm"


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """Objects of four calls on one day and one on the next, one of them failed."""
    spans = [span for number in range(4) for span in request(number, hours=number)]
    spans += request(7, hours=20, status=500, error_type="500", error_message="upstream is down")
    for form in ("batch", "parquet"):
        given = {"layout": form, "path": "llm"}
        for run in Layout("s3", options.resolve(catalog.row("s3"), given, {})).made(spans).runs:
            for blob in run:
                path = tmp_path / blob.key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(blob.data)
    return tmp_path / "llm"


def answers(query: str, bucket: Path) -> list[dict[str, Any]]:
    found = duckdb.sql(query.replace(ADDRESS, str(bucket)))
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def test_every_query_of_the_page_answers(bucket: Path) -> None:
    costs, distinct, slow, failures = (answers(query, bucket) for query in QUERIES)

    assert [(str(row["date"]), row["calls"]) for row in costs] == [("2027-01-15", 4), ("2027-01-16", 1)]
    assert costs[0]["model"] == "gpt-4o"
    assert costs[0]["tokens"] == 4 * 1163
    assert costs[0]["usd"] > 0
    assert distinct == [{"calls": 5}]
    assert [row["team"] for row in slow] == ["blue"]
    assert slow[0]["p95"] == pytest.approx(0.092)
    assert [(row["model"], row["failures"], row["example"]) for row in failures] == [("gpt-4o", 1, "upstream is down")]


def test_athenas_columns_are_the_payloads(bucket: Path) -> None:
    """Each column of the table stands in a payload, and what is there is of the column's type."""
    import gzip

    path = next(bucket.rglob("*.ndjson.gz"))
    payload = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    types = {"string": str, "double": (int, float), "bigint": int, "int": int}
    columns = re.findall(r"^  (\w+) (.+?),?$", TABLE.partition(")\nPARTITIONED")[0], re.MULTILINE)
    assert len(columns) == 18
    for name, kind in columns:
        fields = re.findall(r"(\w+):(\w+)", kind) if kind.startswith("struct") else [("", kind)]
        for field, simple in fields:
            value = payload[name][field] if field else payload[name]
            assert value is None or isinstance(value, types[simple]), (name, field)
