"""LiteLLM's parameters of callbacks -> options of destinations."""

from __future__ import annotations

from typing import Any

import pytest

from otelgw.config.settings import Destination
from tests.config.conftest import Examine

SEED = """
    litellm_settings:
      success_callback: ["{callback}"]
      enable_preview_features: true
      s3_callback_params:
        s3_bucket_name: logs-bucket-litellm   # AWS Bucket Name for S3
        s3_region_name: us-west-2
        s3_aws_access_key_id: os.environ/AWS_ACCESS_KEY_ID
        s3_aws_secret_access_key: os.environ/AWS_SECRET_ACCESS_KEY
        s3_path: my-test-path
        s3_endpoint_url: https://s3.amazonaws.com
        s3_use_team_prefix: true
"""
KEYS = {"AWS_ACCESS_KEY_ID": "AKIASEED", "AWS_SECRET_ACCESS_KEY": "seed-secret-canary"}
SQS = """
    litellm_settings:
      callbacks: ["aws_sqs"]
      aws_sqs_callback_params:
        sqs_queue_url: https://sqs.us-west-2.amazonaws.com/123456789012/my-queue
        sqs_region_name: us-west-2
        sqs_aws_access_key_id: os.environ/AWS_ACCESS_KEY_ID
        sqs_aws_secret_access_key: os.environ/AWS_SECRET_ACCESS_KEY
        sqs_batch_size: 7
        sqs_flush_interval: os.environ/FLUSH
"""


@pytest.fixture
def only(examine_text: Examine) -> Any:
    def run(text: str, environment: dict[str, str] | None = None, **more: Any) -> Destination:
        settings, findings = examine_text(text, environment, **more)
        assert findings.errors == ()
        assert findings.strict == ()
        (destination,) = settings.destinations
        return destination

    return run


@pytest.mark.parametrize("callback", ["s3", "s3_v2"])
def test_the_seeds_bucket_is_a_destination(only: Any, callback: str) -> None:
    found = only(SEED.replace("{callback}", callback), KEYS)
    assert (found.name, found.type, found.on) == ("s3", "s3", "success")
    expected = {
        "bucket": "logs-bucket-litellm",
        "region": "us-west-2",
        "access_key_id": "AKIASEED",
        "secret_access_key": "seed-secret-canary",
        "path": "my-test-path",
        "endpoint_url": "https://s3.amazonaws.com",
        "use_team_prefix": True,
    }
    assert expected.items() <= found.options.items()


def test_keys_beside_the_config_in_dotenv_are_used(only: Any) -> None:
    dotenv = '        AWS_ACCESS_KEY_ID = "AKIADOT"\n        AWS_SECRET_ACCESS_KEY = "dot-secret"\n'
    text = "litellm_settings: {callbacks: [s3], s3_callback_params: {s3_bucket_name: b}}"
    found = only(text, dotenv=dotenv + "        AWS_REGION_NAME = eu-west-1\n")
    assert (found.options["access_key_id"], found.options["region"]) == ("AKIADOT", "eu-west-1")


def test_the_seeds_queue_is_a_destination(only: Any) -> None:
    found = only(SQS, {**KEYS, "FLUSH": "12"})
    assert (found.name, found.on) == ("aws_sqs", "all")
    assert (found.options["batch_size"], found.options["flush_interval"]) == (7, 12.0)
    assert found.options["queue_url"].endswith("/123456789012/my-queue")


def test_a_single_key_of_the_settings_is_an_option_too(only: Any) -> None:
    found = only("litellm_settings: {success_callback: [dynamodb], dynamodb_table_name: my-logs}")
    assert found.options["table"] == "my-logs"


def test_options_go_by_their_own_names_too(only: Any) -> None:
    text = "litellm_settings: {callbacks: [s3], s3_callback_params: {bucket: b, layout: per_request}}"
    assert only(text).options["layout"] == "per_request"


def test_the_sections_own_destination_wins_where_it_says_something(only: Any) -> None:
    found = only("""
        litellm_settings: {callbacks: [s3], s3_callback_params: {s3_bucket_name: theirs, s3_path: p}}
        otelgw: {destinations: [{name: s3, bucket: ours}]}
    """)
    assert (found.options["bucket"], found.options["path"]) == ("ours", "p")


def test_an_unset_variable_is_an_error_with_its_line(examine_text: Examine) -> None:
    _, findings = examine_text(SEED.replace("{callback}", "s3"), {"AWS_ACCESS_KEY_ID": "AKIASEED"})
    assert any("s3_aws_secret_access_key" in error and "AWS_SECRET_ACCESS_KEY" in error for error in findings.errors)


def test_a_slip_is_said_and_which_key_was_meant(examine_text: Examine) -> None:
    text = "litellm_settings: {callbacks: [s3], s3_callback_params: {s3_bucket_name: b, s3_region: eu-west-1}}"
    _, findings = examine_text(text)
    assert any("s3_region" in warning and "`s3_region_name`" in warning for warning in findings.strict)


@pytest.mark.parametrize("value", ["{s3_bucket_name: b, s3_use_team_prefix: maybe}", "[a]", "{s3_bucket_name: [b]}"])
def test_a_value_that_cannot_be_used_is_an_error_at_its_place(examine_text: Examine, value: str) -> None:
    _, findings = examine_text(f"litellm_settings: {{callbacks: [s3], s3_callback_params: {value}}}")
    assert any("s3_callback_params" in error for error in findings.errors)


def test_a_missing_bucket_is_an_error(examine_text: Examine) -> None:
    _, findings = examine_text("litellm_settings: {callbacks: [s3]}")
    assert any("bucket is missing" in error for error in findings.errors)


def test_parameters_of_a_destination_that_is_not_configured_are_listed_as_ignored(examine_text: Examine) -> None:
    text = "litellm_settings: {callbacks: [otel], s3_callback_params: {s3_aws_access_key_id: os.environ/NOT_SET}}"
    settings, findings = examine_text(text)
    assert findings.errors == ()
    assert any("s3_callback_params" in line for line in settings.ignored)
    assert [destination.type for destination in settings.destinations] == ["otlp_grpc"]
