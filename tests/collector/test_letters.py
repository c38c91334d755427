"""Dead letters, from the span that dies to its delivery after all."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector import letters
from otelgw_collector.address import Address, encode
from otelgw_collector.ledger import Changes, Ledger
from otelgw_collector.letters import Key, Letter, Stored
from otelgw_collector.segment_format import ADDRESSED, RECORD
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters.delivery import DONE, Outcome, Verdict, all_retry
from tests.collector.destinations import QUICK, Scripted, Spool, eventually, running


def picky(spans: Sequence[ReadableSpan]) -> Outcome:
    return Outcome(tuple(Verdict("dead", "no good") if span.name.startswith("bad") else DONE for span in spans))


def listed(spool: Spool) -> list[Stored]:
    database = letters.read_only(spool.ledger)
    try:
        return letters.listing(database)
    finally:
        database.close()


def found(spool: Spool) -> list[Letter]:
    database = letters.read_only(spool.ledger)
    try:
        return letters.find(database, [each.id for each in letters.listing(database)])
    finally:
        database.close()


def test_what_can_never_be_delivered_is_kept_with_its_reason_and_its_record(
    spool: Spool, writer: SegmentWriter
) -> None:
    one, two = Scripted("one", picky), Scripted("two")
    for name in ("good1", "bad2", "good3"):
        writer.append(name.encode())
    with running(spool.pipeline(one.destination(), two.destination())):
        eventually(lambda: len(two.names) == 3 and len(one.names) == 2)
        eventually(lambda: listed(spool))
    writer.close()

    (letter,) = found(spool)
    assert (letter.key.destination, letter.name, letter.reason) == ("one", "bad2", "no good")
    assert (letter.kind, letter.payload) == (RECORD, b"bad2")
    assert len(letter.key.trace_id) == 32
    assert len(letter.key.span_id) == 16


def address(letter: Letter) -> Address:
    span = frozenset({f"{letter.key.trace_id}-{letter.key.span_id}"})
    return Address(letter.key.destination, letter.payload, letter.kind, span, letters=True)


def test_a_letter_that_is_sent_again_goes_to_its_destination_only_and_is_gone(
    spool: Spool, writer: SegmentWriter
) -> None:
    writer.append(b"bad")
    with running(spool.pipeline(Scripted("one", picky).destination(), Scripted("two").destination())):
        eventually(lambda: listed(spool))
    again = SegmentWriter(spool.segments, "redrive")
    again.append(encode(address(found(spool)[0])), ADDRESSED)
    again.close()
    one, two = Scripted("one"), Scripted("two")
    with running(spool.pipeline(one.destination(), two.destination())):
        eventually(lambda: one.names == ["bad"])
        eventually(lambda: not listed(spool))
        writer.close()
        eventually(lambda: spool.files == [])

    assert two.names == []


def test_a_letter_that_dies_again_is_one_letter_with_the_original_record(spool: Spool, writer: SegmentWriter) -> None:
    writer.append(b"bad")
    with running(spool.pipeline(Scripted("one", picky).destination())):
        eventually(lambda: listed(spool))
    (first,) = found(spool)
    again = SegmentWriter(spool.segments, "redrive")
    again.append(encode(address(first)), ADDRESSED)
    again.close()
    with running(spool.pipeline(Scripted("one", picky).destination())):
        eventually(lambda: [each.place for each in listed(spool)] not in ([], [first.place]))

    (second,) = found(spool)
    assert (second.key, second.payload, second.kind) == (first.key, b"bad", RECORD)


def test_a_batch_that_is_tried_in_vain_for_too_long_becomes_dead_letters(spool: Spool, writer: SegmentWriter) -> None:
    down = Scripted("down", lambda spans: all_retry(len(spans), "is down"))
    writer.append(b"x")
    with running(spool.pipeline(down.destination(retry=replace(QUICK, limit=0.2)))) as pipeline:
        eventually(lambda: listed(spool))
        assert pipeline.status()[0].counters.dead == 1

    assert listed(spool)[0].reason == "given up after 0.2 s: is down"


def letter(number: int, payload: bytes = b"x" * 100, destination: str = "one") -> Letter:
    key = Key(destination, f"{number:032x}", f"{number:016x}")
    return Letter(key, "span", "why", 1.0, f"w0-1.seg:ff@{number}", RECORD, payload)


def test_dead_letters_take_no_more_room_than_they_may_and_the_oldest_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path / "pipeline.db", most_dead=350)
    for number in range(1, 6):
        ledger.save(Changes(dead=[letter(number)]))
    ledger.close()
    database = letters.read_only(tmp_path / "pipeline.db")

    assert [int(each.trace_id, 16) for each in letters.listing(database)] == [3, 4, 5]
    assert letters.count(database) == {"one": 3}
    database.close()
    assert "the 1 oldest are removed" in caplog.text


def test_a_record_stays_as_long_as_one_of_its_letters(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "pipeline.db")
    one, two = letter(1), letter(1, destination="two")
    ledger.save(Changes(dead=[one, two]))
    ledger.save(Changes(taken_up=[one.key]))
    database = letters.read_only(tmp_path / "pipeline.db")
    (left,) = letters.find(database, [each.id for each in letters.listing(database)])
    database.close()

    assert (left.key, left.payload) == (two.key, two.payload)
    ledger.save(Changes(taken_up=[two.key]))
    assert ledger.dead() == {}
    ledger.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    Ledger(tmp_path / "pipeline.db").close()
    database = letters.read_only(tmp_path / "pipeline.db")
    with pytest.raises(sqlite3.OperationalError):
        database.execute("DELETE FROM dead_letter")
    database.close()
