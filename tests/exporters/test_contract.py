"""What every destination in the catalog keeps to, whatever it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otelgw_exporters import catalog
from otelgw_exporters.delivery import Exporter, Outcome
from tests.exporters.samples import generation, span
from tests.servers.collector import free_port

SECRET = "sk-secret-0123456789"

pytestmark = pytest.mark.parametrize("row", catalog.ROWS, ids=lambda row: row.name)
Keep = Callable[[Exporter], Exporter]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where a destination that writes files does so
    for row in catalog.ROWS:
        for names in row.env.values():
            for name in names:
                monkeypatch.delenv(name, raising=False)


def nowhere(row: catalog.Row) -> dict[str, Any]:
    """Options that lead a networked destination to a port where nobody listens, with a secret wherever one goes."""
    given: dict[str, Any] = {}
    for option in row.options:
        if option.kind == "url":
            given[option.name] = f"http://127.0.0.1:{free_port()}"
        elif option.secret:
            given[option.name] = {"authorization": f"Bearer {SECRET}"} if option.kind == "headers" else SECRET
    return given


def test_it_is_built_from_the_environment_alone(row: catalog.Row, closing: Keep) -> None:
    module, _, name = row.factory.partition(":")
    factory = getattr(__import__(module, fromlist=[name]), name)

    exporter = closing(factory())

    assert isinstance(exporter, SpanExporter)
    assert exporter.name == row.name


def test_it_takes_variables_where_nothing_is_given(
    row: catalog.Row, closing: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for option in row.options:
        if option.kind == "url" and option.env:
            monkeypatch.setenv(option.env[0], f"http://127.0.0.1:{port}")

            assert f"127.0.0.1:{port}" in repr(closing(catalog.build(row.name, row.name, {})))


def test_no_secret_is_in_its_representation_or_in_what_it_reports(
    row: catalog.Row, closing: Keep, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = closing(catalog.build(row.name, f"{row.name}/mine", nowhere(row)))

    outcome = exporter.deliver([span()], time.monotonic() + 5)

    assert SECRET not in repr(exporter) + repr(vars(exporter).get("name")) + repr(outcome) + caplog.text
    assert exporter.name == f"{row.name}/mine"


def test_it_answers_for_every_span_in_order(row: catalog.Row, closing: Keep) -> None:
    exporter = closing(catalog.build(row.name, row.name, nowhere(row)))

    for batch in ([], [span(1)], [span(1), generation(2), span(3)]):
        outcome = exporter.deliver(batch, time.monotonic() + 5)
        assert len(outcome.verdicts) == len(batch)
        assert all(verdict.reason for verdict in outcome.verdicts if verdict.state != "done")


def test_a_destination_that_cannot_be_reached_loses_nothing(row: catalog.Row, closing: Keep) -> None:
    options = nowhere(row)
    if not any(option.kind == "url" for option in row.options):
        pytest.skip("it is not reached over a network")
    exporter = closing(catalog.build(row.name, row.name, options))

    outcome = exporter.deliver([span()], time.monotonic() + 5)

    assert [verdict.state for verdict in outcome.verdicts] == ["retry"]


def test_a_deadline_that_is_past_is_not_overrun(row: catalog.Row, closing: Keep) -> None:
    exporter = closing(catalog.build(row.name, row.name, nowhere(row)))
    started = time.monotonic()

    outcome = exporter.deliver([span()], started - 1)

    assert len(outcome.verdicts) == 1
    assert time.monotonic() - started < 5


def test_after_shutdown_it_fails_without_an_exception(row: catalog.Row, closing: Keep) -> None:
    exporter = closing(catalog.build(row.name, row.name, nowhere(row)))
    exporter.shutdown()
    exporter.shutdown()

    assert exporter.export([span()]) is SpanExportResult.FAILURE
    assert isinstance(exporter.deliver([span()], time.monotonic() + 1), Outcome)
    assert exporter.force_flush()


def test_the_spans_it_is_given_are_not_changed(row: catalog.Row, closing: Keep) -> None:
    exporter = closing(catalog.build(row.name, row.name, nowhere(row)))
    given = generation(2)
    before = dict(given.attributes or {})

    exporter.deliver([given], time.monotonic() + 5)

    assert dict(given.attributes or {}) == before
