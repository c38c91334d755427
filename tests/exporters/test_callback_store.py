"""Callbacks out of a real bucket."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from otelgw_exporters import catalog
from otelgw_exporters.callback import CallbackExporter
from otelgw_exporters.delivery import Exporter, Outcome
from otelgw_exporters.errors import DestinationConfigError
from tests.exporters.test_file import request
from tests.servers import require
from tests.servers.fake_gcs import FakeGcs
from tests.servers.ports import free_port
from tests.servers.seaweedfs import BUCKET, KEY_ID, SECRET, SeaweedFs

CODE = b"def handler(*_):\n    print('from the bucket')\n"
TARGET = f"s3://{BUCKET}/callbacks/mine.handler"


@pytest.fixture(scope="module")
def store() -> Iterator[SeaweedFs]:
    from obstore.store import S3Store

    with SeaweedFs(require("seaweedfs")) as running:
        options: Any = {"allow_http": True}
        bucket = S3Store(
            BUCKET,
            endpoint=running.url,
            region="us-east-1",
            access_key_id=KEY_ID,
            secret_access_key=SECRET,
            client_options=options,
        )
        bucket.put("callbacks/mine.py", CODE)
        yield running


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, store: SeaweedFs) -> None:
    for row in catalog.ROWS:
        for names in row.env.values():
            for name in names:
                monkeypatch.delenv(name, raising=False)
    for name, value in (("ACCESS_KEY_ID", KEY_ID), ("SECRET_ACCESS_KEY", SECRET), ("ENDPOINT_URL", store.url)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


Make = Callable[..., CallbackExporter]


@pytest.fixture
def make(environment: None, closing: Callable[[Exporter], Exporter]) -> Make:
    def run(target: str = TARGET, **given: Any) -> CallbackExporter:
        made = CallbackExporter(target=target, allowed_buckets=[f"s3://{BUCKET}"], **given)
        closing(made)
        return made

    return run


def deliver(made: Exporter, number: int = 0) -> Outcome:
    return made.deliver(request(number), time.monotonic() + 20)


def only(outcome: Outcome) -> str:
    (state,) = {verdict.state for verdict in outcome.verdicts}
    return state


def test_code_from_a_bucket_that_is_named_is_run_and_leaves_no_file(
    make: Make, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make()
    assert only(deliver(made)) == "done"
    assert "from the bucket" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_it_is_fetched_once_and_a_process_that_is_started_again_has_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    assert only(deliver(made)) == "done"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    made._process.kill()
    assert only(deliver(made, 1)) == "done"


def test_only_the_code_that_is_pinned_is_run(make: Make) -> None:
    digest = hashlib.sha256(CODE).hexdigest()
    assert only(deliver(make(sha256=digest.upper()))) == "done"
    outcome = deliver(make(sha256="ab" * 32))
    assert only(outcome) == "retry"
    assert f"its sha256 is {digest}, not the one that is pinned; it is not run" in outcome.reason


def test_a_bucket_that_is_not_named_is_refused_before_anything_is_fetched(environment: None) -> None:
    for allowed in ((), ("other",), ("gcs://logs",)):
        with pytest.raises(DestinationConfigError, match="whoever can write to the bucket could run code here"):
            CallbackExporter(target=TARGET, allowed_buckets=allowed)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "CANARY-wrong-secret"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId"),
        ({}, "there is no such object; mend the callback's name, or put it there"),
    ],
)
def test_a_bucket_that_does_not_give_it_is_said_at_start_and_loses_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: dict[str, str], part: str
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    made = make(f"s3://{BUCKET}/callbacks/other.handler")
    outcome = deliver(made)
    assert only(outcome) == "retry"
    assert part in outcome.reason
    deadline = time.monotonic() + 20
    while not any(entry.levelno == logging.ERROR for entry in caplog.records) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert part in caplog.text
    assert "CANARY" not in caplog.text + str(outcome)


def test_a_bucket_that_is_down_is_said_and_tried_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, store: SeaweedFs
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    made = make()
    outcome = deliver(made)
    assert only(outcome) == "retry"
    assert "cannot be fetched" in outcome.reason
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    assert only(deliver(made)) == "done"


def test_code_from_google_cloud_storage_is_run(
    monkeypatch: pytest.MonkeyPatch,
    closing: Callable[[Exporter], Exporter],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    account = {"type": "service_account", "client_email": "x@y.example", "private_key_id": "1"}
    account |= {"private_key": private.decode(), "token_uri": "https://oauth2.googleapis.com/token"}
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account))
    with FakeGcs(require("fake_gcs")) as server, httpx.Client(trust_env=False, base_url=server.url) as client:
        client.post("/storage/v1/b", json={"name": "logs"}).raise_for_status()
        put = "/upload/storage/v1/b/logs/o?uploadType=media&name=mine.py"
        client.post(put, content=CODE).raise_for_status()
        monkeypatch.setenv("GCS_PATH_SERVICE_ACCOUNT", str(path))
        monkeypatch.setenv("OTELGW_GCS_ENDPOINT", server.url)
        made = CallbackExporter(target="gcs://logs/mine.handler", allowed_buckets=["gcs://logs"])
        closing(made)
        outcome = deliver(made)
    assert only(outcome) == "done", outcome
    assert "from the bucket" in capfd.readouterr().out
