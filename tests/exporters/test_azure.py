from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from obstore.store import AzureStore

from otelgw_exporters.azure import AzureStorageExporter
from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter
from otelgw_exporters.errors import DestinationConfigError
from tests.exporters.objects import deliver, found, request, states
from tests.servers import require
from tests.servers.answering import Asked, HttpAnswer, HttpServer
from tests.servers.azurite import ACCOUNT, KEY, Azurite
from tests.servers.faults import LOST, SILENT, Faults, Status
from tests.servers.otlp import Certificates
from tests.servers.ports import free_port

CONTAINER = "litellm-logs"
TENANT = "985efd7c-0000-4000-8000-000000000000"
BUSY = b"<Error><Code>ServerBusy</Code><Message>The server is busy.</Message></Error>"
Build = Callable[..., AzureStorageExporter]


def shared_key(method: str, url: str, container: str, version: str = "2023-11-03") -> urllib.request.Request:
    """Return a request about a container, signed with the account's key."""
    date = format_datetime(datetime.now(UTC), usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": version}
    signed = f"{method}\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n"
    signed += f"/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
    mac = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    headers["authorization"] = f"SharedKey {ACCOUNT}:{mac}"
    return urllib.request.Request(f"{url}/{ACCOUNT}/{container}?restype=container", method=method, headers=headers)


@pytest.fixture(scope="module")
def server() -> Iterator[Azurite]:
    with Azurite(require("azurite")) as running:
        urllib.request.urlopen(shared_key("PUT", running.url, CONTAINER), timeout=10).close()
        yield running


@pytest.fixture
def proxy(server: Azurite) -> Iterator[Faults]:
    with Faults(server.url) as running:
        yield running


@pytest.fixture
def build(server: Azurite, closing: Callable[[Exporter], Exporter], request: pytest.FixtureRequest) -> Build:
    def made(origin: str = server.url, **given: Any) -> AzureStorageExporter:
        own = {"account": ACCOUNT, "container": CONTAINER, "endpoint_url": f"{origin}/{ACCOUNT}", "account_key": KEY}
        exporter = AzureStorageExporter(**{**own, "path": request.node.originalname, **given})
        closing(exporter)
        return exporter

    return made


Objects = Callable[[], dict[str, list[dict[str, Any]]]]


@pytest.fixture
def objects(server: Azurite, request: pytest.FixtureRequest) -> Objects:
    given: Any = {"account_name": ACCOUNT, "account_key": KEY, "endpoint": f"{server.url}/{ACCOUNT}"}
    store = AzureStore(CONTAINER, client_options={"allow_http": True}, **given)
    return lambda: found(store, request.node.originalname)


def sas(permissions: str) -> str:
    """Return a shared access signature of the account for blobs, good for an hour."""
    now = datetime.now(UTC)
    start, end = (f"{now + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}" for hours in (-1, 1))
    version = "2021-06-08"
    fields = [ACCOUNT, permissions, "b", "sco", start, end, "", "https,http", version, "", ""]
    mac = hmac.new(base64.b64decode(KEY), "\n".join(fields).encode(), hashlib.sha256).digest()
    query = {"sv": version, "ss": "b", "srt": "sco", "sp": permissions, "st": start, "se": end, "spr": "https,http"}
    return urlencode({**query, "sig": base64.b64encode(mac).decode()})


@pytest.mark.parametrize("layout", ["batch", "per_request"])
def test_what_is_delivered_is_in_the_container(build: Build, objects: Objects, layout: str) -> None:
    outcome = deliver(build(layout=layout), [*request(0), *request(1)])
    assert states(outcome) == ["done"] * 6
    ids = {line["id"] for lines in objects().values() for line in lines}
    assert ids == {"call-0", "call-1"}


def test_a_delivery_that_is_repeated_writes_the_same_blobs(build: Build, objects: Objects) -> None:
    for _ in range(2):
        deliver(build(use_team_prefix=True), request(0, team="a b/é=+%41"))
    assert len(objects()) == 1


def test_a_lost_acknowledgement_leads_to_one_blob(build: Build, objects: Objects, proxy: Faults) -> None:
    proxy.next(LOST, LOST)
    made = build(proxy.url)
    assert states(deliver(made, request(0))) == ["retry"] * 3
    assert states(deliver(made, request(0))) == ["done"] * 3
    assert len(objects()) == 1


@pytest.mark.parametrize("fault", [Status(503, BUSY), Status(500), Status(429)])
def test_a_service_that_asks_for_patience_gets_it(build: Build, proxy: Faults, fault: Status) -> None:
    proxy.always(fault)
    made = build(proxy.url)
    outcome = deliver(made, request(0))
    assert states(outcome) == ["retry"] * 3
    assert f"HTTP {fault.status}" in outcome.reason
    proxy.always(None)
    assert states(deliver(made, request(0))) == ["done"] * 3


def test_a_signature_is_as_good_as_a_key(build: Build, objects: Objects) -> None:
    assert states(deliver(build(account_key=None, sas_token="?" + sas("rwdlac")), request(0))) == ["done"] * 3
    assert len(objects()) == 1


OTHER = base64.b64encode(b"canary-of-another-account").decode()
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "wrong key": ({"account_key": OTHER}, "Auth", "mend"),
    "no Base64": ({"account_key": "not base64!"}, "account_key is not Base64", "mend"),
    "read only": ({"account_key": None, "sas_token": "READ"}, "AuthorizationPermissionMismatch", "Contributor"),
    "no container": ({"container": "not-there"}, "ContainerNotFound", "mend the destination's container"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_only_the_operator_can_mend_is_retried_slowly_and_said(build: Build, objects: Objects, case: str) -> None:
    options, code, hint = CASES[case]
    options = {name: sas("rl") if value == "READ" else value for name, value in options.items()}
    made = build(**options)

    outcome = deliver(made, request(0))

    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert code in outcome.reason
    assert hint in outcome.reason
    assert f"azure container {options.get('container', CONTAINER)} at http" in outcome.reason
    for secret in (OTHER, KEY, "sig="):
        assert secret not in outcome.reason + repr(made)
    assert objects() == {}


def test_a_wrong_clock_is_said(build: Build, proxy: Faults) -> None:
    body = b"<Error><Code>AuthenticationFailed</Code><Message>Request date header too old</Message></Error>"
    proxy.always(Status(403, body))
    outcome = deliver(build(proxy.url), request(0))
    assert outcome.after == OPERATOR_DELAY
    assert "Request date header too old" in outcome.reason
    assert "clock of this machine" in outcome.reason


def test_a_dead_or_silent_endpoint_loses_nothing(build: Build, proxy: Faults) -> None:
    dead = deliver(build(f"http://127.0.0.1:{free_port()}"), request(0))
    assert states(dead) == ["retry"] * 3
    assert "cannot be reached" in dead.reason
    proxy.always(SILENT)
    silent = deliver(build(proxy.url), request(0), seconds=0.5)
    assert states(silent) == ["retry"] * 3
    assert "no answer in time" in silent.reason


def test_the_environments_key_is_not_used_where_other_credentials_are_set(
    build: Build, proxy: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", OTHER)
    made = build(proxy.url, account_key=None, sas_token=sas("rwdlac"))
    assert states(deliver(made, request(0))) == ["done"] * 3
    assert "authorization" not in proxy.requests[0].headers


def test_litellms_variables_are_enough(
    server: Azurite, closing: Callable[[Exporter], Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_FILE_SYSTEM", CONTAINER)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    made = closing(AzureStorageExporter(endpoint_url=f"{server.url}/{ACCOUNT}"))
    assert states(deliver(made, request(0))) == ["done"] * 3
    assert "https://litellm2.blob.core.windows.net" in repr(closing(AzureStorageExporter(account="litellm2")))


def test_half_an_application_is_refused_at_once(build: Build) -> None:
    with pytest.raises(DestinationConfigError, match="destination azure_storage: tenant_id is missing: it goes with"):
        build(account_key=None, client_secret="s")
    with pytest.raises(DestinationConfigError, match="container is missing"):
        build(container=None)


class Entra(HttpServer):
    """Microsoft Entra as far as it gives out tokens: over TLS, to one application, by secret or by assertion; and the
    endpoint of managed identities."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=context)
        self.url = self.origin
        self.asked: list[dict[str, str]] = []
        self.audience = "https://storage.azure.com"
        self.lasts = 3600

    def answer(self, asked: Asked) -> HttpAnswer:
        if asked.method == "GET":
            self.asked.append({"path": asked.path, **asked.headers})
            return self._says(200, {"access_token": self.token(), "expires_in": str(self.lasts)})
        form = {key: values[0] for key, values in parse_qs(asked.body.decode()).items()}
        self.asked.append({**form, "path": asked.path})
        good = form.get("client_secret") == "app-secret-0123" or form.get("client_assertion") == "pod.token"
        if good and asked.path == f"/{TENANT}/oauth2/v2.0/token":
            given = {"access_token": self.token(), "expires_in": self.lasts, "token_type": "Bearer"}
            return self._says(200, given)
        told = f"AADSTS7000215: Invalid client secret provided: {form.get('client_secret')}"
        return self._says(401, {"error": "invalid_client", "error_description": told})

    @staticmethod
    def _says(status: int, tree: dict[str, Any]) -> HttpAnswer:
        return HttpAnswer(status, body=json.dumps(tree).encode())

    def token(self) -> str:
        now = int(time.time())
        claims = {"aud": self.audience, "iss": f"https://sts.windows.net/{TENANT}/", "nbf": now - 60, "iat": now - 60}
        parts = ({"alg": "HS256", "typ": "JWT"}, {**claims, "exp": now + self.lasts, "oid": "x"})
        head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
        return f"{head}.{body}.c2ln"


@pytest.fixture(scope="module")
def secure(certificates: Certificates) -> Iterator[Azurite]:
    """An Azurite that takes Entra's tokens, which it does over TLS only."""
    words = ["--oauth", "basic", "--cert", str(certificates.server_certificate)]
    words += ["--key", str(certificates.server_key)]
    with Azurite(require("azurite"), words) as running:
        context = ssl.create_default_context(cafile=str(certificates.authority))
        made = shared_key("PUT", running.url, CONTAINER)
        urllib.request.urlopen(made, timeout=10, context=context).close()
        yield running


@pytest.fixture
def entra(certificates: Certificates) -> Iterator[Entra]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    with Entra(context) as running:
        yield running


@pytest.fixture
def application(secure: Azurite, entra: Entra, certificates: Certificates, build: Build) -> Build:
    """Builds exporters that are an application of Microsoft Entra."""

    def made(**given: Any) -> AzureStorageExporter:
        own = {"tenant_id": TENANT, "client_id": "abe66585", "authority_host": entra.url, "account_key": None}
        return build(secure.url, **{**own, "certificate": str(certificates.authority), **given})

    return made


def test_an_application_writes_with_its_secret_and_keeps_its_token(application: Build, entra: Entra) -> None:
    made = application(client_secret="app-secret-0123")
    assert states(deliver(made, request(0))) == ["done"] * 3
    assert states(deliver(made, request(1))) == ["done"] * 3
    (asked,) = entra.asked
    assert asked["scope"] == "https://storage.azure.com/.default"


def test_a_token_that_is_about_to_expire_is_replaced(application: Build, entra: Entra) -> None:
    entra.lasts = 120
    made = application(client_secret="app-secret-0123")
    for number in range(2):
        assert states(deliver(made, request(number))) == ["done"] * 3
        time.sleep(0.2)  # a token that has just come is used, whenever it ends
    assert len(entra.asked) == 2


def test_a_pod_writes_with_its_own_token(application: Build, entra: Entra, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pod.token\n")
    made = application(federated_token_file=str(tmp_path / "token"))
    assert states(deliver(made, request(0))) == ["done"] * 3
    assert entra.asked[0]["client_assertion_type"].endswith("jwt-bearer")


def test_a_wrong_secret_of_an_application_is_said_and_not_shown(application: Build) -> None:
    outcome = deliver(application(client_secret="wrong-secret-canary"), request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "AADSTS7000215" in outcome.reason
    assert "mend tenant_id, client_id or client_secret" in outcome.reason
    assert "canary" not in outcome.reason


def test_a_token_for_something_else_is_refused_and_said(application: Build, entra: Entra) -> None:
    entra.audience = "https://vault.azure.net"
    outcome = deliver(application(client_secret="app-secret-0123"), request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "mend" in outcome.reason


def test_nobody_who_gives_out_tokens_is_said(application: Build) -> None:
    dead = f"https://127.0.0.1:{free_port()}"
    outcome = deliver(application(client_secret="app-secret-0123", authority_host=dead), request(0))
    assert states(outcome) == ["retry"] * 3
    assert f"{dead}: no token: " in outcome.reason


def test_a_pods_token_that_is_not_there_is_said(application: Build, tmp_path: Path) -> None:
    outcome = deliver(application(federated_token_file=str(tmp_path / "none")), request(0))
    assert states(outcome) == ["retry"] * 3
    assert "none: No such file or directory: mend the path" in outcome.reason


def test_an_app_writes_with_the_identity_that_azure_gives_it(application: Build) -> None:
    with Entra() as endpoint:
        given = {"identity_endpoint": f"{endpoint.url}/msi/token", "identity_header": "h-123456"}
        outcome = deliver(application(tenant_id=None, **given), request(0))
        assert states(outcome) == ["done"] * 3, outcome.reason
        (asked,) = endpoint.asked
        assert asked["path"].startswith("/msi/token?resource=https%3A%2F%2Fstorage.azure.com%2F")
        assert "client_id=abe66585" in asked["path"]
        assert asked["x-identity-header"] == "h-123456"
    dead = {**given, "identity_endpoint": f"http://127.0.0.1:{free_port()}/msi/token"}
    outcome = deliver(application(tenant_id=None, **dead), request(1))
    assert states(outcome) == ["retry"] * 3
    assert "mend account_key, sas_token or tenant_id" in outcome.reason
    assert "h-123456" not in outcome.reason
