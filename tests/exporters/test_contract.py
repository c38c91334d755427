"""What every destination in the catalogue keeps to, whatever it is.

The first part asks nothing of a vendor. The second is run against a server that answers as the row's stand-in
(tests/exporters/stand_ins) says the vendor does; a row whose stand-in is ``local`` has the first part only, and its own
tests bring the server it needs.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from otelgw_exporters import catalog, semconv
from otelgw_exporters.calls import identity
from otelgw_exporters.delivery import OPERATOR_DELAY, Exporter, Outcome
from tests.exporters.samples import generation, span
from tests.exporters.stand_ins import Answer, Request, StandIn, declared
from tests.exporters.vendor import Fault, Vendor, code_of, serve
from tests.servers.ports import free_port

SECRET = "sk-secret-0123456789"
WORDS = "the vendor explains itself"
WAIT = 20.0  # seconds in which everything here happens, on a busy machine too; nothing waits for them to pass
AFTER = 40  # seconds of patience that a vendor asks for

Keep = Callable[[Exporter], Exporter]
Build = Callable[[], Exporter]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" not in metafunc.fixturenames:
        return
    rows = list(catalog.ROWS)
    if "vendor" in metafunc.fixturenames:
        rows = [row for row in rows if (found := declared(row.name)) is not None and found.transport != "local"]
    metafunc.parametrize("row", rows, ids=lambda row: row.name)


@pytest.fixture(autouse=True)
def directory_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where a destination that writes files does so


def nowhere(row: catalog.Row) -> dict[str, Any]:
    """Options that lead a networked destination to a port where nobody listens, with a secret wherever one goes."""
    origin = f"http://127.0.0.1:{free_port()}"
    stand_in = declared(row.name)
    told = stand_in.options(origin) if stand_in is not None else {}
    names = {option.name for option in row.options}
    given = {name: value for name, value in told.items() if name in names}
    for option in row.options:
        if option.kind == "headers":
            given.setdefault(option.name, {"x-secret": f"Bearer {SECRET}"})
        elif stand_in is None and (option.kind == "url" or option.secret):
            given[option.name] = origin if option.kind == "url" else SECRET
    return given


def needed(row: catalog.Row, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that give the options which a row cannot do without."""
    return {option.env[0]: str(given[option.name]) for option in row.options if option.required}


def test_it_is_said_how_its_vendor_is_stood_in_for(row: catalog.Row) -> None:
    stand_in = declared(row.name)

    assert stand_in is not None, f"write tests/exporters/stand_ins/{row.name}.py"
    assert stand_in.transport in {"http", "grpc", "local"}
    if stand_in.transport != "local" and any(option.secret for option in row.options):
        assert secrets_in(row, stand_in.options("http://127.0.0.1:1")), "options has no value for a secret option"


