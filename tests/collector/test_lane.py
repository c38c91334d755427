from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan

from otelgw_collector.lane import Batching, Destination, Item, Lane
from otelgw_collector.retry import RetryPolicy
from otelgw_exporters.delivery import Outcome, Verdict
from tests.collector.destinations import RESOURCE, Scripted

BATCHING = Batching(records=3, size=50, queue_records=5, queue_size=80, linger=10, first=1, idle=100)


def lane(batching: Batching = BATCHING) -> Lane[str]:
    destination = Destination("one", Scripted("one"), lambda _: (), batching, RetryPolicy(first=2, most=8))
    made = Lane(destination, {"a": 5})
    made.following = True
    return made


def item(end: int, size: int = 10, segment: str = "a") -> Item[str]:
    return Item(segment, end, size, f"{segment}{end}")


def spans(items: list[Item[str]]) -> list[ReadableSpan]:
    return [ReadableSpan(each.subject, resource=RESOURCE) for each in items]


def outcome(*states: str, after: float | None = None) -> Outcome:
    return Outcome(tuple(Verdict(state, "reason", after) for state in states))  # type: ignore[arg-type]


def test_a_first_record_waits_briefly_and_later_ones_for_company() -> None:
    one = lane()
    assert one.pause(0, draining=False) is None
    one.offer(item(10), 0)
    assert one.pause(0, draining=False) == 1
    taken = one.take(1)
    one.begin(spans(taken), taken)
    one.settle(outcome("done"), 2, lambda: 1)

    one.offer(item(20), 3)

    assert one.pause(3, draining=False) == 10
    assert one.pause(3, draining=True) == 0
    one.offer(item(30), 3)
    one.offer(item(40), 3)
    assert one.pause(3, draining=False) == 0


def test_a_full_queue_makes_the_lane_fall_behind_and_it_takes_no_more() -> None:
    one = lane()
    assert [one.offer(item(10 * number), 0) for number in range(1, 7)] == [True] * 5 + [False]
    assert not one.following
    assert one.read == {"a": 50}

    by_size = lane()
    assert [by_size.offer(item(10 * number, 40), 0) for number in range(1, 4)] == [True, True, False]


def test_a_record_larger_than_a_batch_goes_alone() -> None:
    one = lane(Batching(size=50))
    for number, size in enumerate((30, 500, 10, 10), 1):
        one.offer(item(10 * number, size), 0)

    assert [[each.end for each in one.take(0)] for _ in range(3)] == [[10], [20], [30, 40]]


def test_a_retry_waits_for_its_back_off_and_in_the_end_only_for_what_was_asked() -> None:
    one = lane()
    one.offer(item(10), 0)
    taken = one.take(0)
    one.begin(spans(taken), taken)
    one.settle(outcome("retry"), 0, lambda: 1)
    assert (one.pause(0, draining=False), one.pause(0, draining=True)) == (2, 0)
    one.settle(outcome("retry", after=1), 10, lambda: 1)
    assert (one.pause(10, draining=False), one.pause(10, draining=True)) == (4, 1)
    assert one.done == {"a": 5}

    one.settle(outcome("dead"), 20, lambda: 1)

    assert one.done == {"a": 10}
    assert (one.counters.retried, one.counters.dead) == (2, 1)


def test_what_there_is_nothing_to_deliver_of_is_done_once_everything_before_it_is() -> None:
    one = lane()
    one.pass_by("a", 8)
    assert one.done == {"a": 8}
    one.offer(item(10), 0)
    one.pass_by("a", 12)
    one.pass_by("b", 3)
    assert one.done == {"a": 8}
    taken = one.take(0)
    one.begin(spans(taken), taken)

    one.settle(outcome("done"), 0, lambda: 1)

    assert one.done == {"a": 12, "b": 3}


@given(
    st.lists(
        st.sampled_from(["offer a", "offer b", "pass a", "take", "begin", "done", "retry", "dead", "half"]), max_size=60
    )
)
def test_no_cursor_ever_passes_a_record_that_is_not_dealt_with(steps: list[str]) -> None:
    one = lane()
    offered: dict[str, list[int]] = {"a": [], "b": []}
    open_records: set[str] = set()
    taken: list[Item[str]] = []
    ends = {"a": 5, "b": 0}
    for step in steps:
        if step.startswith("offer"):
            segment = step[-1]
            record = item(ends[segment] + 1, segment=segment)
            if one.following and one.offer(record, 0):
                ends[segment] += 1
                offered[segment].append(ends[segment])
                open_records.add(record.subject)
        elif step == "pass a" and one.following:
            ends["a"] += 1
            one.pass_by("a", ends["a"])
        elif step == "take" and one.batch is None and one.queue and not taken:
            taken = one.take(0)  # and selects, while the head reads on
        elif step == "begin" and taken:
            one.begin(spans(taken), taken)
            taken = []
        elif one.batch is not None and step in {"done", "retry", "dead", "half"}:
            names = [span.name for span in one.batch.spans]
            states = ["retry" if step == "half" and index % 2 else step for index in range(len(names))]
            states = ["done" if state == "half" else state for state in states]
            one.settle(outcome(*states), 0, lambda: 1)
            open_records -= {name for name, state in zip(names, states, strict=True) if state != "retry"}
        passed = {
            f"{segment}{end}" for segment in offered for end in offered[segment] if end <= one.done.get(segment, 0)
        }
        assert not passed & open_records
        assert one.queued_size == sum(each.size for each in one.queue)
    if one.idle:
        assert one.done == one.read


@given(
    st.lists(st.tuples(st.integers(1, 3), st.lists(st.integers(1, 40), max_size=6), st.booleans()), max_size=8),
    st.integers(0, 20),
)
def test_records_that_are_offered_together_fare_as_if_offered_one_by_one(
    offers: list[tuple[int, list[int], bool]], read_already: int
) -> None:
    one, other = lane(), lane()
    for each in (one, other):
        each.read["a"] = read_already
    end, now = 0, 0.0
    for gap, sizes, take in offers:
        items = [item(end + gap * (number + 1), size) for number, size in enumerate(sizes)]
        end += gap * (len(sizes) + 1)
        now += gap
        if one.following:
            one.offer_all(items, "a", end, now)
        if other.following and all([other.offer(each, now) for each in items if other.following]):  # noqa: C419
            other.pass_by("a", end)
        if take and one.queue:
            for each in (one, other):
                taken = each.take(now)
                each.begin(spans(taken), taken)
                each.settle(outcome(*["done"] * len(taken)), now, lambda: 1)

        for known in ("queue", "queued_size", "read", "done", "following", "counters"):
            assert getattr(one, known) == getattr(other, known), known
        assert one.pause(now, draining=False) == other.pause(now, draining=False)
