"""What a destination gets that is behind, and reads for itself what the others have had."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.address import Address, encode
from otelgw_collector.lane import letter_key
from otelgw_collector.pipeline import Batching
from otelgw_collector.segment_format import ADDRESSED, RECORD
from otelgw_collector.segments import SegmentWriter
from otelgw_exporters.delivery import Outcome, all_done, all_retry
from tests.collector.destinations import Scripted, Spool, decode, eventually, running

SMALL = Batching(records=4, queue_records=8, linger=0.02, first=0.005)


class Prepared(list[ReadableSpan]):
    """Spans that were made ready, and by which thread."""

    def __init__(self, spans: Sequence[ReadableSpan]) -> None:
        super().__init__(spans)
        self.thread = threading.current_thread().name


def prepare(spans: list[ReadableSpan]) -> list[ReadableSpan]:
    if any(span.name.startswith("bad") for span in spans):
        raise ValueError("it cannot be prepared")
    return Prepared(spans)


def flat(subjects: Sequence[list[ReadableSpan]]) -> list[ReadableSpan]:
    return [span for spans in subjects for span in spans]


class Selected:
    """Selects all spans and notes what it was given."""

    def __init__(self) -> None:
        self.given: list[list[ReadableSpan]] = []

    def __call__(self, spans: list[ReadableSpan]) -> list[ReadableSpan]:
        self.given.append(spans)
        return spans

    @property
    def threads(self) -> set[str]:
        return {spans.thread for spans in self.given if isinstance(spans, Prepared)}


def stuck(release: threading.Event) -> Scripted:
    def hang(spans: Sequence[ReadableSpan]) -> Outcome:
        release.wait(30)
        return all_done(len(spans))

    return Scripted("slow", hang)


def test_a_lane_that_catches_up_prepares_what_it_reads_itself(spool: Spool, writer: SegmentWriter) -> None:
    release, selected = threading.Event(), Selected()
    slow, quick = stuck(release), Scripted("quick")
    names = [f"{number:08d}" for number in range(100)]
    with running(
        spool.pipeline(slow.destination(SMALL, prepare=prepare, select=selected), quick.destination(prepare=prepare))
    ):
        for name in names:
            writer.append(name.encode())
        eventually(lambda: len(quick.names) == 100)
        release.set()
        eventually(lambda: len(slow.names) == 100)

    assert slow.names == quick.names == names
    assert all(isinstance(spans, Prepared) for spans in selected.given)
    assert "deliver slow" in selected.threads


def test_a_record_that_cannot_be_prepared_is_selected_as_it_is_also_when_catching_up(
    spool: Spool, writer: SegmentWriter
) -> None:
    release, selected = threading.Event(), Selected()
    slow, quick = stuck(release), Scripted("quick")
    names = [f"{'bad' if number % 5 == 0 else ''}{number:08d}" for number in range(60)]
    with running(
        spool.pipeline(slow.destination(SMALL, prepare=prepare, select=selected), quick.destination())
    ) as pipeline:
        for name in names:
            writer.append(name.encode())
        eventually(lambda: len(quick.names) == 60)
        release.set()
        eventually(lambda: len(slow.names) == 60)
        counters = pipeline.status()[0].counters

    assert slow.names == names
    assert {spans[0].name for spans in selected.given if not isinstance(spans, Prepared)} == set(names[::5])
    assert (counters.delivered, counters.dead, counters.unselected) == (60, 0, 0)


def test_what_is_read_together_when_catching_up_is_gathered_and_taken_together(
    spool: Spool, writer: SegmentWriter
) -> None:
    release = threading.Event()
    slow, quick = stuck(release), Scripted("quick")
    gathered: dict[str, list[list[ReadableSpan]]] = {}
    asked: list[int] = []

    def gather(subjects: Sequence[list[ReadableSpan]]) -> None:
        gathered.setdefault(threading.current_thread().name, []).extend(subjects)

    def together(subjects: Sequence[list[ReadableSpan]]) -> Sequence[ReadableSpan]:
        asked.append(len(subjects))
        return flat(subjects)

    names = [f"{number:08d}" for number in range(100)]
    one = slow.destination(SMALL, prepare=prepare, gather=gather, together=together)
    with running(spool.pipeline(one, quick.destination())):
        for name in names:
            writer.append(name.encode())
        eventually(lambda: len(quick.names) == 100)
        release.set()
        eventually(lambda: len(slow.names) == 100)

    assert slow.names == names
    assert sum(asked) == 100
    behind = gathered["deliver slow"]
    assert all(isinstance(spans, Prepared) for spans in behind)
    assert [span.name for span in flat(behind)] == names[-len(behind) :], "in order, and to the end"


def test_nothing_is_gathered_where_a_record_is_for_one_destination_only(spool: Spool, writer: SegmentWriter) -> None:
    gathered: list[int] = []
    names = [f"{number:08d}" for number in range(1, 9)]
    for name in names:
        if name == names[3]:
            key = letter_key(decode(name.encode())[0])
            address = Address("one", name.encode(), RECORD, frozenset({key}), letters=True)
            writer.append(encode(address), ADDRESSED)
        else:
            writer.append(name.encode())
    writer.close()
    # It is down for as long as the first pipeline runs: the second one makes the same batch again.
    down = Scripted("one", lambda spans: all_retry(len(spans), "down"))
    options = {"prepare": prepare, "gather": lambda subjects: gathered.append(len(subjects)), "together": flat}
    with running(spool.pipeline(down.destination(**options)), limit=0.0):
        eventually(lambda: len(down.tries) > 1)
    one = Scripted("one")
    with running(spool.pipeline(one.destination(**options))):
        eventually(lambda: len(one.names) == 8)

    assert one.names == names
    assert gathered == []


def test_a_batch_is_made_again_of_what_is_prepared_after_a_restart(spool: Spool, writer: SegmentWriter) -> None:
    names = [f"{number:08d}" for number in range(1, 7)]
    for name in names:
        writer.append(name.encode())
    writer.close()
    down, selected = Scripted("one", lambda spans: all_retry(len(spans), "down")), Selected()
    with running(spool.pipeline(down.destination(prepare=prepare)), limit=0.0):
        eventually(lambda: len(down.tries) > 1)
    one = Scripted("one")
    with running(spool.pipeline(one.destination(prepare=prepare, select=selected))):
        eventually(lambda: len(one.names) == 6)

    assert one.names == names
    assert one.tries[0] == down.tries[0]
    assert selected.threads == {"deliver one"}