def test_it_is_built_from_the_environment_alone(
    row: catalog.Row, closing: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = row.factory.partition(":")
    factory = getattr(__import__(module, fromlist=[name]), name)
    for variable, value in needed(row, nowhere(row)).items():
        monkeypatch.setenv(variable, value)

    exporter = closing(factory())

    assert isinstance(exporter, SpanExporter)
    assert exporter.name == row.name


def test_it_takes_variables_where_nothing_is_given(
    row: catalog.Row, closing: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = nowhere(row)
    for variable, value in needed(row, given).items():
        monkeypatch.setenv(variable, value)
    for option in row.options:
        if option.kind == "url" and option.env and option.name in given:
            monkeypatch.setenv(option.env[0], given[option.name])

            exporter = closing(catalog.build(row.name, row.name, {}))

            assert urlsplit(given[option.name]).netloc.rpartition("@")[2] in repr(exporter)


def test_no_secret_is_in_its_representation_or_in_what_it_reports(
    row: catalog.Row, closing: Keep, caplog: pytest.LogCaptureFixture
) -> None:
    given = nowhere(row)
    exporter = closing(catalog.build(row.name, f"{row.name}/mine", given))

    outcome = exporter.deliver(request_spans(1), time.monotonic() + 5)

    shown = repr(exporter) + repr(vars(exporter).get("name")) + repr(outcome) + caplog.text
    assert [secret for secret in secrets_in(row, given) if secret in shown] == []
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
    spans = request_spans(1)

    outcome = exporter.deliver(spans, time.monotonic() + 5)

    assert fates(spans, outcome) == ["retry"]


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


# Against the vendor


def request_spans(number: int) -> list[ReadableSpan]:
    """Return the spans of one request to the gateway, the generation among them."""
    trace, first = 0xABCDEF00 + number, 16 * number
    call = {"otelgw.call_id": f"call-{number}", "http.response.status_code": 200}
    attempt = {"otelgw.attempt.number": 1, "server.address": "127.0.0.1"}
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": "hi"}], "finish_reason": "stop"}]
    asked = generation(first + 2, parent=first + 1, trace=trace, text=f"hello {number}").attributes or {}
    told = {**asked, "gen_ai.provider.name": "openai", "gen_ai.output.messages": answer}
    client = SpanKind.CLIENT
    return [
        span(first + 1, call, trace=trace),
        span(first + 2, told, name="chat echo", parent=first + 1, trace=trace, kind=client),
        span(first + 3, attempt, name="POST", parent=first + 2, trace=trace, kind=client),
    ]


SPANS = [span for number in (1, 2, 3) for span in request_spans(number)]


def generations(spans: Sequence[ReadableSpan]) -> list[int]:
    return [at for at, each in enumerate(spans) if semconv.GEN_AI_OPERATION_NAME in (each.attributes or {})]


IDS = sorted(identity(SPANS[at]) for at in generations(SPANS))


def fates(spans: Sequence[ReadableSpan], outcome: Outcome) -> list[str]:
    """Return what became of the generations."""
    return [outcome.verdicts[at].state for at in generations(spans)]


def secrets_in(row: catalog.Row, options: Mapping[str, Any]) -> set[str]:
    """Return the words of the secret options that no text may show."""
    found: list[str] = []
    for name, value in options.items():
        if row.option(name).secret:
            found += [str(each) for each in value.values()] if isinstance(value, Mapping) else [str(value)]
    return words_of(found)


def words_of(values: Sequence[str]) -> set[str]:
    return {word for value in values for word in value.split() if len(word) >= 8}


def credentials_of(request: Request) -> set[str]:
    """Return the words of a request's headers that are a credential; a request's signature is none."""
    named = re.compile(r"auth|(?<!idempotency-)key|token|secret|password|cookie")
    values = [value for name, value in request.headers.items() if named.search(name)]
    return words_of([value for value in values if not value.startswith(("AWS4-", "SharedKey "))])


@pytest.fixture
def stand_in(row: catalog.Row) -> StandIn:
    found = declared(row.name)
    assert found is not None
    return found


@pytest.fixture
def vendor(stand_in: StandIn) -> Iterator[Vendor]:
    with serve(stand_in) as server:
        yield server


@pytest.fixture
def build(row: catalog.Row, vendor: Vendor, closing: Keep) -> Build:
    """Builds exporters that lead to the vendor."""
    return lambda: closing(catalog.build(row.name, f"{row.name}/mine", vendor.stand_in.options(vendor.origin)))


@pytest.fixture
def exporter(build: Build) -> Exporter:
    return build()


def deliver(exporter: Exporter, spans: Sequence[ReadableSpan] = SPANS, seconds: float = WAIT) -> Outcome:
    return exporter.deliver(spans, time.monotonic() + seconds)


def recovers(vendor: Vendor, exporter: Exporter, outcome: Outcome) -> None:
    """Hold the exporter to it: what it says is to be tried again arrives, once the vendor takes things, and once."""
    vendor.accepts()
    vendor.forget()
    left: list[ReadableSpan] = list(SPANS)
    deadline = time.monotonic() + WAIT
    while left := [each for each, verdict in zip(left, outcome.verdicts, strict=True) if verdict.state == "retry"]:
        assert time.monotonic() < deadline, outcome.reason
        time.sleep(0.05)
        outcome = deliver(exporter, left)
        assert "dead" not in fates(left, outcome)
    assert sorted(vendor.items()) == IDS


def named(stand_in: StandIn, status: int) -> str:
    """Return how a reason names an answer's status."""
    return str(code_of(status).name if stand_in.transport == "grpc" else status)


def busy(stand_in: StandIn) -> list[Answer]:
    """Return the answers that ask for patience, in seconds and, where they have the header, with a date."""
    headers = {name.lower(): value for name, value in stand_in.busy.headers.items()}
    forms = [str(AFTER)]
    if "retry-after" in headers and stand_in.transport == "http":
        forms.append(format_datetime(datetime.now(UTC) + timedelta(seconds=AFTER), usegmt=True))
    return [
        Answer(
            stand_in.busy.status,
            {name: value.replace("{after}", form) for name, value in headers.items()},
            stand_in.busy.body.replace(b"{after}", form.encode()),
        )
        for form in forms
    ]


def test_what_the_vendor_takes_has_arrived_and_once(vendor: Vendor, exporter: Exporter) -> None:
    outcome = deliver(exporter)

    assert {verdict.state for verdict in outcome.verdicts} == {"done"}, outcome.reason
    assert (outcome.rejected, sorted(vendor.items())) == (0, IDS)


def test_a_vendor_that_asks_for_patience_gets_it(vendor: Vendor, exporter: Exporter) -> None:
    says_when = "{after}" in f"{vendor.stand_in.busy}"
    for answer in busy(vendor.stand_in):
        vendor.answers(answer)

        outcome = deliver(exporter)

        assert set(fates(SPANS, outcome)) == {"retry"}, outcome
        assert not says_when or AFTER - WAIT < (outcome.after or 0) <= AFTER
    recovers(vendor, exporter, outcome)


def test_the_vendors_own_trouble_is_no_fault_of_a_span(vendor: Vendor, exporter: Exporter) -> None:
    for status in vendor.stand_in.failing:
        vendor.answers(vendor.stand_in.error(status, WORDS))

        outcome = deliver(exporter)

        assert set(fates(SPANS, outcome)) == {"retry"}, outcome
        assert named(vendor.stand_in, status) in outcome.reason
    recovers(vendor, exporter, outcome)


def test_what_is_refused_for_good_is_dead_for_the_reason_that_the_vendor_gives(
    vendor: Vendor, exporter: Exporter
) -> None:
    for status in vendor.stand_in.final:
        vendor.answers(vendor.stand_in.error(status, WORDS))

        outcome = deliver(exporter)

        assert set(fates(SPANS, outcome)) == {"dead"}, outcome
        assert "retry" not in {verdict.state for verdict in outcome.verdicts}
        assert named(vendor.stand_in, status) in outcome.reason
        assert WORDS in outcome.reason


def test_refused_credentials_are_tried_again_slowly_and_it_is_said_what_to_mend(
    vendor: Vendor, exporter: Exporter
) -> None:
    for status in vendor.stand_in.denied:
        vendor.answers(vendor.stand_in.error(status, WORDS))

        outcome = deliver(exporter)

        assert set(fates(SPANS, outcome)) == {"retry"}, outcome
        assert (outcome.after or 0) >= OPERATOR_DELAY
        assert named(vendor.stand_in, status) in outcome.reason
        assert "mend" in outcome.reason
    recovers(vendor, exporter, outcome)


def test_an_answer_that_does_not_come_is_not_waited_for_beyond_the_deadline(vendor: Vendor, exporter: Exporter) -> None:
    vendor.answers(Fault.SILENCE)
    started = time.monotonic()

    outcome = deliver(exporter, seconds=0.4)

    assert time.monotonic() - started < WAIT
    assert set(fates(SPANS, outcome)) == {"retry"}, outcome
    assert outcome.reason
    recovers(vendor, exporter, outcome)


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.RESET_AMID], ids=["before", "amid"])
def test_a_connection_that_breaks_loses_nothing(vendor: Vendor, exporter: Exporter, fault: Fault) -> None:
    vendor.answers(fault)

    outcome = deliver(exporter)

    assert set(fates(SPANS, outcome)) == {"retry"}, outcome
    recovers(vendor, exporter, outcome)


