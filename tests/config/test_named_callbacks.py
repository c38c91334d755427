"""Destinations under names of the user's own, as LiteLLM's ``callback_settings`` has them."""

from __future__ import annotations

import pytest

from tests.config.conftest import Examine

TEXT = """\
    litellm_settings: {{{key}: [my_logs, console]}}
    callback_settings:
      my_logs:
        callback_type: generic_api
        endpoint: https://logs.example/ingest
        headers: {{Authorization: Bearer os.environ/LOGS_TOKEN}}
        event_types: [llm_api_success]
        log_format: ndjson
        message_logging: false
    """
TOKEN = {"LOGS_TOKEN": "CANARY-token"}


@pytest.mark.parametrize(
    ("key", "on"), [("callbacks", "all"), ("success_callback", "success"), ("failure_callback", "failure")]
)
def test_a_name_with_a_type_is_a_destination_of_that_type(examine_text: Examine, key: str, on: str) -> None:
    settings, findings = examine_text(TEXT.format(key=key), TOKEN)
    assert (findings.errors, findings.strict, findings.ignored) == ((), (), ())
    found, console = settings.destinations
    assert (found.name, found.type, found.on, found.content) == ("generic_api/my_logs", "generic_api", on, False)
    assert (console.type, console.content) == ("console", True)
    assert {"my_logs", "generic_api"} <= set(found.callbacks)
    chosen = {name: found.options[name] for name in ("endpoint", "headers", "event_types", "format")}
    assert chosen == {
        "endpoint": "https://logs.example/ingest",
        "headers": {"authorization": "Bearer CANARY-token"},
        "event_types": ("llm_api_success",),
        "format": "ndjson",
    }


def test_several_names_are_several_destinations(examine_text: Examine) -> None:
    text = """\
        litellm_settings: {callbacks: [one, "two words", generic_api]}
        callback_settings:
          one: {callback_type: generic_api, endpoint: "https://one.example/"}
          two words: {callback_type: generic_api, endpoint: "https://two.example/"}
          generic_api: {callback_type: generic_api, endpoint: "https://three.example/"}
          unused: {callback_type: generic_api, endpoint: "https://four.example/"}
        """
    settings, findings = examine_text(text)
    assert (findings.errors, findings.strict) == ((), ())
    assert {each.name: each.options["endpoint"] for each in settings.destinations} == {
        "generic_api/one": "https://one.example/",
        "generic_api/two-words": "https://two.example/",
        "generic_api": "https://three.example/",
    }
    (ignored,) = findings.ignored
    assert "callback_settings.unused: no such destination is configured" in ignored


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ("callback_type: generik_api", "did you mean 'generic_api'?"),
        ("callback_type: generic_api, endpoint: nowhere", "callback_settings.mine.endpoint: "),
        ("callback_type: generic_api", "endpoint"),
        ("callback_type: generic_api, endpoint: 'https://a.example', message_loging: false", "`message_logging`"),
        ("callback_type: generic_api, endpoint: 'https://a.example', headers: {a: os.environ/NOPE}", "NOPE"),
    ],
)
def test_a_mistake_is_an_error_that_says_where(examine_text: Examine, section: str, part: str) -> None:
    text = f"litellm_settings: {{callbacks: mine}}\ncallback_settings: {{mine: {{{section}}}}}"
    errors = examine_text(text).findings.errors
    assert any(part in error and "config.yaml" in error for error in errors), errors


def test_an_unknown_option_is_a_warning_with_the_right_name(examine_text: Examine) -> None:
    text = """\
        litellm_settings: {callbacks: mine}
        callback_settings: {mine: {callback_type: generic_api, endpoint: "https://a.example", log_fromat: single}}
        """
    (warning,) = examine_text(text).findings.strict
    assert "callback_settings.mine.log_fromat: unknown key; did you mean `log_format`?" in warning


def test_the_name_of_another_destination_is_refused(examine_text: Examine) -> None:
    text = "litellm_settings: {callbacks: s3_v2}\ncallback_settings: {s3_v2: {callback_type: generic_api}}"
    errors = examine_text(text).findings.errors
    assert any("is the name of the destination s3; choose another" in error for error in errors)
