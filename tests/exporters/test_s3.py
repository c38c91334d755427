from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from otelgw_exporters.aws import HINTS
from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter
from otelgw_exporters.errors import DestinationConfigError
from otelgw_exporters.s3 import S3Exporter
from tests.exporters.objects import deliver, found, request, states
from tests.exporters.samples import span
from tests.servers import require
from tests.servers.faults import LOST, SILENT, Faults, Status
from tests.servers.moto import Moto
from tests.servers.ports import free_port
from tests.servers.seaweedfs import BUCKET, KEY_ID, SECRET, SeaweedFs

ROOT = Path(__file__).parents[2]
Build = Callable[..., S3Exporter]
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@pytest.fixture(scope="module")
def server() -> Iterator[SeaweedFs]:
    with SeaweedFs(require("seaweedfs")) as running:
        yield running


@pytest.fixture
def proxy(server: SeaweedFs) -> Iterator[Faults]:
    with Faults(server.url) as running:
        yield running


@pytest.fixture
def build(server: SeaweedFs, closing: Callable[[Exporter], Exporter], request: pytest.FixtureRequest) -> Build:
    """Builds exporters that write to the server, each test below a prefix of its own."""

    def made(**given: Any) -> S3Exporter:
        own = {"endpoint_url": server.url, "access_key_id": KEY_ID, "secret_access_key": SECRET, "bucket": BUCKET}
        exporter = S3Exporter(**{**own, "path": f"own/{zlib.crc32(request.node.name.encode())}", **given})
        closing(exporter)
        return exporter

    return made


@pytest.fixture
def objects(server: SeaweedFs, request: pytest.FixtureRequest) -> Callable[[], dict[str, list[dict[str, Any]]]]:
    """Returns what the test has written, by key without its prefix."""
    store = S3Store(
        BUCKET,
        endpoint=server.url,
        region="us-east-1",
        access_key_id=KEY_ID,
        secret_access_key=SECRET,
        client_options={"allow_http": True},
    )
    prefix = f"own/{zlib.crc32(request.node.name.encode())}/"
    return lambda: {key.removeprefix(prefix): lines for key, lines in found(store, prefix).items()}


Objects = Callable[[], dict[str, list[dict[str, Any]]]]


@pytest.mark.parametrize("layout", ["batch", "per_request", "otlp_json"])
def test_what_is_delivered_is_in_the_bucket(build: Build, objects: Objects, layout: str) -> None:
    spans = [*request(0), *request(1), *request(2, hours=1)]

    outcome = deliver(build(layout=layout), [*spans, span(77)])

    assert states(outcome) == ["done"] * 10
    written = objects()
    assert len(written) == {"batch": 2, "per_request": 3, "otlp_json": 2}[layout]
    if layout != "otlp_json":
        assert sorted(line["id"] for lines in written.values() for line in lines) == ["call-0", "call-1", "call-2"]


@pytest.mark.parametrize("team", ["../a b/é=+%41?&", "🦀", "a\u0000b", "."])
def test_an_alias_of_any_kind_is_signed_and_written(build: Build, objects: Objects, team: str) -> None:
    outcome = deliver(build(use_team_prefix=True), request(0, team=team))
    assert states(outcome) == ["done"] * 3
    ((key, _),) = objects().items()
    assert key.count("/") == 3


def test_a_delivery_that_is_repeated_writes_the_same_objects(build: Build, objects: Objects) -> None:
    spans = [*request(0), *request(1)]
    for _ in range(2):
        deliver(build(), spans)
    assert len(objects()) == 1


def test_a_lost_acknowledgement_leads_to_one_object(build: Build, objects: Objects, proxy: Faults) -> None:
    proxy.next(LOST, LOST, LOST)
    made = build(endpoint_url=proxy.url)

    outcome = deliver(made, request(0))
    again = deliver(made, request(0))

    assert states(outcome) == ["retry"] * 3
    assert states(again) == ["done"] * 3
    assert len(objects()) == 1


def test_one_failure_of_the_store_is_over_before_the_pipeline_hears_of_it(
    build: Build, objects: Objects, proxy: Faults
) -> None:
    proxy.next(Status(503, SLOW_DOWN))
    assert states(deliver(build(endpoint_url=proxy.url), request(0))) == ["done"] * 3
    assert len(objects()) == 1


