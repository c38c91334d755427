from __future__ import annotations

import pytest

from otelgw.dialects.credentials import is_secret, redacted, redacted_text, redacted_url


@pytest.mark.parametrize(
    "name", ["api_key", "API-Key", "x-api-key", "Authorization", "client_secret", "access_token", "cookie"]
)
def test_names_of_credentials_are_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_tokens", "keyword", "tokens", "key_points", "author", "session_id"])
def test_other_names_are_not_taken_for_credentials(name: str) -> None:
    assert not is_secret(name)


def test_values_are_replaced_at_any_depth() -> None:
    assert redacted({"a": [{"api_key": "x", "b": 1}]}) == {"a": [{"api_key": "REDACTED", "b": 1}]}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/p", "https://h/p"),
        ("https://u:p@h/p", "https://REDACTED@h/p"),
        ("https://h/p?key=abc&alt=sse", "https://h/p?key=REDACTED&alt=sse"),
        ("https://h/?X-Amz-Signature=a&X-Amz-Date=b", "https://h/?X-Amz-Signature=REDACTED&X-Amz-Date=b"),
        ("https://h/?api-version=1&sig=", "https://h/?api-version=1&sig="),
    ],
)
def test_urls_lose_their_secrets_only(url: str, expected: str) -> None:
    assert redacted_url(url) == expected


@pytest.mark.parametrize(
    "secret",
    ["sk-proj-abcdEFGH1234", "gsk_abcdefgh12345678", "AIzaSyA1234567890abcdefghijk", "eyJhbGciOi.eyJzdWIiOiIx.c2ln"],
)
def test_keys_that_an_error_message_repeats_are_removed(secret: str) -> None:
    assert secret not in redacted_text(f"Incorrect API key provided: {secret}. Find yours at https://x.example.")


def test_error_messages_without_keys_stay_as_they_are() -> None:
    message = "sk_learn_parameters: model `gpt-5` does not exist; max_tokens is too large: 99999. See key points at https://x.example/a?b=c."
    assert redacted_text(message) == message