def test_of_a_request_that_is_taken_in_part_only_what_was_refused_is_dead(vendor: Vendor, exporter: Exporter) -> None:
    stand_in = vendor.stand_in
    if stand_in.partial is None:
        pytest.skip("the vendor takes a request or refuses it")
    answers = chain([stand_in.partial], repeat(stand_in.accepted))
    vendor.answers(lambda request: next(answers)(request))  # noqa: PLW0108 - another one at each request

    outcome = deliver(exporter)

    assert "retry" not in {verdict.state for verdict in outcome.verdicts}
    assert sorted(vendor.items()) == IDS  # each once, the taken ones are not sent again
    if stand_in.names_refused:
        refused = vendor.arrived[0].items[0]
        for at in generations(SPANS):
            assert outcome.verdicts[at].state == ("dead" if identity(SPANS[at]) == refused else "done")
        assert outcome.reason
    else:
        assert set(fates(SPANS, outcome)) == {"done"}
        assert (outcome.rejected, bool(outcome.message)) == (1, True)


def test_a_shutdown_during_a_delivery_ends_it_and_loses_nothing(vendor: Vendor, exporter: Exporter) -> None:
    vendor.answers(Fault.SILENCE)
    exporter.timeout = 10 * WAIT
    outcomes: list[Outcome] = []
    delivery = threading.Thread(target=lambda: outcomes.append(deliver(exporter, seconds=10 * WAIT)), daemon=True)
    delivery.start()
    assert vendor.asked.wait(WAIT)

    exporter.shutdown()

    delivery.join(WAIT)
    assert not delivery.is_alive()
    assert set(fates(SPANS, outcomes[0])) == {"retry"}


