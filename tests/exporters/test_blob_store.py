"""Content in a bucket or a directory: where it is said to be, it is."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from otelgw_exporters import options
from otelgw_exporters.blob_store import open_store
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.rows import blob_stores, buckets
from tests.servers import require
from tests.servers.ports import free_port
from tests.servers.seaweedfs import BUCKET, KEY_ID, SECRET, SeaweedFs

DATA = b'{"said": "CANARY"}'
DIGEST = hashlib.sha256(DATA).hexdigest()
AZURE = {"account": "acme", "container": "said", "account_key": "c2VjcmV0"}


def soon() -> float:
    return time.monotonic() + 10


def test_content_in_a_bucket_is_where_its_address_says() -> None:
    with SeaweedFs(require("seaweedfs")) as server:
        given = {"endpoint_url": server.url, "access_key_id": KEY_ID, "secret_access_key": SECRET, "bucket": BUCKET}
        store = open_store("s3", options.complete(blob_stores.row_of("s3"), given, {}), "content/of")
        key = store.key(DATA, ".json")
        assert [store.put(key, DATA, "application/json", soon()) for _ in range(2)] == ["", ""]
        assert store.address + key == f"s3://{BUCKET}/content/of/{DIGEST}.json"

        bucket: Any = S3Store(
            BUCKET,
            endpoint=server.url,
            region="us-east-1",
            access_key_id=KEY_ID,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )
        found = bucket.get(f"content/of/{DIGEST}.json")
        assert bytes(found.bytes()) == DATA
        assert found.attributes["Content-Type"] == "application/json"
        store.close()


def test_a_bucket_that_cannot_be_reached_says_why_and_shows_no_secret() -> None:
    given = {"endpoint_url": f"http://127.0.0.1:{free_port()}", "bucket": "b", "access_key_id": "AKIACANARY"}
    given["secret_access_key"] = "the-secret-CANARY"
    store = open_store("s3", options.complete(blob_stores.row_of("s3"), given, {}))
    try:
        reason = store.put("key", DATA, "text/plain", soon())
        assert "cannot be reached" in reason
        assert "CANARY" not in reason + repr(store)
    finally:
        store.close()
    assert "shut down" in store.put("key", DATA, "text/plain", soon())


@pytest.mark.parametrize(
    ("kind", "given", "address"),
    [
        ("gcs_bucket", {"bucket": "b"}, "gs://b/"),
        ("azure_storage", AZURE, "https://acme.blob.core.windows.net/said/"),
        (
            "azure_storage",
            AZURE | {"endpoint_url": "http://127.0.0.1:10000/acme"},
            "http://127.0.0.1:10000/acme/said/",
        ),
    ],
)
def test_an_address_is_what_the_stores_own_tools_take(kind: str, given: dict[str, Any], address: str) -> None:
    store = open_store(kind, options.complete(blob_stores.row_of(kind), given, {}))
    assert store.address == address
    store.close()


def test_every_bucket_can_be_a_blob_store_and_is_asked_for_nothing_about_deliveries() -> None:
    assert ("directory", *(row.name for row in buckets.ROWS)) == blob_stores.TYPES
    for row in buckets.ROWS:
        left = {option.name for option in row.options} - {
            option.name for option in blob_stores.row_of(row.name).options
        }
        assert {"path", "layout", "batch_size", "timeout", "semconv"} <= left
        assert not {option.name for option in row.options if option.required or option.secret} & left


def test_a_file_url_is_a_directory(tmp_path: Path) -> None:
    store = open_store("directory", {"path": (tmp_path / "a b").as_uri()})
    key = store.key(DATA, ".json")
    assert store.put(key, DATA, "application/json", soon()) == ""
    assert (tmp_path / "a b" / key).read_bytes() == DATA
    assert store.address + key == (tmp_path / "a b" / key).as_uri()


@pytest.mark.parametrize("path", ["file://elsewhere/x", "https://h/x", "file://"])
def test_what_is_no_directory_of_this_machine_is_refused(path: str) -> None:
    with pytest.raises(DestinationConfigError, match="no directory of this machine"):
        open_store("directory", {"path": path})


def test_a_half_written_file_is_replaced(tmp_path: Path) -> None:
    store = open_store("directory", {"path": str(tmp_path)})
    key = store.key(DATA, ".json")
    (tmp_path / key).write_bytes(DATA[:3])
    assert store.put(key, DATA, "application/json", soon()) == ""
    assert (tmp_path / key).read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == [key]


def test_an_unknown_kind_says_which_there_are() -> None:
    with pytest.raises(DestinationConfigError, match=r"did you mean 's3'.*directory, s3, gcs_bucket, azure_storage"):
        blob_stores.row_of("s33")
