"""``otelgw spool`` against a real pipeline process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from otelgw.cli import main
from otelgw.config.settings import Destination, Server, Settings
from otelgw.errors import ConfigError, StartError
from otelgw.metrics import Metrics
from otelgw.pipeline_main import decoders
from otelgw.report import Reporter
from otelgw.selection import selector
from otelgw.spool_command import Request, run
from otelgw.tracing import record as records
from otelgw_collector import segment_format
from otelgw_collector.pipeline import Destination as Target
from otelgw_collector.pipeline import Pipeline, Retention
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters.delivery import DONE, Outcome, Verdict
from tests.collector.destinations import QUICK, Scripted, eventually, running
from tests.tracing.records import START, record, withheld

HOUR = 3_600_000_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    names = ("otlp_http/one", "otlp_http/two")
    destinations = tuple(Destination(name, "otlp_http", content=name.endswith("one")) for name in names)
    return Settings(server=Server(), state_dir=str(tmp_path), destinations=destinations)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SegmentWriter]:
    made = SegmentWriter(tmp_path / "spool", "w0_1_1")
    yield made
    made.close()


def pipeline(settings: Settings, *scripted: Scripted) -> Pipeline[object]:
    state = Path(settings.state_dir)
    targets = [
        Target(policy.name, each, selector(policy), retry=QUICK)
        for policy, each in zip(settings.destinations, scripted, strict=True)
    ]
    return Pipeline(
        state / "spool",
        state / "pipeline.db",
        decoders(settings.tracing, settings.state_dir),
        targets,
        retention=Retention(1e9),
        report=Reporter(state, Metrics()),
    )


def both() -> tuple[Scripted, Scripted]:
    return Scripted("otlp_http/one"), Scripted("otlp_http/two")


def lines(settings: Settings, *given: object, **named: object) -> list[str]:
    return list(run(settings, Request(*given, **named)))  # type: ignore[arg-type]


def hour(number: int, **changes: object) -> bytes:
    return records.encode(record(start=START + number * HOUR, call_id=f"call-{number}", **changes))


def test_a_replay_sends_what_was_delivered_once_more_to_one_destination(
    settings: Settings, writer: SegmentWriter
) -> None:
    one, two = both()
    for number in range(4):
        writer.append(hour(number))
    with running(pipeline(settings, one, two)):
        eventually(lambda: len(one.names) == len(two.names) == 12)
        (said,) = lines(
            settings, "replay", since="2027-01-15T09:00", until="2027-01-15T11:00:00+00:00", destination="otlp_http/two"
        )
        eventually(lambda: len(two.names) == 18)
    assert said == (
        "2 records from 2027-01-15T09:00:00+00:00 to 2027-01-15T11:00:00+00:00 are on their way to otlp_http/two."
    )
    assert len(one.names) == 12


def test_a_replay_shows_nothing_that_the_destination_may_not_see_or_that_is_not_recorded(
    settings: Settings, writer: SegmentWriter
) -> None:
    seen: dict[str, list[str]] = {"one": [], "two": []}

    def keep(name: str) -> Scripted:
        def answer(spans: object) -> Outcome:
            seen[name] += [span.to_json() for span in spans]  # type: ignore[attr-defined]
            return Outcome((DONE,) * len(spans))  # type: ignore[arg-type]

        return Scripted(f"otlp_http/{name}", answer)

    writer.append(hour(0))
    writer.append(records.encode(withheld(record(start=START, span_id="b7ad6b7169203332"))))
    for name in ("otlp_http/one", "otlp_http/two"):
        lines(settings, "replay", since="2020-01-01", until="2040-01-01", destination=name)
    with running(pipeline(settings, keep("one"), keep("two"))):
        eventually(lambda: len(seen["one"]) == len(seen["two"]) == 12)

    assert sum("CANARY" in text for text in seen["one"]) == 2
    assert not any("CANARY" in text for text in seen["two"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"since": "1h", "destination": "otlp_http/none"}, "--destination must be one of otlp_http/one, otlp_http/two"),
        ({"since": "yesterday", "destination": "otlp_http/one"}, "--from must be a time such as 2026-01-31T12:00"),
        ({"destination": "otlp_http/one"}, "--from must be a time"),
        ({"since": "1h", "until": "2h", "destination": "otlp_http/one"}, "--from must be earlier"),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused_with_the_reason(
    settings: Settings, asked: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        lines(settings, "replay", **asked)


def test_dead_letters_are_listed_shown_and_sent_again(settings: Settings, writer: SegmentWriter) -> None:
    def dead(spans: list[object]) -> Outcome:
        return Outcome(
            tuple(Verdict("dead", "schema") if span.name == "POST" else DONE for span in spans)  # type: ignore[attr-defined]
        )

    one, two = Scripted("otlp_http/one", dead), Scripted("otlp_http/two")  # type: ignore[arg-type]
    writer.append(hour(0))
    with running(pipeline(settings, one, two)):
        eventually(lambda: "POST" in lines(settings, "dead-letters")[0])
        listed, counted = lines(settings, "dead-letters")
        eventually(lambda: "  letters     1 span kept; `otelgw spool dead-letters` lists them" in lines(settings))
        number = int(listed.split()[0])
        shown = lines(settings, "dead-letters", show=number)
        one.answer = None
        said = lines(settings, "dead-letters", show=number, redrive=True)
        eventually(lambda: one.names[-1] == "POST")
        eventually(lambda: lines(settings, "dead-letters") == ["There are no dead letters."])

    assert listed.endswith("otlp_http/one  0af7651916cd43dd8448eb211c80319c  POST: schema")
    assert "reason       schema" in shown
    assert counted == "1 span, of 1 trace"
    assert said == ["On their way again: 1 span, of 1 trace with dead letters."]
    assert one.tries[-1] == ["POST"]
    assert len(two.names) == 3
    with pytest.raises(StartError, match="There is no dead letter 99"):
        lines(settings, "dead-letters", show=99)


def test_status_says_what_waits_what_is_lost_and_whether_anybody_works_on_it(
    settings: Settings, writer: SegmentWriter
) -> None:
    assert lines(settings)[1] == "pipeline      has not run here yet"
    with pytest.raises(StartError, match="has the gateway run here"):
        lines(settings, "dead-letters")
    one, two = both()
    one.answer = lambda spans: Outcome((Verdict("retry", "is down"),) * len(spans))
    writer.append(hour(0))
    with running(pipeline(settings, one, two), 0.5):
        eventually(lambda: any("otlp_http/one: retrying (is down)" in line for line in lines(settings)))
    text = "\n".join(lines(settings))

    assert "running (pid" in text
    assert "otlp_http/two: ok" in text
    assert "3 delivered" in text
    assert "0 dropped because the spool was full" in text


def test_status_says_what_waits_for_a_newer_otelgw(
    settings: Settings, writer: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Path(settings.state_dir) / "spool"
    spool.mkdir()
    (spool / "old-00000001.seg").write_bytes(segment_format.pack_header(b"12345678", form=2) + bytes(972))
    monkeypatch.setattr(segment_format, "VERSION", 2)
    for _ in range(3):
        writer.append(bytes(1000))
    monkeypatch.undo()
    with running(pipeline(settings, *both())):
        eventually(
            lambda: any("3 records and 1 segments of a newer otelgw, 3.9 KiB" in line for line in lines(settings))
        )

    assert "set aside     0 undecodable, 0 quarantined" in lines(settings)


def test_the_command_line_leads_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTELGW_STATE_DIR", str(tmp_path))
    assert main(["spool"]) == 0
    assert "has not run here yet" in capsys.readouterr().out
    assert main(["spool", "dead-letters"]) == 1
    assert main(["spool", "replay", "--from", "1h", "--destination", "console"]) == 0
    assert "0 records" in capsys.readouterr().out
    assert main(["spool", "replay", "--from", "1h", "--destination", "nowhere"]) == 2
    assert main(["spool", "replay", "--from", "soon", "--destination", "console"]) == 2
