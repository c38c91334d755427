"""``redact``, ``required``, default tags and header attributes: from the config to the settings."""

from __future__ import annotations

from typing import Any

import pytest

from otelgw.config.settings import Destination, Pattern, Redaction
from tests.config.conftest import Examine


def found(examine_text: Examine, text: str, environment: dict[str, str] | None = None) -> dict[str, Destination]:
    outcome = examine_text(text, environment)
    assert outcome.findings.errors == ()
    return {each.name: each for each in outcome.settings.destinations}


def test_a_destination_redacts_what_its_section_says(examine_text: Examine) -> None:
    text = """\
        otelgw:
          destinations:
            - name: console
              redact:
                presets: email, card
                patterns: ['a+b', {name: ticket, pattern: '#\\d+'}]
                media: true
                limit: 4096
        """
    assert found(examine_text, text)["console"].redaction == Redaction(
        ("email", "card"), (Pattern("pattern", "a+b"), Pattern("ticket", r"#\d+")), media=True, limit=4096
    )


def test_the_nearest_section_counts(examine_text: Examine) -> None:
    text = """\
        litellm_settings: {callbacks: [otel]}
        callback_settings: {otel: {redact: {presets: [phone]}}}
        otelgw:
          redact: {presets: [iban]}
          destinations:
            - console
            - {name: console/own, redact: {media: true}}
            - {name: console/none, redact: {}}
        """
    assert {name: each.redaction for name, each in found(examine_text, text).items()} == {
        "console": Redaction(("iban",)),
        "console/own": Redaction(media=True),
        "console/none": Redaction(),
        "otlp_grpc": Redaction(("phone",)),
    }


@pytest.mark.parametrize(
    ("redact", "part"),
    [
        ("{presets: [mail]}", "redact.presets[0]: must be"),
        ("{preset: [email]}", "redact.preset: unknown key"),
        ("{patterns: ['(']}", "redact.patterns: pattern: is no regular expression"),
        ("{patterns: ['a*']}", "matches the empty text"),
        ("{patterns: [{name: 'a b', pattern: x}]}", "must be letters"),
        ("{patterns: ['']}", "at least 1"),
        ("{limit: 10}", "greater than or equal to 256"),
        ("[email]", "redact: "),
    ],
)
@pytest.mark.parametrize("where", ["otelgw: {redact: %s}", "otelgw: {destinations: [{name: console, redact: %s}]}"])
def test_a_redaction_that_cannot_be_done_is_an_error(examine_text: Examine, where: str, redact: str, part: str) -> None:
    errors = examine_text(where % redact).findings.errors
    assert any(part in error and "config.yaml" in error for error in errors), errors


@pytest.mark.parametrize(
    ("options", "content"), [("", True), (", required: true", False), (", required: true, content: true", True)]
)
def test_a_required_destination_gets_content_only_where_it_is_said(
    examine_text: Examine, options: str, content: bool
) -> None:
    made = found(examine_text, f"otelgw: {{destinations: [{{name: console{options}}}]}}")["console"]
    assert (made.required, made.content) == ("required" in options, content)


def test_a_destination_answers_to_litellms_names_for_it(examine_text: Examine) -> None:
    made = found(examine_text, "litellm_settings: {callbacks: [otel]}", {"OTEL_EXPORTER": "console"})
    assert made["console"].callbacks == ("otel",)


SEED = """\
litellm_settings:
  success_callback: ["%(callback)s"]
  %(callback)s_default_tags: ["cache_hit", "cache_key", "proxy_base_url", "user_api_key_alias", "user_api_key_user_id",
    "user_api_key_user_email", "user_api_key_team_alias", "semantic-similarity", "proxy_base_url"]
"""


def test_litellms_default_tags_are_for_that_callback_each_once_and_unknown_ones_are_one_warning(
    examine_text: Examine,
) -> None:
    text = SEED % {"callback": "console"} + "otelgw: {destinations: [file]}\n"
    outcome = examine_text(text, {"PROXY_BASE_URL": "https://proxy.example"})
    made = {each.name: each for each in outcome.settings.destinations}
    assert len(made["console"].default_tags) == 7
    assert made["console"].base_url == "https://proxy.example"
    assert made["file"].default_tags == ()
    (warning,) = (each for each in outcome.settings.warnings if "tag" in each)
    assert "semantic-similarity" in warning


def test_there_are_no_default_tags_by_default(examine_text: Examine) -> None:
    assert found(examine_text, "otelgw: {destinations: [console]}")["console"].default_tags == ()


def test_a_base_url_that_is_not_set_is_said(examine_text: Examine) -> None:
    outcome = examine_text("otelgw: {destinations: [{name: console, default_tags: proxy_base_url}]}")
    assert any("PROXY_BASE_URL is not set" in each for each in outcome.settings.warnings)


def test_headers_become_the_attributes_that_the_config_names(examine_text: Examine) -> None:
    text = "otelgw: {header_attributes: {X-Tenant: tenant.id, x-who: user.id, x-a: otelgw.metadata.a}}"
    assert examine_text(text).settings.tracing.header_attributes == (
        *(("x-tenant", "tenant.id"), ("x-who", "user.id"), ("x-a", "otelgw.metadata.a")),
    )


@pytest.mark.parametrize(
    ("pairs", "part"),
    [
        ("{x-a: gen_ai.request.model}", "is the gateway's own"),
        ("{x-a: otelgw.call_id}", "is the gateway's own"),
        ("{'x a': tenant.id}", "must be a header's name"),
        ("{x-a: 'a b'}", "must be an attribute's name"),
        ("{Authorization: tenant.id}", "carries credentials"),
        ("{cookie: tenant.id}", "carries credentials"),
    ],
)
def test_a_header_that_must_not_become_that_attribute_is_an_error(examine_text: Examine, pairs: str, part: Any) -> None:
    errors = examine_text(f"otelgw: {{header_attributes: {pairs}}}").findings.errors
    assert any(part in error for error in errors), errors
