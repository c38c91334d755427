from __future__ import annotations

import base64
import json
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import pytest
from obstore.store import GCSStore

from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.gcs import GcsExporter
from tests.exporters.objects import deliver, found, request, states, text_of
from tests.servers import require
from tests.servers.answering import Asked, HttpAnswer, HttpServer
from tests.servers.fake_gcs import FakeGcs
from tests.servers.faults import LOST, SILENT, Faults, Status
from tests.servers.ports import free_port
from tests.servers.seaweedfs import BUCKET, SeaweedFs

EMAIL = "writer@project.iam.gserviceaccount.com"
SLOW = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
Build = Callable[..., GcsExporter]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service account's key file, as Google Cloud gives it."""
    home = tmp_path_factory.mktemp("account")
    private, public = home / "private.pem", home / "public.pem"
    making = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", private]
    subprocess.run(making, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    account = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "1",
        "private_key": private.read_text(),
        "client_email": EMAIL,
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path = home / "service_account.json"
    path.write_text(json.dumps(account))
    return path


class XmlApi(HttpServer):
    """Google Cloud Storage's XML API as far as objects are put, with its check of who is writing.

    Held to Google's documentation: PUT of an object, ``NoSuchBucket``, ``AccessDenied``, a self-signed JWT whose
    signature is checked with openssl, or a token that was given out.
    """

    def __init__(self, public: Path | None = None, tokens: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.url = self.origin
        self.objects: dict[str, bytes] = {}
        self.claims: list[Mapping[str, Any]] = []
        self._public, self._tokens = public, tokens
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> HttpAnswer:
        bucket, _, name = unquote(asked.path).lstrip("/").partition("/")
        if asked.method != "PUT":
            return HttpAnswer(501)
        if not self.knows(asked.headers.get("authorization", "")):
            return self._refusal(401, "AuthenticationRequired", "Authentication required.")
        if bucket != "logs":
            return self._refusal(404, "NoSuchBucket", "The specified bucket does not exist.")
        if name.startswith("forbidden/"):
            return self._refusal(403, "AccessDenied", f"{EMAIL} does not have storage.objects.create access.")
        self.objects[name] = asked.body
        return HttpAnswer(200, {"etag": '"x"'})

    @staticmethod
    def _refusal(status: int, code: str, message: str) -> HttpAnswer:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Refused.</Message>"
        return HttpAnswer(status, body=f"{text}<Details>{message}</Details></Error>".encode())

    def knows(self, authorization: str) -> bool:
        """Say whether a request may come in: with a token that was given out, or one that the account has signed."""
        token = authorization.removeprefix("Bearer ")
        if token in self._tokens:
            return True
        if self._public is None or token.count(".") != 2:
            return False
        signed, _, signature = token.rpartition(".")
        claims = json.loads(_decoded(signed.partition(".")[2]))
        self.claims.append(claims)
        with self._lock:
            proof = self._public.with_name("signature")
            proof.write_bytes(_decoded(signature))
            checking = ["openssl", "dgst", "-sha256", "-verify", self._public, "-signature", proof]
            checked = subprocess.run(checking, input=signed.encode(), capture_output=True, check=False)
        return checked.returncode == 0 and claims["iss"] == EMAIL


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.fixture
def api(key: Path) -> Iterator[XmlApi]:
    with XmlApi(key.with_name("public.pem")) as running:
        yield running


@pytest.fixture
def build(api: XmlApi, key: Path, closing: Callable[[Exporter], Exporter]) -> Build:
    def made(**given: Any) -> GcsExporter:
        own = {"bucket": "logs", "service_account": str(key), "endpoint_url": api.url}
        exporter = GcsExporter(**{**own, **given})
        closing(exporter)
        return exporter

    return made


@pytest.mark.parametrize("layout", ["batch", "per_request"])
def test_what_is_delivered_is_in_the_bucket_signed_by_the_account(build: Build, api: XmlApi, layout: str) -> None:
    outcome = deliver(build(layout=layout, path="my logs"), [*request(0), *request(1)])
    assert states(outcome) == ["done"] * 6
    ids = [json.loads(line)["id"] for name, data in api.objects.items() for line in text_of(name, data).splitlines()]
    assert sorted(ids) == ["call-0", "call-1"]
    assert all(name.startswith("my logs/") for name in api.objects)
    assert {(claims["iss"], claims["sub"]) for claims in api.claims} == {(EMAIL, EMAIL)}


def test_a_delivery_that_is_repeated_writes_the_same_objects(build: Build, api: XmlApi) -> None:
    for _ in range(2):
        deliver(build(use_team_prefix=True), request(0, team="a b/é=+%41"))
    assert len(api.objects) == 1


def test_a_lost_acknowledgement_leads_to_one_object(build: Build, api: XmlApi) -> None:
    with Faults(api.url) as proxy:
        proxy.next(LOST, LOST)
        made = build(endpoint_url=proxy.url)
        assert states(deliver(made, request(0))) == ["retry"] * 3
        assert states(deliver(made, request(0))) == ["done"] * 3
    assert len(api.objects) == 1


@pytest.mark.parametrize("fault", [Status(503, SLOW), Status(500), Status(429)])
def test_a_service_that_asks_for_patience_gets_it(build: Build, api: XmlApi, fault: Status) -> None:
    with Faults(api.url) as proxy:
        proxy.always(fault)
        made = build(endpoint_url=proxy.url)
        outcome = deliver(made, request(0))
        assert states(outcome) == ["retry"] * 3
        assert f"HTTP {fault.status}" in outcome.reason
        proxy.always(None)
        assert states(deliver(made, request(0))) == ["done"] * 3


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no bucket": ({"bucket": "not-there"}, "NoSuchBucket", "mend the destination's bucket"),
    "no right": ({"path": "forbidden"}, "AccessDenied", "Storage Object User"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_only_the_operator_can_mend_is_retried_slowly_and_said(build: Build, case: str) -> None:
    options, code, hint = CASES[case]
    outcome = deliver(build(**options), request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert code in outcome.reason
    assert hint in outcome.reason
    assert f"gs://{options.get('bucket', 'logs')} at http" in outcome.reason


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Faults]:
    """The metadata server of a machine."""
    with Faults("http://127.0.0.1:1") as server:
        for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
            monkeypatch.setenv(name, server.url.removeprefix("http://"))
        monkeypatch.setenv("HOME", str(tmp_path))  # where the credentials of gcloud would be
        yield server


def test_a_machine_writes_with_the_account_that_it_was_given(build: Build, metadata: Faults) -> None:
    metadata.always(Status(200, b'{"access_token": "of-the-machine", "expires_in": 3600, "token_type": "Bearer"}'))
    with XmlApi(tokens=frozenset({"of-the-machine"})) as api:
        made = build(service_account=None, endpoint_url=api.url)
        assert states(deliver(made, [*request(0), *request(1)])) == ["done"] * 6
    assert metadata.requests[0].headers["metadata-flavor"] == "Google"


def test_without_credentials_nothing_is_lost_and_it_is_said_what_to_do(build: Build, metadata: Faults) -> None:
    metadata.always(Status(404))
    outcome = deliver(build(service_account=None), request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "no token: " in outcome.reason
    assert "set service_account, or give the machine or pod a service account" in outcome.reason


def test_another_accounts_key_is_refused_and_not_shown(build: Build, key: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(key.read_text().replace(EMAIL, "somebody@else.iam.gserviceaccount.com"))
    made = build(service_account=str(other))
    outcome = deliver(made, request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "mend the destination's service_account" in outcome.reason
    assert "PRIVATE KEY" not in outcome.reason + repr(made)


def test_a_wrong_clock_is_said(build: Build, api: XmlApi) -> None:
    with Faults(api.url) as proxy:
        proxy.always(Status(403, b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"))
        outcome = deliver(build(endpoint_url=proxy.url), request(0))
    assert outcome.after == OPERATOR_DELAY
    assert "the clock of this machine is wrong: mend it (NTP)" in outcome.reason


def test_a_dead_or_silent_endpoint_loses_nothing(build: Build, api: XmlApi) -> None:
    dead = deliver(build(endpoint_url=f"http://127.0.0.1:{free_port()}"), request(0))
    assert states(dead) == ["retry"] * 3
    assert "cannot be reached" in dead.reason
    with Faults(api.url) as proxy:
        proxy.always(SILENT)
        silent = deliver(build(endpoint_url=proxy.url), request(0), seconds=0.5)
    assert states(silent) == ["retry"] * 3
    assert "no answer in time" in silent.reason


def test_litellms_variables_are_enough(
    api: XmlApi, key: Path, closing: Callable[[Exporter], Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_BUCKET_NAME", "logs")
    monkeypatch.setenv("GCS_PATH_SERVICE_ACCOUNT", str(key))
    monkeypatch.setenv("GCS_BATCH_SIZE", "512")
    monkeypatch.setenv("GCS_FLUSH_INTERVAL", "120")
    made = GcsExporter(endpoint_url=api.url)
    closing(made)
    assert states(deliver(made, request(0))) == ["done"] * 3
    assert (made.batching.records, made.batching.linger) == (512, 120.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "is no key file"), ("not JSON", "is no key file"), ('{"type": "gdch"}', "is of type 'gdch'")],
)
def test_a_file_that_is_no_key_is_refused_at_once(build: Build, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(DestinationConfigError, match=f"destination gcs_bucket: service_account: .*{said}"):
        build(service_account=str(path))
    with pytest.raises(DestinationConfigError, match="No such file"):
        build(service_account=str(tmp_path / "none.json"))


class Federation(HttpServer):
    """Google's token exchange, and the endpoint that gives a service account's token for an exchanged one."""

    def __init__(self) -> None:
        super().__init__()
        self.url = self.origin
        self.asked: list[tuple[str, dict[str, Any], str]] = []

    def answer(self, asked: Asked) -> HttpAnswer:
        body = asked.body.decode()
        form = {k: v[0] for k, v in parse_qs(body).items()} if "=" in body[:40] else json.loads(body)
        self.asked.append((asked.path, form, asked.headers.get("authorization", "")))
        if asked.path == "/sts" and form["subject_token"] != "workload.token":
            told = {"error": "invalid_grant", "error_description": "not this workload"}
            return HttpAnswer(400, body=json.dumps(told).encode())
        given: dict[str, Any] = {"access_token": "federated-token", "expires_in": 3600}
        if asked.path != "/sts":
            end = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
            given = {"accessToken": "account-token", "expireTime": end}
        return HttpAnswer(body=json.dumps(given).encode())


@pytest.mark.parametrize("impersonated", [False, True])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_workload_writes_with_its_own_identity(build: Build, tmp_path: Path, impersonated: bool, form: str) -> None:
    (tmp_path / "token").write_text('{"id": "workload.token"}' if form == "json" else "workload.token\n")
    named = {"type": "json", "subject_token_field_name": "id"} if form == "json" else {"type": "text"}
    with (
        Federation() as google,
        XmlApi(tokens=frozenset({"account-token" if impersonated else "federated-token"})) as api,
    ):
        document = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{google.url}/sts",
            "credential_source": {"file": str(tmp_path / "token"), "format": named},
        }
        if impersonated:
            document["service_account_impersonation_url"] = f"{google.url}/v1/a:generateAccessToken"
        (tmp_path / "workload.json").write_text(json.dumps(document))
        made = build(endpoint_url=api.url, service_account=str(tmp_path / "workload.json"))

        assert states(deliver(made, request(0))) == ["done"] * 3
        assert states(deliver(made, request(1))) == ["done"] * 3

        assert len(google.asked) == 1 + impersonated
        assert google.asked[0][1]["audience"] == document["audience"]
        if impersonated:
            assert google.asked[1][2] == "Bearer federated-token"
        (tmp_path / "token").write_text("of.another")
        refused = deliver(build(endpoint_url=api.url, service_account=str(tmp_path / "workload.json")), request(2))
        assert states(refused) == ["retry"] * 3
        assert refused.after == OPERATOR_DELAY
        assert ("not this workload" in refused.reason) == (form == "text")
        assert "mend" in refused.reason


def test_a_real_store_takes_what_is_written_over_the_xml_api(
    closing: Callable[[Exporter], Exporter], key: Path
) -> None:
    """Google's XML API has the shape of S3's, and this S3 asks for no credentials."""
    with SeaweedFs(require("seaweedfs"), anonymous=True) as server:
        made = closing(GcsExporter(bucket=BUCKET, endpoint_url=server.url, service_account=str(key)))
        outcome = deliver(made, [*request(0), *request(1, hours=1)])
        assert states(outcome) == ["done"] * 6, outcome.reason
        given: Any = {"base_url": server.url, "skip_signature": True}
        store = GCSStore(BUCKET, client_options={"allow_http": True}, **given)
        assert len(found(store)) == 2


def test_googles_json_api_reads_keys_as_they_are_written(build: Build, api: XmlApi) -> None:
    deliver(build(use_team_prefix=True, layout="per_request"), request(0, team="a b"))
    ((name, data),) = api.objects.items()
    with FakeGcs(require("fake_gcs")) as server:
        made = urllib.request.Request(
            f"{server.url}/storage/v1/b", b'{"name": "logs"}', {"content-type": "application/json"}
        )
        urllib.request.urlopen(made, timeout=10).close()
        put = f"{server.url}/upload/storage/v1/b/logs/o?uploadType=media&name={quote(name)}"
        urllib.request.urlopen(urllib.request.Request(put, data, {}), timeout=10).close()
        given: Any = {"base_url": server.url, "skip_signature": True}
        store = GCSStore("logs", client_options={"allow_http": True}, **given)
        assert list(found(store)) == [name]
