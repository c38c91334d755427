"""The section ``otelgw.spool`` and which requests a destination gets."""

from __future__ import annotations

import pytest

from otelgw.config.settings import Selection, Spool
from tests.config.conftest import Examine


def test_without_a_word_the_spool_has_its_defaults(examine_text: Examine) -> None:
    settings = examine_text("otelgw: {destinations: [console]}").settings
    assert settings.spool == Spool()
    assert settings.destinations[0].selection == Selection()


def test_every_key_of_the_spool_can_be_set(examine_text: Examine) -> None:
    outcome = examine_text(
        "otelgw: {spool: {fsync: true, intents: false, retention: 0, disk_cap: 5000000, dead_letter_cap: 7, "
        "retry_limit: 60}}"
    )
    assert outcome.findings.errors == ()
    assert outcome.settings.spool == Spool(True, False, 0.0, 5_000_000, 7, 60.0)


def test_a_destination_says_which_requests_it_gets(examine_text: Examine) -> None:
    outcome = examine_text(
        "otelgw: {destinations: [{name: console, select: {model: 'gpt-*', key: [a, b], team: t, tag: x, "
        "route: /v1/*, ratio: 0.5, slow: 3, costly: 0.1}}]}"
    )
    assert outcome.findings.errors == ()
    assert outcome.settings.destinations[0].selection == Selection(
        ("gpt-*",), ("a", "b"), ("t",), ("x",), ("/v1/*",), 0.5, 3.0, 0.1
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("otelgw: {spool: {fsnc: true}}", "otelgw.spool.fsnc: unknown key; did you mean `fsync`?"),
        ("otelgw: {spool: {disk_cap: 5}}", "otelgw.spool.disk_cap: must be greater than or equal to 1048576"),
        ("otelgw: {destinations: [{name: console, select: {models: x}}]}", "select.models: unknown key"),
        (
            "otelgw: {destinations: [{name: console, select: {ratio: 2}}]}",
            "select.ratio: must be less than or equal to 1",
        ),
    ],
)
def test_a_mistake_is_an_error_with_its_place(examine_text: Examine, text: str, part: str) -> None:
    errors = examine_text(text).findings.errors
    assert any(part in error for error in errors), errors