@pytest.mark.parametrize("fault", [Status(503, SLOW_DOWN), Status(500), Status(429), Status(503, b"no XML")])
def test_a_store_that_asks_for_patience_gets_it(build: Build, objects: Objects, proxy: Faults, fault: Status) -> None:
    proxy.always(fault)
    made = build(endpoint_url=proxy.url, layout="per_request")
    spans = [span for number in range(30) for span in request(number)]

    outcome = deliver(made, spans)

    assert states(outcome) == ["retry"] * 90
    assert f"HTTP {fault.status}" in outcome.reason
    assert len(proxy.requests) < 30  # when one is asked to wait, the others are not begun
    proxy.always(None)
    assert states(deliver(made, spans)) == ["done"] * 90
    assert len(objects()) == 30


def test_what_was_written_before_a_failure_is_done_and_only_the_rest_comes_again(
    build: Build, objects: Objects, proxy: Faults
) -> None:
    made = build(endpoint_url=proxy.url, batch_size=1)
    spans = [*request(0), *request(1), *request(2)]
    assert states(deliver(made, request(7))) == ["done"] * 3
    proxy.requests.clear()
    proxy.next("", Status(503, SLOW_DOWN), Status(503, SLOW_DOWN))  # the first is forwarded

    outcome = deliver(made, spans)

    assert states(outcome) == ["done"] * 3 + ["retry"] * 6
    assert states(deliver(made, spans[3:])) == ["done"] * 6
    assert sorted(line["id"] for lines in objects().values() for line in lines) == [
        "call-0",
        "call-1",
        "call-2",
        "call-7",
    ]
    assert len(objects()) == 4


