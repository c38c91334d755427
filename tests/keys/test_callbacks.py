"""LiteLLM's callback names and variables become destinations and options, and a tenant's are checked."""

from __future__ import annotations

from typing import Any

import pytest

from otelgw.config.settings import Keys
from otelgw.keys.callbacks import check, host_of, make, options_of, row_of
from otelgw.keys.schema import Callback
from otelgw.keys.sealing import Sealer
from otelgw_exporters import catalog
from otelgw_exporters.confinement import NotAllowed
from otelgw_exporters.errors import DestinationConfigError

PUBLIC = {"endpoint": "https://tenant.example/v1/traces"}


@pytest.mark.parametrize(
    ("name", "row"), [("otlp_http", "otlp_http"), ("otel", "otlp_grpc"), ("langfuse", "langfuse"), ("arize", "arize")]
)
def test_a_callback_is_found_by_litellms_name_and_by_ours(name: str, row: str) -> None:
    assert row_of(name).name == row


def test_an_unknown_callback_is_told_from_a_misspelt_one() -> None:
    with pytest.raises(DestinationConfigError, match="did you mean 'otlp_http'"):
        row_of("otlp_htpp")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"langfuse_public_key": "pk", "langfuse_secret_key": "sk", "langfuse_host": "https://x.example"},
            {"public_key": "pk", "secret_key": "sk", "endpoint": "https://x.example"},
        ),
        ({"langfuse_secret": "sk", "LANGFUSE_PUBLIC_KEY": "pk"}, {"secret_key": "sk", "public_key": "pk"}),
        ({"secret_key": "sk", "endpoint": "https://x.example"}, {"secret_key": "sk", "endpoint": "https://x.example"}),
    ],
)
def test_variables_are_called_as_litellm_calls_them(variables: dict[str, Any], expected: dict[str, Any]) -> None:
    assert options_of(row_of("langfuse"), variables) == expected


@pytest.mark.parametrize(
    ("name", "variables", "says"),
    [
        ("langfuse", {"langfuse_public_kee": "pk"}, "no option"),
        ("langfuse", {"langfuse": "x"}, "no option"),
        ("langfuse", {"langfuse_public_key": "pk"}, "secret_key is missing"),
        ("langfuse", {"public_key": "pk", "secret_key": "os.environ/CANARY"}, "config file only"),
        ("otlp_http", {}, "not a public one"),
        ("otlp_http", {"endpoint": "http://127.0.0.1:4318"}, "not a public one"),
        ("otlp_http", {"endpoint": "http://localhost/x"}, "not a public one"),
        ("otlp_http", {"endpoint": "http://foo.localhost/x"}, "not a public one"),
        ("otlp_http", {"endpoint": "http://[::ffff:10.0.0.1]/x"}, "not a public one"),
        ("otlp_http", {"endpoint": "http://169.254.169.254/latest"}, "not a public one"),
        ("otlp_grpc", {"endpoint": "10.0.0.1:4317"}, "not a public one"),
        ("otlp_http", {"endpoint": "no url"}, "expected a URL"),
        ("otlp_http", {**PUBLIC, "certificate": "/etc/passwd"}, "file of this machine"),
        ("otlp_http", {**PUBLIC, "headers": "no header"}, "not name=value"),
        ("console", {}, "set over HTTP"),
        ("file", {"path": "/tmp/x"}, "set over HTTP"),
        ("s3", {"bucket": "operators"}, "set over HTTP"),
        ("callback", {}, "set over HTTP"),
        ("nothing", {}, "no destination type"),
    ],
)
def test_what_a_tenant_may_not_have_is_refused_with_its_reason(
    name: str, variables: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "operator-canary")
    with pytest.raises(DestinationConfigError, match=says) as refused:
        check(Callback(name, variables=variables), Keys())
    assert "canary" not in str(refused.value)


def test_what_a_tenant_may_have_passes() -> None:
    check(Callback("otlp_http", variables=PUBLIC), Keys())
    check(Callback("langfuse", variables={"langfuse_public_key": "pk", "langfuse_secret_key": "sk"}), Keys())
    near = {"endpoint": "http://10.1.2.3:4318"}
    check(Callback("otlp_http", variables=near), Keys(allow_networks=("10.0.0.0/8",)))


def test_no_destination_that_writes_files_or_uses_the_machines_credentials_is_for_tenants() -> None:
    open_to_tenants = {row.name for row in catalog.ROWS if row.tenant or row.wire is not None}

    assert open_to_tenants.isdisjoint(
        {"console", "file", "callback", "s3", "gcs_bucket", "azure_storage", "aws_sqs", "dynamodb", "postgres", "kafka"}
    )


def test_a_sealed_destination_is_made_confined_and_one_of_the_file_is_not() -> None:
    settings = Keys(salt_key="salt")
    near = {"endpoint": "http://127.0.0.1:9"}
    sealed = Callback("otlp_grpc", sealed=Sealer("salt").seal(near, "team:a"), confined=True)

    with pytest.raises(NotAllowed):
        make(sealed, "team:a", settings, "x")
    make(Callback("otlp_grpc", variables=near), "team:a", settings, "x").shutdown()


def test_a_host_is_what_destinations_share_and_no_credential() -> None:
    callback = Callback("otlp_http", variables={"endpoint": "https://u:pw-canary@x.example:4318/v1/traces"})

    assert host_of(callback, "team:a", Keys()) == "otlp_http x.example:4318"
    assert host_of(Callback("otlp_http", sealed="v1.x", confined=True), "team:a", Keys(salt_key="s")) == ""
