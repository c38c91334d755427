from __future__ import annotations

from collections.abc import Callable, Sequence

from otelgw_collector.address import Address
from otelgw_collector.fan_out import FanOut
from otelgw_collector.lane import Batching, Destination, Lane
from tests.collector.destinations import Scripted


def lane(
    name: str,
    prepare: Callable[[str], str] | None = None,
    gather: Callable[[Sequence[str]], None] | None = None,
    batching: Batching | None = None,
) -> Lane[str]:
    batching = batching or Batching()
    made = Lane(Destination(name, Scripted(name), lambda _: (), batching, prepare=prepare, gather=gather), {})
    made.following = True
    return made


def offer(fan_out: FanOut[str], *subjects: str, address: Address | None = None) -> None:
    fan_out.begin()
    for number, subject in enumerate(subjects, 1):
        fan_out.add("a", 10 * number, 5, subject, address)
    fan_out.gather()
    fan_out.offer("a", 100, 0.0)


def queued(lane: Lane[str]) -> list[str]:
    return [item.subject for item in lane.queue]


def test_lanes_that_need_the_same_of_a_record_have_it_prepared_once_and_share_it() -> None:
    prepared: list[str] = []

    def prepare(subject: str) -> str:
        prepared.append(subject)
        return f"ready {subject}"

    one, two, raw = lane("one", prepare), lane("two", prepare), lane("raw")
    offer(FanOut([one, raw, two]), "x", "y")

    assert prepared == ["x", "y"]
    assert queued(one) == queued(two) == ["ready x", "ready y"]
    assert all(mine is others for mine, others in zip(one.queue, two.queue, strict=True))
    assert queued(raw) == ["x", "y"]
    assert one.read == raw.read == {"a": 100}


def test_a_record_that_cannot_be_prepared_waits_as_it_is() -> None:
    def prepare(subject: str) -> str:
        if subject == "y":
            raise ValueError(subject)
        return f"ready {subject}"

    one = lane("one", prepare)
    offer(FanOut([one]), "x", "y", "z")

    assert queued(one) == ["ready x", "y", "ready z"]


def test_nothing_is_prepared_for_lanes_that_do_not_follow_or_have_no_room() -> None:
    prepared: list[str] = []

    def prepare(subject: str) -> str:
        prepared.append(subject)
        return subject

    behind, full = lane("behind", prepare), lane("full", prepare, batching=Batching(queue_records=2))
    behind.following = False
    other = lane("other")
    offer(FanOut([behind, full, other]), "v", "x", "y", "z")

    assert prepared == ["v", "x"]
    assert (queued(behind), queued(full), queued(other)) == ([], ["v", "x"], ["v", "x", "y", "z"])
    assert (full.following, full.read) == (False, {"a": 20})


def test_what_was_prepared_together_is_gathered_unless_it_is_for_one_destination_only() -> None:
    gathered: list[Sequence[str]] = []

    def prepare(subject: str) -> str:
        return subject.upper()

    one, two = lane("one", prepare, gathered.append), lane("two", prepare, gathered.append)
    fan_out = FanOut([one, two])
    offer(fan_out, "x", "y")
    assert gathered == [["X", "Y"]]
    gathered.clear()

    offer(fan_out, "z", address=Address("one", b""))

    assert gathered == []


def test_a_record_for_one_destination_goes_to_no_other() -> None:
    one, two = lane("one"), lane("two")
    offer(FanOut([one, two]), "x", address=Address("two", b""))

    assert (queued(one), queued(two)) == ([], ["x"])
    assert one.done == {"a": 100}


def test_a_lane_that_begins_to_follow_while_nothing_is_decoded_reads_that_itself() -> None:
    one = lane("one")
    one.following = False
    fan_out = FanOut([one])
    assert not fan_out.begin()

    one.following = True
    fan_out.offer("a", 100, 0.0)

    assert not one.following
    assert one.read == {}
