from __future__ import annotations

import subprocess
import sys

import pytest

from otelgw_exporters import catalog
from otelgw_exporters.errors import DestinationConfigError


def test_listing_the_catalog_imports_no_destination_and_no_sdk() -> None:
    listing = (
        "import sys; from otelgw_exporters import catalog; print([(row.name, row.env) for row in catalog.ROWS]);"
        "print(sorted(name for name in sys.modules if name.startswith(('grpc', 'httpx', 'opentelemetry'))"
        " or name in {row.factory.partition(':')[0] for row in catalog.ROWS}))"
    )
    output = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout

    assert output.splitlines()[1] == "[]"


def test_names_are_unique_and_every_option_is_described() -> None:
    names = [row.name for row in catalog.ROWS]
    assert len(set(names)) == len(names)
    for row in catalog.ROWS:
        assert row.description
        assert len({option.name for option in row.options}) == len(row.options)
        assert all(option.description and (option.choices or option.kind != "choice") for option in row.options)


def test_a_callback_is_either_available_or_known_to_be_not() -> None:
    available = [callback for row in catalog.ROWS for callback in row.callbacks]
    assert "otel" in available
    assert len(set(available)) == len(available)
    assert not catalog.KNOWN_CALLBACKS & set(available)
    expected = (
        "langfuse langfuse_otel s3 s3_v2 gcs_bucket azure_storage aws_sqs dynamodb datadog langsmith lunary mlflow"
    )
    expected += " deepeval galileo openmeter sentry athina arize arize_phoenix langtrace logfire braintrust posthog"
    assert set(f"{expected} generic_api prometheus".split()) <= (
        catalog.KNOWN_CALLBACKS | set(available) | {row.name for row in catalog.ROWS}
    )


def test_an_unknown_type_or_option_is_corrected() -> None:
    with pytest.raises(DestinationConfigError, match="did you mean 'otlp_grpc'"):
        catalog.build("otlp_grcp", "x", {})
    with pytest.raises(DestinationConfigError, match="otlp_http has no option 'endpont'; did you mean 'endpoint'"):
        catalog.build("otlp_http", "x", {"endpont": "http://127.0.0.1:4318"})


def test_an_error_names_the_instance() -> None:
    with pytest.raises(
        DestinationConfigError, match=r"destination otlp_http/mine: otlp_http: endpoint: expected a URL"
    ):
        catalog.build("otlp_http", "otlp_http/mine", {"endpoint": "nowhere"})
