"""``otelgw.blob_store``: from the config to the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from otelgw.config.settings import BlobStore
from tests.config.conftest import Examine


def test_a_directory_is_relative_to_the_config_file(examine_text: Examine, tmp_path: Path) -> None:
    outcome = examine_text("otelgw: {blob_store: {path: said}, destinations: [console]}")
    assert outcome.findings.errors == ()
    assert outcome.settings.blob_store == BlobStore("directory", {"path": str(tmp_path / "said")}, above=65536)


def test_a_bucket_has_the_options_and_variables_of_its_destination(examine_text: Examine) -> None:
    text = """\
        otelgw:
          blob_store: {type: s3, bucket: b, secret_access_key: os.environ/MINE, prefix: a/b, above: 1000}
          destinations: [console, {name: console/whole, blob_store: false}]
        """
    outcome = examine_text(text, {"MINE": "sk-canary-secret", "AWS_REGION": "eu-west-1"})
    assert outcome.findings.errors == ()
    found = outcome.settings.blob_store
    assert found is not None
    assert (found.type, found.prefix, found.above) == ("s3", "a/b", 1000)
    assert found.options["secret_access_key"] == "sk-canary-secret"
    assert found.options["region"] == "eu-west-1"
    assert "canary" not in repr(outcome.settings)
    assert [each.blob_store for each in outcome.settings.destinations] == [True, False]


def test_without_a_section_there_is_none(examine_text: Examine) -> None:
    assert examine_text("otelgw: {destinations: [console]}").settings.blob_store is None


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ("{}", "directory: path is missing"),
        ("{type: gcs, bucket: b}", "there is no blob store 'gcs'; types: directory, s3"),
        ("{type: s3}", "s3: bucket is missing"),
        ("{type: s3, bucket: b, layout: batch}", "s3 has no option 'layout'"),
        ("{path: p, prefix: 'a b'}", "otelgw.blob_store.prefix"),
        ("{path: p, above: 10}", "otelgw.blob_store.above"),
        ("{path: os.environ/NOWHERE}", "NOWHERE"),
        ("said", "otelgw.blob_store"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_says_where(examine_text: Examine, section: str, part: str) -> None:
    outcome = examine_text(f"otelgw: {{blob_store: {section}, destinations: [console]}}")
    assert any(part in str(error) for error in outcome.findings.errors), outcome.findings.errors