CASES = {
    "wrong secret": ({"secret_access_key": "sk-secret-canary"}, "SignatureDoesNotMatch", "mend secret_access_key"),
    "unknown key": ({"access_key_id": "AKIANOBODY"}, "InvalidAccessKeyId", "mend the destination's access_key_id"),
    "no right": ({"access_key_id": "reader"}, "AccessDenied", "mend the policy"),
    "no bucket": ({"bucket": "not-there"}, "NoSuchBucket", "mend the destination's bucket"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_only_the_operator_can_mend_is_retried_slowly_and_said(build: Build, objects: Objects, case: str) -> None:
    options, code, hint = CASES[case]
    made = build(**options)

    outcome = deliver(made, [*request(0), *request(1, hours=1)])

    assert states(outcome) == ["retry"] * 6
    assert outcome.after == OPERATOR_DELAY
    assert code in outcome.reason
    assert hint in outcome.reason
    assert f"s3://{options.get('bucket', BUCKET)} at http://127.0.0.1" in outcome.reason
    assert "canary" not in outcome.reason + repr(made)
    assert objects() == {}


@pytest.mark.parametrize("code", sorted(HINTS.keys() - {"AccessDenied"}))
def test_every_code_that_says_what_to_mend_is_passed_on(build: Build, proxy: Faults, code: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>as {SECRET} has it</Message></Error>".encode()
    proxy.always(Status(400 if code.startswith("KMS") else 403, body))
    outcome = deliver(build(endpoint_url=proxy.url), request(0))
    assert set(states(outcome)) == {"retry"}
    assert outcome.after == OPERATOR_DELAY
    assert HINTS[code] in outcome.reason
    assert SECRET not in outcome.reason


def test_a_bucket_in_another_region_is_said(build: Build, proxy: Faults) -> None:
    proxy.always(Status(301, b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"))
    outcome = deliver(build(endpoint_url=proxy.url), request(0))
    assert outcome.after == OPERATOR_DELAY
    assert "mend the destination's region" in outcome.reason


def test_a_wrong_clock_is_said(build: Build, proxy: Faults) -> None:
    skewed = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"
    proxy.always(Status(403, skewed))
    outcome = deliver(build(endpoint_url=proxy.url), request(0))
    assert set(states(outcome)) == {"retry"}
    assert "the clock of this machine is wrong: mend it (NTP)" in outcome.reason


def test_a_dead_endpoint_loses_nothing_and_is_named(build: Build) -> None:
    port = free_port()
    outcome = deliver(build(endpoint_url=f"http://127.0.0.1:{port}"), [*request(0), *request(1)])
    assert states(outcome) == ["retry"] * 6
    assert f"127.0.0.1:{port}: the store cannot be reached: " in outcome.reason
    assert "refused" in outcome.reason
    assert outcome.after is None


def test_a_host_that_has_no_address_is_said(build: Build) -> None:
    outcome = deliver(build(endpoint_url="http://no-such-host.invalid"), request(0))
    assert states(outcome) == ["retry"] * 3
    assert "cannot be reached" in outcome.reason


def test_an_endpoint_that_says_nothing_is_not_waited_for_beyond_the_deadline(build: Build, proxy: Faults) -> None:
    proxy.always(SILENT)
    made = build(endpoint_url=proxy.url)
    outcome = deliver(made, request(0), seconds=0.5)
    assert states(outcome) == ["retry"] * 3
    assert "no answer in time" in outcome.reason
    proxy.always(None)
    assert states(deliver(made, request(0))) == ["done"] * 3


def test_a_shutdown_ends_what_is_under_way(build: Build, proxy: Faults) -> None:
    proxy.always(SILENT)
    made = build(endpoint_url=proxy.url)
    outcomes: list[Any] = []
    delivery = threading.Thread(target=lambda: outcomes.append(deliver(made, request(0), seconds=60)))
    delivery.start()
    while not proxy.requests:
        time.sleep(0.01)
    made.shutdown()
    delivery.join(10)
    assert [states(outcome) for outcome in outcomes] == [["retry"] * 3]


def test_credentials_that_are_set_are_not_mixed_with_the_environments(
    build: Build, proxy: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-another")
    assert states(deliver(build(endpoint_url=proxy.url), request(0))) == ["done"] * 3
    assert "x-amz-security-token" not in proxy.requests[0].headers
    assert f"Credential={KEY_ID}/" in proxy.requests[0].headers["authorization"]


def test_the_environment_alone_is_enough(
    server: SeaweedFs, closing: Callable[[Exporter], Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OTELGW_S3_BUCKET": BUCKET,
        "AWS_ENDPOINT_URL_S3": server.url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    made = closing(S3Exporter())
    assert states(deliver(made, request(0))) == ["done"] * 3
    assert made.name == "s3"


def test_a_profile_is_as_good_as_keys(build: Build, tmp_path: Path) -> None:
    keys = f"[logs]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\n"
    (tmp_path / "credentials").write_text(keys)
    made = build(access_key_id=None, secret_access_key=None, profile="logs")
    assert states(deliver(made, request(0))) == ["done"] * 3


def test_without_credentials_nothing_is_lost_and_it_is_said_what_to_do(build: Build) -> None:
    made = build(access_key_id=None, secret_access_key=None)
    outcome = deliver(made, request(0))
    assert states(outcome) == ["retry"] * 3
    assert outcome.after == OPERATOR_DELAY
    assert "no AWS credentials were found: set access_key_id" in outcome.reason


def test_a_profile_that_is_not_there_is_said(build: Build) -> None:
    outcome = deliver(build(access_key_id=None, secret_access_key=None, profile="nope", region="us-east-1"), request(0))
    assert states(outcome) == ["retry"] * 3
    assert "nope" in outcome.reason
    assert "mend the destination's profile" in outcome.reason


def test_half_a_key_is_refused_at_once(build: Build) -> None:
    with pytest.raises(
        DestinationConfigError, match=r"destination s3: access_key_id and secret_access_key go together"
    ):
        build(secret_access_key=None)


def test_a_bucket_is_required(build: Build) -> None:
    with pytest.raises(DestinationConfigError, match=r"destination s3: s3: bucket is missing"):
        build(bucket=None)
    with pytest.raises(DestinationConfigError, match="is no bucket's name; a prefix belongs into `path`"):
        build(bucket="logs/prefix")


def test_the_region_is_the_options_the_variables_or_the_profiles(
    build: Build, proxy: Faults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def scope(**given: Any) -> str:
        deliver(build(endpoint_url=proxy.url, **given), request(0))
        return proxy.requests[-1].headers["authorization"].split("/")[2]

    assert scope() == "us-east-1"
    (tmp_path / "config").write_text("[default]\nregion=eu-north-1\n")
    assert scope() == "eu-north-1"
    monkeypatch.setenv("AWS_REGION_NAME", "eu-west-1")
    assert scope() == "eu-west-1"
    assert scope(region="us-west-2") == "us-west-2"


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"server_side_encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"kms_key_id": "arn:aws:kms:eu-west-1:1:key/2", "bucket_key": True},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu-west-1:1:key/2",
                "x-amz-server-side-encryption-bucket-key-enabled": "true",
            },
        ),
        ({"server_side_encryption": "aws:kms:dsse"}, {"x-amz-server-side-encryption": "aws:kms:dsse"}),
    ],
)
def test_encryption_is_asked_for_with_every_object(
    build: Build, proxy: Faults, options: dict[str, Any], header: dict[str, str]
) -> None:
    proxy.always(Status(200, headers={"etag": '"x"'}))
    assert states(deliver(build(endpoint_url=proxy.url, **options), request(0))) == ["done"] * 3
    assert header.items() <= proxy.requests[0].headers.items()


def test_a_kms_key_without_kms_is_refused(build: Build) -> None:
    with pytest.raises(DestinationConfigError, match="kms_key_id"):
        build(server_side_encryption="AES256", kms_key_id="k")


def test_a_bucket_can_be_part_of_the_hosts_name_and_a_proxy_on_the_way(
    build: Build, proxy: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.always(Status(200, headers={"etag": '"x"'}))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    made = build(endpoint_url="http://store.example", bucket="b", path="p", virtual_hosted_style=True)
    assert states(deliver(made, request(0))) == ["done"] * 3
    (seen,) = proxy.requests
    assert seen.headers["host"] == "b.store.example"
    assert seen.path.startswith("http://b.store.example/p/date%3D")


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Moto(require("moto")) as running:
        yield running


def test_a_role_is_assumed(
    moto: Moto, closing: Callable[[Exporter], Exporter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _bucket(moto, "roles")
    with Faults(moto.url) as proxy:
        arn = "arn:aws:iam::123456789012:role/logs"
        given = {"bucket": "roles", "endpoint_url": proxy.url, "region": "eu-west-1", "role_arn": arn}
        keys = {"access_key_id": "AKIASOURCE", "secret_access_key": "source-secret"}
        made = closing(S3Exporter(**given, **keys, sts_endpoint_url=moto.url))
        assert states(deliver(made, request(0))) == ["done"] * 3
        token = tmp_path / "token"
        token.write_text("a.web.identity")
        federated = closing(S3Exporter(**given, web_identity_token_file=str(token), sts_endpoint_url=moto.url))
        assert states(deliver(federated, request(1))) == ["done"] * 3
        for each in proxy.requests:
            assert each.headers["x-amz-security-token"]
            assert "AKIASOURCE" not in each.headers["authorization"]


def test_a_pods_own_role_is_assumed(
    moto: Moto, closing: Callable[[Exporter], Exporter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _bucket(moto, "pods")
    (tmp_path / "token").write_text("a.web.identity")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    made = closing(S3Exporter(bucket="pods", endpoint_url=moto.url, region="eu-west-1"))
    assert states(deliver(made, request(0))) == ["done"] * 3


def _bucket(moto: Moto, name: str) -> None:
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{moto.url}/{name}", method="PUT"), timeout=10).close()


FORKED = """
import json, os, sys
sys.path[:0] = [{root!r}]
from otelgw_exporters.s3 import S3Exporter
from tests.exporters.objects import deliver, request, states
made = S3Exporter(**json.loads(sys.argv[1]))
if sys.argv[2] == "used":
    assert set(states(deliver(made, request(0)))) == {{"done"}}
child = os.fork()
if not child:
    outcome = deliver(made, request(1))
    print(sorted(set(states(outcome))), outcome.reason, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("state", ["used", "new"])
def test_a_forked_process_writes_or_says_why_not_and_never_hangs(server: SeaweedFs, state: str) -> None:
    own = {"endpoint_url": server.url, "access_key_id": KEY_ID, "secret_access_key": SECRET, "bucket": BUCKET}
    program = textwrap.dedent(FORKED).format(root=str(ROOT))
    command = [sys.executable, "-W", "ignore", "-c", program, json.dumps({**own, "path": "forked"}), state]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if state == "new":
        assert "['done']" in done.stdout, done.stderr
    else:
        assert "['retry']" in done.stdout, done.stderr
        assert "before this process was forked" in done.stdout


def test_a_missing_library_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"bucket": "b", "endpoint_url": "http://127.0.0.1:1", "access_key_id": "a", "secret_access_key": "b"}
    for module, options, extra in (
        ("obstore", {}, "storage"),
        ("zstandard", {"compression": "zstd"}, "storage"),
        ("pyarrow", {"layout": "parquet"}, "parquet"),
        ("botocore", {"access_key_id": None, "secret_access_key": None}, "aws"),
    ):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
                without.setitem(sys.modules, name, None)
            with pytest.raises(DestinationConfigError, match=rf"destination s3: .*pip install 'otelgw\[{extra}\]'"):
                S3Exporter(**{**given, **options})