def test_a_shutdown_ends_the_wait_for_the_next_try(vendor: Vendor, exporter: Exporter) -> None:
    vendor.answers(busy(vendor.stand_in)[0])
    exporter.timeout = 10 * WAIT
    results: list[SpanExportResult] = []
    export = threading.Thread(target=lambda: results.append(exporter.export(SPANS)), daemon=True)
    export.start()
    assert vendor.asked.wait(WAIT)

    exporter.shutdown()

    export.join(WAIT)
    assert results == [SpanExportResult.FAILURE]


def test_what_is_sent_again_is_the_same_byte_for_byte_after_a_restart_too(
    vendor: Vendor, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(exporter: Exporter) -> list[tuple[str, str, bytes]]:
        vendor.forget()
        deliver(exporter)
        return [(each.request.method, each.request.path, each.wire) for each in vendor.arrived]

    vendor.answers(vendor.stand_in.error(vendor.stand_in.failing[-1], WORDS))
    first = build()
    before = sent(first)
    wall, wall_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: wall() + 3_600)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + 3_600_000_000_000)

    assert before
    assert sent(first) == before
    assert sent(build()) == before


def test_a_credential_that_the_vendor_repeats_is_shown_to_nobody(
    row: catalog.Row, vendor: Vendor, exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in = vendor.stand_in
    secrets = secrets_in(row, stand_in.options(vendor.origin))
    told: set[str] = set(secrets)
    shown = repr(exporter)
    for status in (*stand_in.final, *stand_in.denied, *stand_in.failing, stand_in.busy.status):

        def echo(request: Request, status: int = status) -> Answer:
            told.update(credentials_of(request))
            return stand_in.error(status, " ".join(sorted(told)))

        vendor.answers(echo)
        shown += repr(deliver(exporter, request_spans(1)))

    assert vendor.arrived
    assert [word for word in told if word in shown + caplog.text] == []
